package breaker

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestShareLimit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ percent, hosts, want int }{
		{50, 0, 0}, {100, 0, 0}, {50, 1, 0}, {99, 1, 0}, {100, 1, 1},
		{50, 2, 1}, {1, 2, 1}, {50, 3, 1}, {50, 4, 2}, {50, 5, 2}, {10, 100, 10}, {10, 19, 1}, {100, 7, 7},
		{50, -3, 0}, {100, MaxHosts + 1, MaxHosts},
	} {
		if got := mustShare(t, tc.percent, tc.hosts).Limit(); got != tc.want {
			t.Errorf("%d %% of %d hosts: %d, want %d", tc.percent, tc.hosts, got, tc.want)
		}
	}
	for _, percent := range []int{-1, 0, 101} {
		if _, err := NewShare(percent, 3); err == nil {
			t.Errorf("%d %% accepted", percent)
		}
		if err := mustShare(t, 50, 3).SetPercent(percent); err == nil {
			t.Errorf("%d %% accepted by SetPercent", percent)
		}
	}
}

func TestRefusedTripKeepsItsEvidence(t *testing.T) {
	t.Parallel()
	s := mustShare(t, 50, 2)
	first, second := mustNew(t, plain(), WithShare(s)), mustNew(t, plain(), WithShare(s))
	trip(t, first, 0)
	for range 5 {
		send(t, second, Failure, 0)
	}
	mustBe(t, second, Closed, 0)
	if got := second.Snapshot(0); got.TripsRefused != 4 || got.ConsecutiveFailures != 5 {
		t.Errorf("%+v", got)
	}
	send(t, first, Success, 100*ms) // closes, and gives its place back
	send(t, second, Failure, 100*ms)
	mustBe(t, second, Open, 100*ms)
	if got := s.Ejected(); got != 1 {
		t.Errorf("%d ejected", got)
	}
}

func TestHalfOpenAndReopenedHostsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	s := mustShare(t, 50, 4)
	b := mustNew(t, plain(), WithShare(s))
	trip(t, b, 0)
	p := mustAcquire(t, b, 100*ms)
	if s.Ejected() != 1 {
		t.Error("half-open gave the place back")
	}
	b.Done(p, Failure, 100*ms)
	if s.Ejected() != 1 {
		t.Error("reopening took another place")
	}
}

func TestRetireGivesThePlaceBackOnceAndForAll(t *testing.T) {
	t.Parallel()
	for _, probing := range []bool{false, true} {
		s := mustShare(t, 50, 2)
		b := mustNew(t, plain(), WithShare(s))
		old := mustAcquire(t, b, 0)
		trip(t, b, 0)
		if probing {
			old = mustAcquire(t, b, 100*ms)
		}
		b.Retire()
		b.Retire()
		if got := s.Ejected(); got != 0 {
			t.Errorf("probing %v: %d ejected", probing, got)
		}
		b.Done(old, Failure, 100*ms)
		for range 5 {
			send(t, b, Failure, 100*ms)
		}
		mustBe(t, b, Closed, 100*ms)
		if got := s.Ejected(); got != 0 {
			t.Errorf("probing %v: %d ejected after late failures", probing, got)
		}
	}
}

func TestASuspendedBreakerGivesItsPlaceBackAndTakesNone(t *testing.T) {
	t.Parallel()
	for _, probing := range []bool{false, true} {
		s := mustShare(t, 50, 2)
		b := mustNew(t, plain(), WithShare(s))
		trip(t, b, 0)
		var probe Permit
		if probing {
			probe = mustAcquire(t, b, 100*ms)
		}
		if !b.Suspend(100*ms) || b.Suspend(100*ms) {
			t.Errorf("probing %v: it does not say once that it was ejected", probing)
		}
		b.Done(probe, Failure, 100*ms)
		for range 5 {
			send(t, b, Failure, 100*ms)
		}
		mustBe(t, b, Closed, 100*ms)
		if got := s.Ejected(); got != 0 {
			t.Errorf("probing %v: %d ejected", probing, got)
		}
		b.Resume()
		mustBe(t, b, Closed, 100*ms)
		send(t, b, Failure, 100*ms)
		mustBe(t, b, Closed, 100*ms) // what came while it was suspended did not count
		send(t, b, Failure, 100*ms)
		mustRefuse(t, b, 299*ms) // twice as long, for it has not stayed closed
		if got := s.Ejected(); got != 1 {
			t.Errorf("probing %v: %d ejected again", probing, got)
		}
	}
}

func TestShrinkingClusterEjectsNobodyMore(t *testing.T) {
	t.Parallel()
	s := mustShare(t, 50, 4)
	for i, want := range []bool{true, true, false} {
		if got := s.take(); got != want {
			t.Fatalf("place %d: %v", i+1, got)
		}
	}
	s.SetHosts(2)
	s.give()
	if s.take() {
		t.Error("took a second place of two hosts")
	}
	if err := s.SetPercent(100); err != nil || !s.take() {
		t.Errorf("no second place of two hosts at 100 %%, %v", err)
	}
}

func TestShareIsExactUnderConcurrency(t *testing.T) {
	t.Parallel()
	s := mustShare(t, 30, 20)
	var held, most atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20_000 {
				if s.take() {
					raise(&most, held.Add(1))
					held.Add(-1)
					s.give()
				}
			}
		})
	}
	// The number of hosts is rewritten all the while, to the same value.
	for range 1000 {
		s.SetHosts(20)
	}
	wg.Wait()
	if most.Load() > 6 || s.Ejected() != 0 {
		t.Errorf("at most %d at once, %d at the end", most.Load(), s.Ejected())
	}
}

// raise sets m to v if v is more.
func raise(m *atomic.Int64, v int64) {
	for old := m.Load(); v > old; old = m.Load() {
		if m.CompareAndSwap(old, v) {
			return
		}
	}
}
