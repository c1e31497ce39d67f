package play

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"
)

// Process is one that runs, in a process group of its own, so that a Ctrl-C for the
// play reaches it by way of the play only. It is safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu    sync.Mutex
	ready bool          // guarded by mu; it has logged what was waited for
	lines []string      // guarded by mu; the first that it logged
	more  chan struct{} // guarded by mu; closed and renewed with each
}

// firstLines is how many lines are kept in memory to be waited for.
const firstLines = 100

// Start starts a program. What it writes goes into logs/name.log. The caller must Kill or Stop
// it.
func Start(logs, name, program string, args ...string) (*Process, error) {
	file, err := os.OpenFile(filepath.Join(logs, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{}), more: make(chan struct{})}
	// If the play itself is killed, its processes die with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, in.Close(), out.Close(), file.Close())
	}
	_ = in.Close() // the process has its own
	go func() {
		p.read(out, file)
		_ = p.cmd.Wait() // its state is asked for where it matters
		_ = out.Close()
		_ = file.Close()
		close(p.done)
	}()
	return p, nil
}

func (p *Process) read(out io.Reader, file io.Writer) {
	scanner := bufio.NewScanner(out)
	scanner.Buffer(make([]byte, 64<<10), 1<<20)
	for scanner.Scan() {
		_, _ = fmt.Fprintln(file, scanner.Text()) // a log that cannot be written is no reason to stop
		p.mu.Lock()
		if len(p.lines) < firstLines {
			p.lines = append(p.lines, scanner.Text())
			close(p.more)
			p.more = make(chan struct{})
		}
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long
}

// Await waits until the process logs a line that matches, and returns the first
// group of the match.
func (p *Process) Await(ctx context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	for {
		p.mu.Lock()
		more := p.more
		for _, line := range p.lines {
			if m := re.FindStringSubmatch(line); m != nil {
				p.ready = true
				p.mu.Unlock()
				return m[1], nil
			}
		}
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			return "", fmt.Errorf("%s ended (%v) before it logged %q", p.name, p.cmd.ProcessState, pattern)
		case <-ctx.Done():
			return "", fmt.Errorf("%s has not logged %q: %w", p.name, pattern, ctx.Err())
		}
	}
}

// ID is the process's number.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal does nothing to a process that has ended.
func (p *Process) Signal(s os.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(err) // it is our child
	}
}

// Kill ends the process with SIGKILL.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Stop ends the process with SIGTERM, and after a while with SIGKILL. It returns how
// it ended, nil for exit code 0. One that was still starting may die by the signal: it
// may not have come to handle it.
func (p *Process) Stop() error {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		return fmt.Errorf("%s did not end within %v", p.name, stopTime)
	}
	p.mu.Lock()
	ready := p.ready
	p.mu.Unlock()
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ready && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %v", p.name, p.cmd.ProcessState)
	}
	return nil
}
