package breaker

import (
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

// plain is a configuration with round figures and no chance in it: two failures in
// a row open for 100 ms, at most 800 ms; one probe with a lease of 50 ms; one
// success closes.
func plain() Config {
	return Config{
		ConsecutiveFailures: 2,
		OpenTime:            100 * time.Millisecond,
		MaxOpenTime:         800 * time.Millisecond,
		HalfOpenProbes:      1,
		HalfOpenSuccesses:   1,
		ProbeLease:          50 * time.Millisecond,
	}
}

// byRatio is plain with the ratio rule in place of the other: half of at least
// ten within a second.
func byRatio() Config {
	c := plain()
	c.ConsecutiveFailures = 0
	c.FailureRatio, c.MinimumRequests, c.Window = 0.5, 10, time.Second
	return c
}

func mustNew(t testing.TB, c Config, options ...Option) *Breaker {
	t.Helper()
	b, err := New(c, options...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustShare(t testing.TB, percent, hosts int) *Share {
	t.Helper()
	s, err := NewShare(percent, hosts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustAcquire(t testing.TB, b *Breaker, now int64) Permit {
	t.Helper()
	p, ok := b.Acquire(now)
	if !ok {
		t.Fatalf("at %d ms: refused, state %v", now/ms, b.State(now))
	}
	return p
}

func mustRefuse(t testing.TB, b *Breaker, now int64) {
	t.Helper()
	if _, ok := b.Acquire(now); ok {
		t.Fatalf("at %d ms: let through, state %v", now/ms, b.State(now))
	}
}

func mustBe(t testing.TB, b *Breaker, want State, now int64) {
	t.Helper()
	if got := b.State(now); got != want {
		t.Fatalf("at %d ms: state %v, want %v", now/ms, got, want)
	}
}

// send runs one request that begins and ends at now.
func send(t testing.TB, b *Breaker, o Outcome, now int64) {
	t.Helper()
	b.Done(mustAcquire(t, b, now), o, now)
}

// trip opens a closed breaker of plain at now.
func trip(t testing.TB, b *Breaker, now int64) {
	t.Helper()
	send(t, b, Failure, now)
	send(t, b, Failure, now)
	mustBe(t, b, Open, now)
}
