package run

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// Ready says whether a process can do its work, by named conditions. A Ready
// without conditions is ready. It is safe for concurrent use.
type Ready struct {
	mu         sync.Mutex
	conditions []*Condition  // guarded by mu; in the order of creation
	changed    chan struct{} // guarded by mu; closed and replaced at each change
}

// Condition is one thing to wait for. It is safe for concurrent use.
type Condition struct {
	ready *Ready
	name  string

	waitingFor string // guarded by ready.mu; "" once met
}

// Waiting is a condition that is not met.
type Waiting struct {
	Name string // the condition
	For  string // what it waits for, for people
}

// NewReady returns a Ready without conditions.
func NewReady() *Ready { return &Ready{changed: make(chan struct{})} }

// Condition adds a condition that is not met, and says what it waits for, as in
// Condition("config", "the first table from the control plane").
func (r *Ready) Condition(name, waitingFor string) *Condition {
	c := &Condition{ready: r, name: name}
	r.mu.Lock()
	r.conditions = append(r.conditions, c)
	r.mu.Unlock()
	c.Wait(waitingFor)
	return c
}

// Done says that the condition is met.
func (c *Condition) Done() { c.set("") }

// Wait says that the condition is not met, or no longer, and what it waits for.
func (c *Condition) Wait(waitingFor string) {
	if waitingFor == "" {
		waitingFor = c.name
	}
	c.set(waitingFor)
}

func (c *Condition) set(waitingFor string) {
	c.ready.mu.Lock()
	defer c.ready.mu.Unlock()
	c.waitingFor = waitingFor
	close(c.ready.changed)
	c.ready.changed = make(chan struct{})
}

// OK reports whether every condition is met.
func (r *Ready) OK() bool { return len(r.Waiting()) == 0 }

// Waiting returns the conditions that are not met, in the order of creation.
func (r *Ready) Waiting() []Waiting {
	waiting, _ := r.state()
	return waiting
}

// Await blocks until every condition is met at once, or ctx ends; then the
// error says what is being waited for.
func (r *Ready) Await(ctx context.Context) error {
	for {
		waiting, changed := r.state()
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("not ready: %s: waiting for %s: %w", waiting[0].Name, waiting[0].For, ctx.Err())
		}
	}
}

func (r *Ready) state() ([]Waiting, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var waiting []Waiting
	for _, c := range r.conditions {
		if c.waitingFor != "" {
			waiting = append(waiting, Waiting{Name: c.name, For: c.waitingFor})
		}
	}
	return waiting, r.changed
}

// ServeHTTP answers 200 "ready", or 503 with one line per condition that is not
// met.
func (r *Ready) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	waiting := r.Waiting()
	if len(waiting) == 0 {
		_, _ = io.WriteString(w, "ready\n") // the prober went away: nobody to tell
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	for _, c := range waiting {
		_, _ = fmt.Fprintf(w, "%s: waiting for %s\n", c.Name, c.For)
	}
}
