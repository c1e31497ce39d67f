package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience is how long a process may take to end after SIGTERM.
const patience = 5 * time.Second

// process is a program on the cores that it was given. It leads a process group, which its children
// stay in: what the group used is what it used, and ending the group ends it.
// Not safe for concurrent use.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // the file that has what it wrote
	done chan struct{} // closed when it has ended
}

// start starts argv on the cores, with env added to the environment. The caller must
// stop it.
func start(dir, name, cores string, env []string, argv ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	p.cmd = pinned(cores, argv...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is asked for where it matters
		close(p.done)
	}()
	return p, nil
}

// pinned is a command on the cores, "0" or "0,1", in a process group of its own, so that a Ctrl-C
// for the run reaches it by way of the run only. taskset becomes the program.
func pinned(cores string, argv ...string) *exec.Cmd {
	cmd := exec.Command("taskset", append([]string{"--cpu-list", cores}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// pid is that of the process and of its group.
func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and its children, and waits until they have ended.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
	}
	p.signal(syscall.SIGKILL) // children that outlive their parent, too
	<-p.done
}

// signal does nothing to a group that is gone.
func (p *process) signal(s syscall.Signal) {
	if err := syscall.Kill(-p.pid(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
		panic(err) // they are our children
	}
}

// await polls until ready returns nil. It fails when the process ends first, or
// after ten seconds.
func (p *process) await(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended with %v; it wrote:\n%s", p.name, p.cmd.ProcessState, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w); it wrote:\n%s", p.name, err, context.Cause(ctx), p.tail())
		case <-tick.C:
		}
	}
}

// tail is the end of what the process wrote, at most 2 kB.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2<<10):])
}

// output runs argv on the cores until it ends, and returns what it wrote to standard
// output. When ctx ends first, it is killed.
func output(ctx context.Context, cores string, argv ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := pinned(cores, argv...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	ended()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_, _ = io.Copy(&stdout, &stderr)
		return nil, fmt.Errorf("%s: %w: %s", argv[0], err, stdout.Bytes())
	}
	return stdout.Bytes(), nil
}
