package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// recovery is how a coordinator comes back that was killed.
type recovery struct {
	Open int `json:"open"`
	// Ready is how long after its start it took requests again, Called how long until all were called again that were due, in seconds.
	Ready  float64 `json:"ready_seconds"`
	Called float64 `json:"called_seconds"`
	// AtOnce is how many calls were under way at once, at the most.
	AtOnce    int64 `json:"calls_at_once"`
	Completed int   `json:"completed"`
}

// recoveryBound is how long it may take until all are called again: an embedded store waits for no lease.
const recoveryBound = 3 * time.Second

func (r *recovery) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n**After a SIGKILL.** %d sagas were open, and all due, when the coordinator was started again: it took requests after %.2f s, and had called every one of them after %.2f s (must ≤ %v: %s), "+
		"with %d calls at once at the most. %d of them completed.\n", r.Open, r.Ready, r.Called, recoveryBound, verdict(r.Called <= recoveryBound.Seconds()), r.AtOnce, r.Completed)
}

// pause is how long the sagas of recovery wait, at the most, between two attempts.
const pause = 2 * time.Second

// recovery kills a coordinator while all sagas wait for a participant that is busy.
func (b *bench) recovery(ctx context.Context, r *result) (err error) {
	s, err := b.startServices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.process.Stop()) }()
	f, err := b.fairlead(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := s.set(ctx, 0, true); err != nil {
		return err
	}
	if err := f.startMany(ctx, b.open, func(n int) string {
		return fmt.Sprintf(`{"id":"r%d","steps":[{"name":"a","action":{"service":%q,"path":"/act"}},{"name":"b","action":{"service":%q,"path":"/busy"},"retry":{"attempts":1000,"backoff":"%v","max":"%v"}}]}`,
			n, service, service, pause, pause)
	}); err != nil {
		return err
	}
	// Each has been called at least once, by the first fence of each shard, and waits.
	before, err := s.await(ctx, func(st stats) bool { return sum(st.Keys) == int64(b.open) })
	if err != nil {
		return fmt.Errorf("not every saga was called: %w", err)
	}
	f.plane.Kill()
	time.Sleep(pause + pause/2)                  // all are due then
	if err := s.set(ctx, 0, false); err != nil { // counts the calls at once anew, too
		return err
	}
	begun := time.Now()
	if err := f.start(ctx); err != nil {
		return err
	}
	r.Recovery = &recovery{Open: b.open, Ready: time.Since(begun).Seconds()}
	again, err := s.await(ctx, func(st stats) bool {
		for fence, n := range st.Keys {
			if before.Keys[fence] > 0 && n > 0 {
				return false
			}
		}
		return sum(st.Keys) == int64(b.open)
	})
	if err != nil {
		return fmt.Errorf("not every saga was called again: %w", err)
	}
	r.Recovery.Called, r.Recovery.AtOnce = time.Since(begun).Seconds(), again.Most
	b.say("recovery: %d sagas called again %.2f s after the start, %d calls at once", b.open, r.Recovery.Called, again.Most)
	if err := f.awaitStates(ctx, func(states map[string]int) bool { return states["completed"] == b.open }); err != nil {
		return fmt.Errorf("not every saga completed: %w", err)
	}
	r.Recovery.Completed = b.open
	return nil
}

func sum(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// patience bounds how long is waited for what has to come.
const patience = 2 * time.Minute

// await waits for what participants tell.
func (s *services) await(ctx context.Context, done func(stats) bool) (st stats, err error) {
	return st, until(ctx, func() (bool, error) {
		st, err = s.stats(ctx)
		return err == nil && done(st), err
	})
}

// until asks again and again, 50 times a second.
func until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// atOnce is how many connections start many sagas.
const atOnce = 200

// startMany starts sagas by their definitions, from 0, all of which have to be taken.
func (f *fairlead) startMany(ctx context.Context, n int, definition func(int) string) error {
	client := newClient(atOnce)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for first := range atOnce {
		all.Go(func() {
			for i := first; i < n; i += atOnce {
				if _, err := ask(ctx, client, http.MethodPost, f.url("/v1/sagas"), []byte(definition(i))); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// states reads how many sagas are in each state.
func (f *fairlead) states(ctx context.Context) (map[string]int, error) {
	text, err := ask(ctx, http.DefaultClient, http.MethodGet, f.url("/metrics"), nil)
	if err != nil {
		return nil, err
	}
	return statesIn(string(text))
}

// statesIn reads the lines of fairlead_sagas.
func statesIn(metrics string) (map[string]int, error) {
	states := map[string]int{}
	for line := range strings.Lines(metrics) {
		rest, ok := strings.CutPrefix(line, `fairlead_sagas{state="`)
		if !ok {
			continue
		}
		state, value, _ := strings.Cut(strings.TrimSpace(rest), `"} `)
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		states[state] = int(n)
	}
	return states, nil
}

// awaitStates waits until the sagas are in the states that they are to be in.
func (f *fairlead) awaitStates(ctx context.Context, done func(map[string]int) bool) error {
	var states map[string]int
	err := until(ctx, func() (_ bool, err error) {
		states, err = f.states(ctx)
		return err == nil && done(states), err
	})
	if err != nil {
		return fmt.Errorf("%v: %w", states, err)
	}
	return nil
}

// percentile takes at least one value, and sorts them.
func percentile(values []float64, share float64) float64 {
	slices.Sort(values)
	return values[int(share*float64(len(values)-1))]
}
