package main

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// kept is a process that is started again whenever it has ended, as by a supervisor. It is safe for concurrent use.
type kept struct {
	name  string
	begin func() (*play.Process, error)
	ready string               // a pattern, with a group, of what it logs once it serves; empty: it says nothing
	gone  func(process int)    // told of each that has ended; nil: nobody is
	pause func() time.Duration // before it is started again

	mu       sync.Mutex
	process  *play.Process // guarded by mu
	expected bool          // guarded by mu; that it ends
	starts   int           // guarded by mu
	itself   []string      // guarded by mu; how it ended though nobody killed it
}

// startTime bounds the start of a process, which may have to wait for others that are dead or frozen.
const startTime = time.Minute

// run keeps the process until ctx ends, and leaves it running then. started is closed once it serves.
func (k *kept) run(ctx context.Context, started chan<- struct{}) error {
	for ctx.Err() == nil {
		p, err := k.begin()
		if err != nil {
			return err
		}
		k.mu.Lock()
		k.process, k.expected = p, false
		k.starts++
		k.mu.Unlock()
		if started != nil {
			if k.ready != "" {
				serving, cancel := context.WithTimeout(ctx, startTime)
				_, err := p.Await(serving, k.ready)
				cancel()
				if err != nil {
					return err
				}
			}
			close(started)
			started = nil
		}
		select {
		case <-p.Done():
		case <-ctx.Done():
			return nil
		}
		if k.gone != nil {
			k.gone(p.ID())
		}
		k.mu.Lock()
		if !k.expected {
			k.itself = append(k.itself, fmt.Sprint(p.Stop()))
		}
		k.mu.Unlock()
		select {
		case <-time.After(k.pause()):
		case <-ctx.Done():
		}
	}
	return nil
}

// now returns the process as it is.
func (k *kept) now() *play.Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.process
}

// kill ends it with SIGKILL.
func (k *kept) kill() { k.expect().Kill() }

// expect says that it will end, and returns it.
func (k *kept) expect() *play.Process {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expected = true
	return k.process
}

// freeze stops all of it, and thaw lets it go on.
func (k *kept) freeze() { k.now().Signal(syscall.SIGSTOP) }
func (k *kept) thaw()   { k.now().Signal(syscall.SIGCONT) }

// counted returns how often it was started, and how it ended by itself.
func (k *kept) counted() (starts int, itself []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.starts, k.itself
}
