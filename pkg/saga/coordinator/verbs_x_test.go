package coordinator_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestAPersonEndsWhatIsParked(t *testing.T) {
	for _, again := range []bool{false, true} { // by a successor, which has to read it
		synctest.Test(t, func(t *testing.T) {
			s := memstore.New()
			defer func() { _ = s.Close() }()
			var well atomic.Bool
			calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
				switch {
				case r.Step == "b":
					return saga.Outcome{Answer: saga.AnswerRefused}
				case r.Undo && !well.Load():
					return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
				}
				return done(ctx, r)
			}}
			c, stop := begin(t, s, calls, "one")
			start(t, c, define(t, "order-1"))
			v := wait(t, c, "order-1")
			if v.State != saga.Parked || v.Reason != "step a could not be undone: 500" || strings.Count(calls.String(), "a'") != 25 {
				t.Errorf("%+v after %s", v.Progress, calls)
			}
			if again {
				stop()
				c, stop = begin(t, s, calls, "two")
			}
			defer stop()
			time.Sleep(time.Hour)
			if n := strings.Count(calls.String(), "a'"); n != 25 {
				t.Errorf("it was called %d times while it was parked", n)
			}
			for _, wrong := range []coordinator.Verb{{Name: "skip", Step: "c"}, {Name: "undo"}, {Name: "abort"}, {Name: "resolve", Step: "a", As: "gone"}, {Name: "retry", Note: strings.Repeat("x", 2000)}} {
				if err := c.Do(t.Context(), "order-1", wrong); !errors.Is(err, saga.ErrVerb) {
					t.Errorf("%+v: %v", wrong, err)
				}
			}
			if err := c.Do(t.Context(), "order-2", coordinator.Verb{Name: "retry"}); !errors.Is(err, coordinator.ErrNotFound) {
				t.Error(err)
			}
			well.Store(true)
			if err := c.Do(t.Context(), "order-1", coordinator.Verb{Name: "retry", By: "ada", Note: "it is up again"}); err != nil {
				t.Fatal(err)
			}
			v = wait(t, c, "order-1")
			if v.State != saga.Compensated || v.Verbs != 1 || v.Steps[0].Compensations != 26 {
				t.Errorf("%+v", v.Progress)
			}
			if err := c.Do(t.Context(), "order-1", coordinator.Verb{Name: "retry"}); !errors.Is(err, saga.ErrVerb) {
				t.Error(err)
			}
			history, err := c.Verbs(t.Context(), "order-1")
			if err != nil || len(history) != 1 || history[0].By != "ada" || history[0].Name != "retry" || history[0].At.IsZero() {
				t.Errorf("%+v %v", history, err)
			}
		})
	}
}

func TestAbortingSaysWhoAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "b" && !r.Undo {
				return saga.Outcome{Answer: saga.AnswerPending}
			}
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		start(t, c, define(t, "order-1"))
		time.Sleep(time.Minute)
		if err := c.Do(t.Context(), "order-1", coordinator.Verb{Name: "abort", By: "ada", Note: "sold"}); err != nil {
			t.Fatal(err)
		}
		if v := wait(t, c, "order-1"); v.State != saga.Compensated || v.Reason != "aborted by ada: sold" {
			t.Errorf("%+v", v)
		}
	})
}

func TestWhatIsParkedAndWhatPeopleDecideIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var log lockedbuf.Buffer
		c := coordinator.New(coordinator.Config{Store: s, Name: "one", Shards: 1, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Caller: &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
				if r.Step == "b" || r.Undo {
					return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
				}
				return done(ctx, r)
			}}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		start(t, c, define(t, "order-1"))
		wait(t, c, "order-1")
		if err := c.Do(t.Context(), "order-1", coordinator.Verb{Name: "resolve", Step: "b", As: saga.StepCompensated, By: "ada", Note: "by hand"}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`level=WARN msg="saga is parked, for a person to decide" shard=0 saga=order-1 reason="step b could not be undone: 500"`,
			`level=INFO msg="a person has decided" shard=0 saga=order-1 verb=resolve step=b as=compensated by=ada note="by hand"`,
		} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%d times %s in\n%s", n, want, log.String())
			}
		}
	})
}
