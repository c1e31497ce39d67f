package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is something that was done to the mesh.
type event struct {
	at    time.Time
	lost  time.Time // when a process that is killed has ended; zero: it has not yet
	until time.Time // when it was made good; zero: it is not yet
	what  string
	// service and instance that it was done to; "" for the control plane.
	service, instance string
	kills             bool // what is under way at the instance is lost
	app               bool // it is the application that ends, not only its sidecar
	stops             bool // what is under way has its time to end, and is then lost
	newLife           bool // the control plane is started again
}

// failure is what a client saw go wrong.
type failure struct {
	kind       string // of load, such as "HTTP/1.1 GET"
	began, at  time.Time
	service    string
	instance   string // at the other end, as far as it is known
	direct     bool   // to the application, without its sidecar
	relayed    bool   // a connection of TCP, through the application's sidecar
	idempotent bool
	begun      bool   // the response, the stream or the connection to the instance had begun
	large      bool   // its body is longer than what is kept for a second attempt
	reason     string // fairlead-reason; "" if there was none
	wrong      bool   // other bytes came, or another status, than whatever happened could lead to
	what       string // in words
}

func (f failure) String() string {
	return fmt.Sprintf("%s %s to %s (%s), after %v: %s (%s)", f.at.Format("15:04:05.000"), f.kind, f.service, orNone(f.instance),
		f.at.Sub(f.began).Round(time.Millisecond), f.what, orNone(f.reason))
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// slack is how much later than a process has ended others may still send to it, on a machine that
// has other things to do. When they see that it has, is not asked: what was under way at its end is
// lost, whenever its client comes to look.
const slack = 2 * time.Second

// explain returns what explains a failure: an event that the rules in the package's comment
// name, false if there is none.
func explain(f failure, events []event) (string, bool) {
	switch {
	case f.wrong:
		return "", false
	case f.begun:
	case f.idempotent:
		return "", false
	case f.reason == "upstream_reset", f.reason == "not_delivered" && f.large:
	default:
		return "", false
	}
	for _, e := range events {
		if e.service != f.service || f.instance != "" && e.instance != f.instance || e.at.After(f.at) || f.direct && !e.app {
			continue
		}
		over := e.lost // when what was under way is lost
		switch {
		case f.begun && f.relayed && e.app:
			over = e.until // until then, the sidecar takes connections that it cannot pass on
		case f.begun && (e.kills || e.stops):
		case f.begun:
			continue
		case f.reason == "not_delivered" && e.app:
			over = e.until // until then, nothing is delivered
		case f.reason == "upstream_reset" && e.kills:
		// A connection of HTTP/1 may be closed just when a request is on its way; HTTP/2 has GOAWAY.
		case f.reason == "upstream_reset" && e.stops && e.app && f.service == web:
		default:
			continue
		}
		if over.IsZero() || !f.began.After(over.Add(slack)) {
			return e.what, true
		}
	}
	return "", false
}

// ledger keeps what clients saw. It is safe for concurrent use.
type ledger struct {
	mu       sync.Mutex
	done     map[string]int // by kind; guarded by mu
	failures []failure      // guarded by mu
	events   []event        // guarded by mu
}

func newLedger() *ledger { return &ledger{done: map[string]int{}} }

// succeeded counts n of a kind.
func (l *ledger) succeeded(kind string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[kind] += n
}

// failed notes a failure by err.
func (l *ledger) failed(f failure, err error) {
	f.at, f.what = time.Now(), err.Error()
	f.wrong = errors.Is(err, errOther)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, f)
}

// began notes an event before it is done. The returned functions note that what was killed has
// ended, and that all was made good.
func (l *ledger) began(e event) (lost, over func()) {
	e.at = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.events)
	l.events = append(l.events, e)
	note := func(at func(*event) *time.Time) func() {
		return func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			*at(&l.events[n]) = time.Now()
		}
	}
	return note(func(e *event) *time.Time { return &e.lost }), note(func(e *event) *time.Time { return &e.until })
}

// disturbed reports whether the control plane was not itself at some time since then.
func (l *ledger) disturbed(since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e event) bool {
		return e.service == "" && (e.until.IsZero() || e.until.Add(slack).After(since))
	})
}

// lastStart returns when the control plane was last started again.
func (l *ledger) lastStart() (at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.newLife && e.until.After(at) {
			at = e.until
		}
	}
	return at
}

// tally is what became of one kind of load.
type tally struct {
	Kind        string         `json:"kind"`
	Succeeded   int            `json:"succeeded"`
	Explained   map[string]int `json:"explained,omitempty"` // by what explains them
	Unexplained int            `json:"unexplained"`
}

// judge sorts the failures.
func (l *ledger) judge() (tallies []tally, unexplained []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	byKind := map[string]*tally{}
	of := func(kind string) *tally {
		if byKind[kind] == nil {
			byKind[kind] = &tally{Kind: kind, Explained: map[string]int{}}
		}
		return byKind[kind]
	}
	for kind, n := range l.done {
		of(kind).Succeeded = n
	}
	for _, f := range l.failures {
		t := of(f.kind)
		if why, ok := explain(f, l.events); ok {
			what := orNone(f.reason)
			if f.begun {
				what = "broken off"
			}
			t.Explained[what+" upon "+why]++
			continue
		}
		t.Unexplained++
		unexplained = append(unexplained, f.String())
	}
	for _, t := range byKind {
		tallies = append(tallies, *t)
	}
	slices.SortFunc(tallies, func(a, b tally) int { return strings.Compare(a.Kind, b.Kind) })
	return tallies, unexplained
}

// occurred counts the events by what they were.
func (l *ledger) occurred() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[string]int{}
	for _, e := range l.events {
		n[e.what]++
	}
	return n
}
