package breaker

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// Twelve ways in which circuit breakers are known to get stuck: refusing for ever an
// endpoint that has recovered, deadlocking, or closing on results that prove
// nothing. Each scenario does its harm to an open breaker whose open time is over
// at 100 ms; after it the endpoint is well, and the breaker must close by 900 ms.
func TestTwelveWedgeScenariosDoNotWedge(t *testing.T) {
	t.Parallel()
	for _, sc := range wedgeScenarios() {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			t.Log(sc.what)
			done := make(chan struct{})
			go func() {
				defer close(done)
				var b *Breaker
				b = mustNew(t, plain(), OnChange(func(c Change) {
					if sc.listener != nil {
						sc.listener(b, c)
					}
				}))
				quietly(func() { send(t, b, Failure, 0) })
				old := mustAcquire(t, b, 0)
				quietly(func() { send(t, b, Failure, 0) })
				sc.harm(t, b, old)
				mustRecover(t, b)
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("deadlock")
			}
		})
	}
}

// mustRecover sends requests that succeed until the breaker closes.
func mustRecover(t *testing.T, b *Breaker) {
	t.Helper()
	for now := 200 * ms; now <= 900*ms; now += 10 * ms {
		if p, ok := b.Acquire(now); ok {
			quietly(func() { b.Done(p, Success, now) })
		}
		if b.State(now) == Closed {
			return
		}
	}
	t.Errorf("wedged: %+v", b.Snapshot(900*ms))
}

// quietly swallows a panic, as net/http does with a handler's.
func quietly(f func()) {
	defer func() { _ = recover() }()
	f()
}

type wedgeScenario struct {
	name, what string
	listener   func(*Breaker, Change)
	harm       func(t *testing.T, b *Breaker, old Permit)
}

func wedgeScenarios() []wedgeScenario {
	return []wedgeScenario{{
		name: "never returns",
		what: "a probe hangs and never reports; its lease runs out and the next request takes its place",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			mustAcquire(t, b, 100*ms)
			mustRefuse(t, b, 149*ms)
		},
	}, {
		name: "panic",
		what: "the function of Execute panics; its permit comes back as a failure",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			inExecute(t, b, func() { panic("boom") })
		},
	}, {
		name: "goexit",
		what: "the function of Execute ends its goroutine; its permit comes back as a failure",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			inExecute(t, b, runtime.Goexit)
		},
	}, {
		name: "cancel",
		what: "the caller of a probe goes away; that is neither success nor failure and frees the place at once",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			for range 100 {
				send(t, b, Ignored, 100*ms)
			}
			mustBe(t, b, HalfOpen, 100*ms)
		},
	}, {
		name: "ignored",
		what: "a probe is answered with what proves nothing (404, 429); as cancel, and later results count still",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			send(t, b, Ignored, 100*ms)
			send(t, b, Failure, 100*ms)
			mustBe(t, b, Open, 100*ms)
		},
	}, {
		name: "stale result",
		what: "results of requests begun while closed arrive while half-open; they neither close, nor open, nor make places",
		harm: func(t *testing.T, b *Breaker, old Permit) {
			probe := mustAcquire(t, b, 100*ms)
			for _, o := range []Outcome{Success, Failure, Ignored} {
				b.Done(old, o, 100*ms)
				mustBe(t, b, HalfOpen, 100*ms)
				mustRefuse(t, b, 100*ms)
			}
			b.Done(probe, Failure, 100*ms)
			b.Done(probe, Success, 100*ms)
			mustBe(t, b, Open, 100*ms)
		},
	}, {
		name:     "listener panic",
		what:     "the listener panics at each change; the breaker stays consistent and usable",
		listener: func(*Breaker, Change) { panic("listener") },
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			quietly(func() { b.Acquire(100 * ms) }) // its permit is lost on the way
			mustBe(t, b, HalfOpen, 100*ms)
		},
	}, {
		name: "listener re-entry",
		what: "the listener calls every method of the breaker; nothing deadlocks",
		listener: func(b *Breaker, c Change) {
			b.State(c.At)
			b.Snapshot(c.At)
			b.ReadyAt()
			_ = b.SetConfig(plain())
			if p, ok := b.Acquire(c.At); ok {
				b.Done(p, Ignored, c.At)
			}
		},
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			send(t, b, Failure, 100*ms)
		},
	}, {
		name: "other rule blocks",
		what: "a probe is admitted, then refused by another rule (rate limit, full pool) and forgotten without a report",
		harm: func(_ *testing.T, b *Breaker, _ Permit) {
			for range 5 {
				b.Acquire(100 * ms)
			}
		},
	}, {
		name: "config reload",
		what: "the configuration changes while open and while half-open with the probe out; the state stays, and so does its way out",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			reload(t, b, 3)
			mustRefuse(t, b, 99*ms)
			mustAcquire(t, b, 100*ms)
			reload(t, b, 1)
			mustRefuse(t, b, 100*ms)
		},
	}, {
		name: "clock step",
		what: "the clock steps back by a day after opening; the breaker waits for at most one MaxOpenTime of the new time",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			const day = 24 * 3600 * 1000 * ms
			send(t, b, Success, day)
			trip(t, b, day)
			mustRefuse(t, b, 0)
		},
	}, {
		name: "little traffic",
		what: "half-open wants three successes and traffic is one request a day; half-open does not expire, so each counts",
		harm: func(t *testing.T, b *Breaker, _ Permit) {
			c := plain()
			c.HalfOpenSuccesses = 3
			if err := b.SetConfig(c); err != nil {
				t.Error(err)
			}
			send(t, b, Success, 100*ms)
			send(t, b, Success, 199*ms)
			mustBe(t, b, HalfOpen, 199*ms)
		},
	}}
}

// inExecute leads f through Execute as a probe. Execute has its own clock, whose
// zero is b's birth.
func inExecute(t *testing.T, b *Breaker, f func()) {
	t.Helper()
	b.born = time.Now().Add(-100 * time.Millisecond)
	ended := make(chan struct{})
	called := false
	go func() {
		defer close(ended)
		quietly(func() {
			_ = b.Execute(context.Background(), func(context.Context) error {
				called = true
				f()
				return nil
			})
		})
	}()
	<-ended
	if s := b.Snapshot(0); !called || s.Trips != 2 {
		t.Errorf("called %v, then %+v", called, s)
	}
	// Bring the trip back to the scenario's clock, which the real one has left.
	b.shutUntil.Store(200 * ms)
}

func reload(t *testing.T, b *Breaker, failures int) {
	t.Helper()
	c := plain()
	c.ConsecutiveFailures = failures
	c.FailureRatio, c.MinimumRequests, c.Window = 0.5, 10, time.Second
	if err := b.SetConfig(c); err != nil {
		t.Error(err)
	}
}
