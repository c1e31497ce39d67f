package etcdembed

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// maxSocketPath is the longest path that fits sockaddr_un.sun_path of Linux, 108 bytes with the final NUL (unix(7)).
const maxSocketPath = 107

// takeLock locks the data directory without waiting. etcd itself would wait for the other process forever (bbolt's file lock).
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = f.Close() }() // it was only read
		holder := make([]byte, 32)
		n, _ := f.Read(holder) // the number is a courtesy; without it the message is still right
		return nil, fmt.Errorf("data directory %s is in use by process %s: %w", dir, strings.TrimSpace(string(holder[:n])), err)
	}
	if err := f.Truncate(0); err != nil {
		_ = f.Close() // err is the one that matters
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
		_ = f.Close() // err is the one that matters
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return f, nil
}

// placeSocket returns the path for the socket, in a directory that only the user can enter, and what removes a temporary one.
func placeSocket(dir, socket string) (path string, remove func(), err error) {
	remove = func() {}
	switch {
	case socket == "":
		socket = filepath.Join(dir, "run", "etcd.sock")
		if len(socket) <= maxSocketPath {
			break
		}
		private, err := os.MkdirTemp("", "fairlead-etcd-") // 0700
		if err != nil {
			return "", nil, fmt.Errorf("directory for the etcd socket: %w", err)
		}
		remove = func() { _ = os.RemoveAll(private) } // a leftover in the temporary directory harms nobody
		socket = filepath.Join(private, "etcd.sock")
	default:
		if socket, err = filepath.Abs(socket); err != nil {
			return "", nil, err
		}
	}
	if err := checkSocket(socket); err != nil {
		remove()
		return "", nil, err
	}
	return socket, remove, nil
}

func checkSocket(socket string) error {
	if len(socket) > maxSocketPath {
		return fmt.Errorf("%w: etcd socket path %s has %d bytes; the system allows %d", store.ErrInvalid, socket, len(socket), maxSocketPath)
	}
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("directory for the etcd socket: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("directory for the etcd socket: %w", err)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%w: directory %s of the etcd socket has mode %04o and is open to other users; it must be 0700",
			store.ErrInvalid, dir, perm)
	}
	// etcd replaces a file it finds at the path. What a killed process left behind refuses connections.
	if c, err := net.Dial("unix", socket); err == nil {
		_ = c.Close() // it was only a question
		return fmt.Errorf("%w: etcd socket %s is in use", store.ErrInvalid, socket)
	}
	return nil
}
