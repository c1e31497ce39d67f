package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// What becomes of a coordinator at a point.
const (
	killed    = iota // it does nothing any more
	paused           // it does nothing until another has taken over, and then goes on
	unknowing        // of a write: it is applied, and the answer is lost
	fates     = iota
)

// fate is what a coordinator meets: at a point, which are counted over the writes and calls, before and after each.
type fate struct {
	what  int
	at    int
	kill  func()
	sleep time.Duration

	mu     sync.Mutex
	passed int
	dead   bool
}

var errDead = errors.New("there is nobody")

// point is one. It returns errDead behind a death.
func (f *fate) point() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passed++
	if f.passed-1 == f.at {
		switch f.what {
		case killed:
			f.dead = true
			f.kill()
		case paused:
			f.mu.Unlock()
			time.Sleep(f.sleep)
			f.mu.Lock()
		}
	}
	if f.dead {
		return errDead
	}
	return nil
}

// isLost reports whether the answer of the write that was just made is lost.
func (f *fate) isLost() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.what == unknowing && f.passed == f.at
}

// mortalStore is the store as a coordinator of some fate reaches it.
type mortalStore struct {
	store.Store
	fate *fate
}

func (s mortalStore) Txn(ctx context.Context, t store.Txn) (store.TxnResult, error) {
	if err := s.fate.point(); err != nil {
		return store.TxnResult{}, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	r, err := s.Store.Txn(ctx, t)
	if s.fate.isLost() {
		return store.TxnResult{}, store.ErrUnknownOutcome
	}
	if dead := s.fate.point(); dead != nil {
		return store.TxnResult{}, fmt.Errorf("%w: %w", store.ErrUnknownOutcome, dead)
	}
	return r, err
}

func (s mortalStore) Renew(ctx context.Context, id store.LeaseID) (store.Lease, error) {
	if s.fate.isAway() {
		return store.Lease{}, store.ErrUnavailable
	}
	return s.Store.Renew(ctx, id)
}

func (s mortalStore) Revoke(ctx context.Context, id store.LeaseID) error {
	if s.fate.isAway() {
		return store.ErrUnavailable // who is killed says nothing
	}
	return s.Store.Revoke(ctx, id)
}

// isAway reports whether the coordinator is dead, or as good as that, so that its leases end.
func (f *fate) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead || f.what == paused && f.passed > f.at
}

// participants are services with barriers in front of what they do.
type participants struct {
	mu      sync.Mutex
	moods   map[string]int
	called  map[string]int
	net     map[string]int
	ran     map[string]bool
	undone  map[string]bool
	refused map[string]bool
	fences  map[string]int64
}

// What the first call of an action meets.
const (
	works = iota
	refuses
	isLost
	answers
	moods = iota
)

func newParticipants(moods map[string]int) *participants {
	return &participants{moods: moods, called: map[string]int{}, net: map[string]int{}, ran: map[string]bool{}, undone: map[string]bool{},
		refused: map[string]bool{}, fences: map[string]int64{}}
}

func (p *participants) act(r *coordinator.Request) saga.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := r.Step
	if !r.Undo {
		p.called[name]++
	}
	mood := works
	if p.called[name] == 1 && !r.Undo || p.moods[name] == refuses {
		mood = p.moods[name]
	}
	switch {
	case r.Undo:
		if p.ran[name] && !p.undone[name] {
			p.net[name]--
		}
		p.undone[name] = true
	case p.ran[name]:
	case p.undone[name], mood == refuses:
		return saga.Outcome{Answer: saga.AnswerRefused}
	case mood == isLost:
		return saga.Outcome{Answer: saga.AnswerUnknown}
	default:
		p.ran[name] = true
		p.net[name]++
		if mood == answers {
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}
	}
	return saga.Outcome{Answer: saga.AnswerDone}
}

// mortalCaller makes calls as a coordinator of some fate does.
type mortalCaller struct {
	to   *participants
	fate *fate
}

func (c mortalCaller) Call(_ context.Context, r *coordinator.Request) saga.Outcome {
	if c.fate.point() != nil {
		return saga.Outcome{Answer: saga.AnswerUnknown}
	}
	o := c.to.act(r)
	if c.fate.point() != nil {
		return saga.Outcome{Answer: saga.AnswerUnknown}
	}
	return o
}

