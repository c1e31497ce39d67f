package breaker

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

func TestListenerHearsEveryChangeWithItsReason(t *testing.T) {
	t.Parallel()
	var got []Change
	b := mustNew(t, byRatio(), OnChange(func(c Change) { got = append(got, c) }))
	for range 10 {
		send(t, b, Failure, 0)
	}
	send(t, b, Failure, 100*ms)
	send(t, b, Success, 300*ms)
	if err := b.SetConfig(plain()); err != nil {
		t.Fatal(err)
	}
	trip(t, b, 400*ms)
	b.Retire()
	want := []Change{
		{Closed, Open, FailureRatioReached, 0, 1},
		{Open, HalfOpen, OpenTimeOver, 100 * ms, 2},
		{HalfOpen, Open, ProbeFailed, 100 * ms, 3},
		{Open, HalfOpen, OpenTimeOver, 300 * ms, 4},
		{HalfOpen, Closed, ProbesSucceeded, 300 * ms, 5},
		{Closed, Open, ConsecutiveFailuresReached, 400 * ms, 6},
		{Open, Closed, Retired, 0, 7},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestChangesMadeByTheListenerComeAfterIt(t *testing.T) {
	t.Parallel()
	var log []string
	var b *Breaker
	b = mustNew(t, plain(), OnChange(func(c Change) {
		log = append(log, "begin "+c.To.String())
		if c.To == Open && c.At == 0 {
			send(t, b, Failure, 100*ms) // half-open and open again, inside
		}
		log = append(log, "end "+c.To.String())
	}))
	trip(t, b, 0)
	want := []string{"begin open", "end open", "begin half-open", "end half-open", "begin open", "end open"}
	if !slices.Equal(log, want) {
		t.Errorf("got  %q\nwant %q", log, want)
	}
}

func TestListenerPanicReachesTheCallerAndLosesNoChange(t *testing.T) {
	t.Parallel()
	var heard []uint32
	var b *Breaker
	b = mustNew(t, plain(), OnChange(func(c Change) {
		heard = append(heard, c.Sequence)
		if c.Sequence == 1 {
			send(t, b, Failure, 100*ms)
			panic("listener")
		}
	}))
	send(t, b, Failure, 0)
	func() {
		defer func() {
			if got := recover(); got != "listener" {
				t.Errorf("recovered %v", got)
			}
		}()
		send(t, b, Failure, 0)
		t.Error("the panic was swallowed")
	}()
	if want := []uint32{1, 2, 3}; !slices.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
}

func TestConcurrentChangesAreDeliveredOneByOneInOrder(t *testing.T) {
	t.Parallel()
	const each = 500
	var heard []Change // unguarded: the race detector proves that calls do not overlap
	b := mustNew(t, plain(), OnChange(func(c Change) { heard = append(heard, c) }))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range int64(each) {
				if p, ok := b.Acquire(i * 100 * ms); ok {
					b.Done(p, Outcome(1+i/4%2), i*100*ms)
				}
			}
		})
	}
	wg.Wait()
	if len(heard) < 10 {
		t.Fatalf("only %d changes", len(heard))
	}
	for i, c := range heard[1:] {
		if before := heard[i]; c.Sequence <= before.Sequence || c.Sequence == before.Sequence+1 && c.From != before.To {
			t.Fatalf("%v after %v", c, before)
		}
	}
}

func TestSlowListenerLosesTheOldestChangesOnly(t *testing.T) {
	t.Parallel()
	var heard []uint32
	var b *Breaker
	b = mustNew(t, plain(), OnChange(func(c Change) {
		heard = append(heard, c.Sequence)
		for c.Sequence == 1 && b.Snapshot(0).Trips < 100 { // slow: 198 changes meanwhile
			send(t, b, Failure, b.ReadyAt())
		}
	}))
	trip(t, b, 0)
	if len(heard) != 1+maxPending || heard[len(heard)-1] != 199 || heard[1] != 199-maxPending+1 {
		t.Errorf("heard %d changes: %v", len(heard), heard)
	}
}

func TestNamesOfReasonsStatesAndOutcomes(t *testing.T) {
	t.Parallel()
	got := fmt.Sprint(
		[]State{Closed, Open, HalfOpen}, []Outcome{Ignored, Success, Failure},
		[]Reason{ConsecutiveFailuresReached, FailureRatioReached, OpenTimeOver, ProbeFailed, ProbesSucceeded, Retired, Suspended, 0},
		[]error{ErrOpen, ErrTooManyProbes}, " ", ErrOpen.Code(), " ", ErrTooManyProbes.Code())
	want := "[closed open half-open] [ignored success failure]" +
		" [consecutive_failures failure_ratio open_time_over probe_failed probes_succeeded retired suspended unknown]" +
		" [breaker is open breaker is half-open and all its probes are out] breaker_open breaker_probing"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
