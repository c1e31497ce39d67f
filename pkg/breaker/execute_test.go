package breaker

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

var errBroken = errors.New("broken")

func TestExecuteOpensRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustNew(t, plain())
		ctx := context.Background()
		fail := func(context.Context) error { return errBroken }
		for range 2 {
			if err := b.Execute(ctx, fail); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
		}
		if err := b.Execute(ctx, fail); !errors.Is(err, ErrOpen) {
			t.Fatalf("open: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		err := b.Execute(ctx, func(ctx context.Context) error {
			if err := b.Execute(ctx, fail); !errors.Is(err, ErrTooManyProbes) {
				t.Errorf("second probe: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Fatalf("probe: %v", err)
		}
		if s := b.Snapshot(b.clock()); s.State != Closed || s.Trips != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExecuteWatchesTheRatio(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustNew(t, byRatio())
		for i := range 20 {
			time.Sleep(time.Millisecond)
			_ = b.Execute(context.Background(), func(context.Context) error {
				if i%2 == 1 {
					return errBroken
				}
				return nil
			})
		}
		if s := b.Snapshot(b.clock()); s.State != Open || s.WindowRequests != 10 || s.WindowFailures != 5 {
			t.Errorf("%+v", s)
		}
	})
}

func TestExecutesSuccessesCountAtTheTimeTheyHappen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustNew(t, byRatio())
		time.Sleep(time.Minute) // so that the window no more holds when the breaker was made
		execute := func(err error) { _ = b.Execute(context.Background(), func(context.Context) error { return err }) }
		for range 11 {
			execute(nil)
		}
		for range 10 {
			execute(errBroken)
		}
		if s := b.Snapshot(b.clock()); s.State != Closed || s.WindowRequests != 21 || s.WindowFailures != 10 {
			t.Errorf("10 failures of 21: %+v", s)
		}
		execute(errBroken)
		if s := b.State(b.clock()); s != Open {
			t.Errorf("11 failures of 22: %v", s)
		}
	})
}

func TestWhatErrorsMean(t *testing.T) {
	t.Parallel()
	hurried := func(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, d)
		}
	}
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("calling: %w", ctx.Err())
	}
	give := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	for _, tc := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		f    func(context.Context) error
		want Outcome
	}{
		{"no error", context.WithCancel, give(nil), Success},
		{"an error", context.WithCancel, give(errBroken), Failure},
		{"caller gone", context.WithCancel, give(fmt.Errorf("calling: %w", context.Canceled)), Ignored},
		{"refused further on", context.WithCancel, give(fmt.Errorf("calling: %w", ErrOpen)), Ignored},
		{"probing further on", context.WithCancel, give(ErrTooManyProbes), Ignored},
		{"caller in a hurry", hurried(99 * time.Millisecond), wait, Ignored},
		{"caller had patience", hurried(100 * time.Millisecond), wait, Failure},
		{"the function's own timeout", hurried(time.Hour), give(context.DeadlineExceeded), Failure},
		{"an error, in a hurry", hurried(time.Millisecond), give(errBroken), Failure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := byRatio()
				c.FairTime = 100 * time.Millisecond
				b := mustNew(t, c)
				ctx, cancel := tc.ctx(t.Context())
				defer cancel()
				_ = b.Execute(ctx, tc.f)
				got := Ignored
				if s := b.Snapshot(b.clock()); s.WindowFailures == 1 {
					got = Failure
				} else if s.WindowRequests == 1 {
					got = Success
				}
				if got != tc.want {
					t.Errorf("counted as %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestFairTimeZeroHoldsEveryDeadlineAgainstTheEndpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := mustNew(t, plain())
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		_ = b.Execute(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		if s := b.Snapshot(0); s.ConsecutiveFailures != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestClassifyErrorsReplacesTheRule(t *testing.T) {
	t.Parallel()
	b := mustNew(t, plain(), ClassifyErrors(func(err error) Outcome {
		if errors.Is(err, errBroken) {
			return Ignored
		}
		return Failure
	}))
	for _, err := range []error{errBroken, context.Canceled, errBroken} {
		_ = b.Execute(t.Context(), func(context.Context) error { return err })
	}
	if s := b.Snapshot(0); s.ConsecutiveFailures != 1 {
		t.Errorf("%+v", s)
	}
}

func TestExecuteDoesNotAllocate(t *testing.T) {
	works := func(context.Context) error { return nil }
	fails := func(context.Context) error { return errBroken }
	open := mustNew(t, plain())
	trip(t, open, 0)
	open.shutUntil.Store(int64(time.Minute)) // the real clock must not end it
	for name, run := range map[string]func(){
		"passing":           executes(t, mustNew(t, plain()), works, nil),
		"passing, by ratio": executes(t, mustNew(t, byRatio()), works, nil),
		"refused":           executes(t, open, works, ErrOpen),
		"failing":           executes(t, mustNew(t, Default(), WithShare(mustShare(t, 50, 1))), fails, errBroken),
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func executes(t *testing.T, b *Breaker, f func(context.Context) error, want error) func() {
	ctx := context.Background()
	return func() {
		if err := b.Execute(ctx, f); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
}