const leaseTTL = 5 * time.Second

// survive runs a saga whose coordinator meets a fate, and another that comes after it. It returns how many points the first one
// passed.
func survive(t *testing.T, shape string, of map[string]int, what, at int) (points int) {
	t.Helper()
	s := memstore.New()
	defer func() { _ = s.Close() }()
	p := newParticipants(of)
	run := func(name string, f *fate) (*coordinator.Coordinator, func()) {
		ctx, cancel := context.WithCancel(t.Context())
		f.kill, f.sleep = cancel, 3*leaseTTL
		c := coordinator.New(coordinator.Config{Store: mortalStore{s, f}, Caller: mortalCaller{p, f}, Name: name,
			Log: slog.New(slog.DiscardHandler), Shards: 1, LeaseTTL: leaseTTL})
		ended := make(chan struct{})
		go func() { defer close(ended); _ = c.Run(ctx) }()
		return c, func() { cancel(); <-ended }
	}
	d, err := saga.ParseDefinition([]byte(shape))
	if err != nil {
		t.Fatal(err)
	}
	first := &fate{what: what, at: at}
	c, stop := run("one", first)
	defer stop()
	synctest.Wait()
	started := make(chan error, 1)
	go func() { started <- second(c.Start(t.Context(), d)) }()
	time.Sleep(time.Second)
	next, stopNext := run("two", &fate{at: -1})
	defer stopNext()
	time.Sleep(10 * leaseTTL)
	if at < 0 {
		stop()
		time.Sleep(leaseTTL)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		// Whoever does not know whether it was taken starts it again, with whomever owns it.
		_, err := next.Start(t.Context(), d)
		if err != nil {
			_, err = c.Start(t.Context(), d)
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it cannot be started: %v", err)
		}
	}
	time.Sleep(10 * time.Minute)
	v, err := next.Get(t.Context(), d.ID)
	if err != nil {
		if v, err = c.Get(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, step := range d.Steps {
		n := p.net[step.Name]
		if n < 0 || n > 1 || v.State == saga.Completed && n != 1 || v.State == saga.Compensated && n != 0 || !v.State.Ended() && v.State != saga.Parked {
			t.Errorf("fate %d at %d, moods %v: it is %s, and step %s, %s, has an effect %d times: %s", what, at, of, v.State, step.Name, v.Steps[i].State, n, v.Reason)
		}
	}
	first.mu.Lock()
	defer first.mu.Unlock()
	return first.passed
}

const (
	chain = `{"id":"s","steps":[
 {"name":"a","action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/b"}},
 {"name":"b","action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/b"}},
 {"name":"c","action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/b"}}]}`
	graph = `{"id":"s","steps":[
 {"name":"a","after":[],"action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/b"}},
 {"name":"b","after":[],"action":{"service":"a","path":"/a"},"compensate":{"service":"a","path":"/b"}},
 {"name":"c","after":["a","b"],"kind":"pivot","action":{"service":"a","path":"/a"}},
 {"name":"d","after":["c"],"kind":"retriable","action":{"service":"a","path":"/a"}}]}`
)

// Coordinators end, sleep and lose answers at any of their writes and calls; nothing is done by half.
func TestACoordinatorMayEndAtAnyPoint(t *testing.T) {
	for name, shape := range map[string]string{"a chain": chain, "a graph with a pivot": graph} {
		t.Run(name, func(t *testing.T) {
			cases := 0
			for n := range 1 << 6 {
				of := map[string]int{"a": n % moods, "b": n / moods % moods, "c": n / moods / moods % moods}
				if (testing.Short() || isRace) && rand.IntN(8) > 0 {
					continue
				}
				points := 0
				synctest.Test(t, func(t *testing.T) { points = survive(t, shape, of, killed, -1) })
				for at := range points {
					for what := range fates {
						synctest.Test(t, func(t *testing.T) { survive(t, shape, of, what, at) })
						cases++
					}
				}
			}
			t.Logf("%d cases", cases)
		})
	}
}
