package coordinator_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// places runs a coordinator of one shard with few places, whose calls of the service "hung" hang until the channel is closed.
func places(t *testing.T, hung chan struct{}) (*coordinator.Coordinator, *load) {
	t.Helper()
	s := memstore.New()
	l := &load{now: map[string]int{}, most: map[string]int{}}
	calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
		defer l.call(r)()
		if r.Call.Service == "hung" {
			select {
			case <-hung:
			case <-ctx.Done():
				return saga.Outcome{Answer: saga.AnswerUnknown}
			}
		}
		time.Sleep(10 * time.Millisecond)
		return done(ctx, r)
	}}
	c := coordinator.New(coordinator.Config{Store: s, Caller: calls, Name: "one", Shards: 1, MaxCalls: 40, MaxServiceCalls: 10, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; _ = s.Close() })
	synctest.Wait()
	return c, l
}

// load counts the calls that are under way, and notes in which order they began.
type load struct {
	mu    sync.Mutex
	now   map[string]int
	most  map[string]int
	order []string
}

func (l *load) call(r *coordinator.Request) (ended func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	service := r.Call.Service
	l.now[service]++
	l.most[service] = max(l.most[service], l.now[service])
	l.order = append(l.order, r.Saga)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now[service]--
	}
}

func (l *load) mostOf(service string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.most[service]
}

// calling is a saga whose steps call services, side by side if they are separated by a bar, else one behind the other.
func calling(t *testing.T, id, services string) *saga.Definition {
	t.Helper()
	d := &saga.Definition{ID: id}
	for i, service := range strings.FieldsFunc(services, func(r rune) bool { return r == ' ' || r == '|' }) {
		s := saga.Step{Name: fmt.Sprint("s", i), Action: saga.Call{Service: service, Path: "/"}, Timeout: saga.Duration(15 * time.Minute)}
		if strings.Contains(services, "|") {
			s.After = []string{}
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

func TestAServiceThatHangsKeepsOnlyItsOwnSagasWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		c, l := places(t, hung)
		for i := range 200 {
			start(t, c, calling(t, fmt.Sprint("hung-", i), "hung"))
		}
		for i := range 200 {
			start(t, c, calling(t, fmt.Sprint("well-", i), "well well"))
		}
		for i := range 200 {
			if v := wait(t, c, fmt.Sprint("well-", i)); v.State != saga.Completed {
				t.Errorf("%+v", v.Progress)
			}
		}
		if l.mostOf("hung") != 10 || l.mostOf("well") != 10 {
			t.Errorf("at once: %v", l.most)
		}
		close(hung)
		for i := range 200 {
			if v := wait(t, c, fmt.Sprint("hung-", i)); v.State != saga.Completed || v.Steps[0].Attempts != 1 {
				t.Errorf("%+v", v.Progress)
			}
		}
		if l.mostOf("hung") != 10 {
			t.Errorf("at once: %v", l.most)
		}
	})
}

func TestWhoWaitsForAPlaceIsServedInTurnThoughOthersCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		c, l := places(t, hung)
		for i := range 30 {
			start(t, c, calling(t, fmt.Sprintf("early-%02d", i), "hung"))
			synctest.Wait()
		}
		close(hung)
		for i := range 50 {
			start(t, c, calling(t, fmt.Sprintf("late-%02d", i), "hung"))
		}
		for i := range 50 {
			wait(t, c, fmt.Sprintf("late-%02d", i))
		}
		first := strings.Join(l.order[:30], " ")
		if strings.Contains(first, "late") {
			t.Errorf("they were called in the order %s", first)
		}
	})
}

func TestABranchGoesOnWhileAnotherWaitsForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		c, _ := places(t, hung)
		for i := range 10 {
			start(t, c, calling(t, fmt.Sprint("hung-", i), "hung"))
		}
		start(t, c, calling(t, "both", "hung|well"))
		time.Sleep(time.Second)
		if v, err := c.Get(t.Context(), "both"); err != nil || v.Steps[1].State != saga.StepDone || v.Steps[0].Attempts != 0 {
			t.Errorf("%+v, %v", v, err)
		}
		close(hung)
		if v := wait(t, c, "both"); v.State != saga.Completed {
			t.Errorf("%+v", v.Progress)
		}
	})
}

func TestASagaThatWaitsForAPlaceMeetsItsDeadlineAndCanBeAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := make(chan struct{})
		c, _ := places(t, hung)
		for i := range 12 {
			start(t, c, calling(t, fmt.Sprint("hung-", i), "hung"))
		}
		late := calling(t, "late", "hung")
		late.Deadline = saga.Duration(time.Minute)
		start(t, c, late)
		if err := c.Do(t.Context(), "hung-11", coordinator.Verb{Name: "abort"}); err != nil {
			t.Error(err)
		}
		for _, id := range []string{"late", "hung-11"} {
			if v := wait(t, c, id); v.State != saga.Compensated || v.Steps[0].Attempts != 0 {
				t.Errorf("%+v", v.Progress)
			}
		}
		close(hung)
		start(t, c, calling(t, "other", "hung")) // in turn behind those that are not there any more
		for _, id := range []string{"hung-10", "other"} {
			if v := wait(t, c, id); v.State != saga.Completed {
				t.Errorf("%+v", v.Progress)
			}
		}
	})
}
