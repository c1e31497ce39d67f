// Package dbserver runs servers of databases, for tests and benchmarks: each in a directory of its own, on a socket there.
package dbserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startTime bounds the start of a server.
const startTime = time.Minute

// Server is one that runs. It ends with the process that started it. Its methods are for one goroutine.
type Server struct {
	// Dir holds the data and the socket. Stop removes it.
	Dir string
	// User is who runs the server, and, of PostgreSQL, its superuser, who needs no password.
	User string

	id    *syscall.Credential // nil: who runs this process
	cmd   *exec.Cmd
	said  bytes.Buffer  // to be read when it has ended
	ended chan struct{} // closed when it says nothing more
	end   syscall.Signal
}

// PostgreSQL starts one with further settings, NAME=VALUE each. Its socket is in Dir, at port 5432; it listens at no address.
func PostgreSQL(settings ...string) (*Server, error) {
	s, err := newServer("postgres", syscall.SIGINT) // which does not wait for clients
	if err != nil {
		return nil, err
	}
	return s.begin("ready to accept connections",
		[]string{"initdb", "--pgdata=" + s.Dir + "/data", "--username=" + s.User, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"},
		append([]string{"postgres", "-D", s.Dir + "/data", "-k", s.Dir, "-c", "listen_addresses="}, each("-c", settings)...))
}

// MariaDB starts one. Its socket is Dir/socket; root needs no password.
func MariaDB() (*Server, error) {
	s, err := newServer("mysql", syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	return s.begin("ready for connections",
		[]string{"mariadb-install-db", "--no-defaults", "--datadir=" + s.Dir + "/data", "--auth-root-authentication-method=normal", "--skip-test-db"},
		[]string{"mariadbd", "--no-defaults", "--datadir=" + s.Dir + "/data", "--socket=" + s.Dir + "/socket", "--pid-file=" + s.Dir + "/pid", "--skip-networking",
			"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"})
}

func each(flag string, values []string) []string {
	var args []string
	for _, v := range values {
		args = append(args, flag, v)
	}
	return args
}

// Program finds a program of a server, also where Debian has them.
func Program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	var found []string
	for _, folder := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/"} {
		paths, err := filepath.Glob(folder + name)
		if err != nil {
			return "", err
		}
		found = append(found, paths...)
	}
	if len(found) == 0 {
		return "", fmt.Errorf("there is no %s here: pkg/internal/dbserver/install.sh installs it", name)
	}
	return found[len(found)-1], nil
}

// newServer finds who is to run a server, for those refuse root, and makes a directory that is theirs: a short path, for it holds sockets.
func newServer(preferred string, end syscall.Signal) (*Server, error) {
	who, err := user.Current()
	if err != nil {
		return nil, err
	}
	s := &Server{User: who.Username, ended: make(chan struct{}), end: end}
	if s.Dir, err = os.MkdirTemp("", "dbserver"); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 {
		if err := s.unprivileged(preferred); err != nil {
			return nil, errors.Join(err, os.RemoveAll(s.Dir))
		}
	}
	return s, nil
}

func (s *Server) unprivileged(preferred string) error {
	who, err := user.Lookup(preferred)
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return err
		}
	}
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(who.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.User, s.id = who.Username, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(s.Dir, int(uid), int(gid))
}

// begin prepares the data and starts the server, which says when it is ready.
func (s *Server) begin(ready string, prepare, run []string) (*Server, error) {
	if _, err := s.Run(prepare[0], prepare[1:]...); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.Dir))
	}
	if err := s.start(ready, run); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.Dir))
	}
	return s, nil
}

// Run runs another program of the server's, as its user, and returns what it wrote.
func (s *Server) Run(program string, args ...string) ([]byte, error) {
	path, err := Program(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.SysProcAttr = s.Dir, &syscall.SysProcAttr{Credential: s.id}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return out, nil
}

func (s *Server) start(ready string, run []string) error {
	path, err := Program(run[0])
	if err != nil {
		return err
	}
	s.cmd = exec.Command(path, run[1:]...)
	s.cmd.Dir, s.cmd.SysProcAttr = s.Dir, &syscall.SysProcAttr{Credential: s.id, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	isReady := make(chan struct{})
	go func() {
		defer close(s.ended)
		waiting := true
		for lines := bufio.NewScanner(io.TeeReader(stderr, &s.said)); lines.Scan(); {
			if waiting && strings.Contains(lines.Text(), ready) {
				waiting = false
				close(isReady)
			}
		}
	}()
	select {
	case <-isReady:
		return nil
	case <-s.ended:
		return fmt.Errorf("%v ended before it was ready: %w\n%s", s.cmd, s.cmd.Wait(), s.said.Bytes())
	case <-time.After(startTime):
		_ = s.cmd.Process.Kill()
		<-s.ended
		return fmt.Errorf("%v did not say %q within %v: %w\n%s", s.cmd, ready, startTime, s.cmd.Wait(), s.said.Bytes())
	}
}

// ID is the number of the server's first process: the others are below it.
func (s *Server) ID() int { return s.cmd.Process.Pid }

// Stop ends the server, breaking its clients' connections, and removes its directory. It returns how it ended, if not well.
func (s *Server) Stop() error {
	_ = s.cmd.Process.Signal(s.end)
	<-s.ended
	err := s.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%v: %w\n%s", s.cmd, err, s.said.Bytes())
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}
