package breaker

import (
	"fmt"
	"testing"
	"time"
)

// TestEverySequenceOfStepsAgreesWithTheModel runs all sequences of steps up to a
// depth on a Breaker and on a model that is as naive as can be, and compares all
// that can be observed after each step.
func TestEverySequenceOfStepsAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	depth := 6
	if testing.Short() || underRace {
		depth = 5
	}
	for _, probes := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d probes", probes), func(t *testing.T) {
			t.Parallel()
			c := plain()
			c.HalfOpenProbes, c.HalfOpenSuccesses = probes, 2
			c.MaxOpenTime = 200 * time.Millisecond
			sequences := 0
			forEachSequence(depth, func(seq []step) {
				sequences++
				// Two failures first, so that the depth is not spent on opening.
				compareWithModel(t, c, append([]step{{act: acquire}, {done, 0, Failure}, {act: acquire}, {done, 1, Failure}}, seq...))
				compareWithModel(t, c, seq)
			})
			t.Logf("%d sequences, each from closed and from open", sequences)
		})
	}
}

type action uint8

const (
	acquire action = iota
	done           // of the which-th last permit
	waitShort
	waitLong
)

type step struct {
	act   action
	which int
	o     Outcome
}

func steps() []step {
	return []step{
		{act: acquire}, {act: waitShort}, {act: waitLong},
		{done, 0, Success}, {done, 0, Failure}, {done, 0, Ignored}, {done, 1, Success}, {done, 1, Failure},
	}
}

// forEachSequence calls f with every sequence of depth steps.
func forEachSequence(depth int, f func([]step)) {
	all := steps()
	seq := make([]step, depth)
	var extend func(int)
	extend = func(at int) {
		if at == depth {
			f(seq)
			return
		}
		for _, s := range all {
			seq[at] = s
			extend(at + 1)
		}
	}
	extend(0)
}

func compareWithModel(t *testing.T, c Config, seq []step) {
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{c: c}
	var granted []Permit // in the order of m.permits
	now := int64(0)
	for i, s := range seq {
		switch s.act {
		case acquire:
			p, ok := b.Acquire(now)
			if ok != m.acquire(now) {
				t.Fatalf("%v: step %d: granted %v, the model disagrees", seq, i, ok)
			}
			if ok {
				granted = append(granted, p)
			}
		case done:
			if at := len(granted) - 1 - s.which; at >= 0 && !m.permits[at].reported {
				b.Done(granted[at], s.o, now)
				m.done(at, s.o, now)
			}
		case waitShort:
			now += 50 * ms // a lease
		case waitLong:
			now += 100 * ms // the first open time
		}
		got := b.Snapshot(now)
		want := m.snapshot(now)
		want.ReadyAt, want.Trips = got.ReadyAt, got.Trips // observed through acquire
		if got != want {
			t.Fatalf("%v: step %d:\n got %+v\nwant %+v", seq, i, got, want)
		}
	}
}

// model is a breaker that keeps every permit it ever granted.
type model struct {
	c        Config
	state    State
	phase    int
	row      int
	trips    int
	until    int64 // open: the end
	closedAt int64
	permits  []modelPermit
}

type modelPermit struct {
	phase    int
	probe    bool
	deadline int64
	lost     bool // its place was given to another
	reported bool
	o        Outcome
}

func (m *model) acquire(now int64) bool {
	if m.state == Open {
		if now < m.until {
			return false
		}
		m.state = HalfOpen
		m.phase++
	}
	if m.state == HalfOpen {
		out := m.out()
		if len(out) == m.c.HalfOpenProbes {
			if now < out[0].deadline {
				return false
			}
			out[0].lost = true
		}
	}
	m.permits = append(m.permits, modelPermit{phase: m.phase, probe: m.state == HalfOpen, deadline: now + int64(m.c.ProbeLease)})
	return true
}

// out returns the probes of this phase that hold a place, oldest first.
func (m *model) out() []*modelPermit {
	var out []*modelPermit
	for i := range m.permits {
		if p := &m.permits[i]; p.probe && p.phase == m.phase && !p.lost && !p.reported {
			out = append(out, p)
		}
	}
	return out
}

// succeeded counts the successful probes of this phase.
func (m *model) succeeded() int {
	n := 0
	for _, p := range m.permits {
		if p.probe && p.phase == m.phase && p.reported && p.o == Success {
			n++
		}
	}
	return n
}

func (m *model) done(at int, o Outcome, now int64) {
	p := &m.permits[at]
	p.reported, p.o = true, o
	switch {
	case p.phase != m.phase || o == Ignored:
	case m.state == HalfOpen && o == Failure:
		m.open(now)
	case m.state == HalfOpen && m.succeeded() == m.c.HalfOpenSuccesses:
		m.state, m.row, m.closedAt = Closed, 0, now
		m.phase++
	case m.state == Closed && o == Success:
		m.row = 0
	case m.state == Closed && o == Failure:
		m.row++
		if m.row == m.c.ConsecutiveFailures {
			if now-m.closedAt >= int64(m.c.MaxOpenTime) {
				m.trips = 0
			}
			m.open(now)
		}
	}
}

func (m *model) open(now int64) {
	m.state, m.row = Open, 0
	m.phase++
	m.trips++
	m.until = now + min(int64(m.c.OpenTime)<<(m.trips-1), int64(m.c.MaxOpenTime))
}

func (m *model) snapshot(now int64) Snapshot {
	s := Snapshot{State: m.state, ConsecutiveFailures: m.row, ConsecutiveTrips: m.trips}
	if m.state == HalfOpen {
		s.ProbesOut, s.ProbeSuccesses = len(m.out()), m.succeeded()
	}
	if m.state == Open && now >= m.until {
		s.State = HalfOpen
	}
	return s
}
