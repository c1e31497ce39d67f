package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// ledger is what the clients know. It is safe for concurrent use.
type ledger struct {
	mu    sync.Mutex
	sagas map[string]*account // guarded by mu, and so is what they hold
	asked map[string]int      // guarded by mu: answers, by what was asked and the status
}

func newLedger() *ledger { return &ledger{sagas: map[string]*account{}, asked: map[string]int{}} }

// note changes what is known of a saga.
func (l *ledger) note(id string, f func(a *account)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(l.sagas[id])
}

func (l *ledger) complain(id, format string, args ...any) {
	l.note(id, func(a *account) { a.complaints = append(a.complaints, fmt.Sprintf(format, args...)) })
}

// ids returns those of a world, or of all.
func (l *ledger) ids(of func(*account) bool) (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, a := range l.sagas {
		if of(a) {
			all = append(all, id)
		}
	}
	return all
}

// clients start the sagas of a world.
type clients struct {
	seed     uint64
	world    string
	urls     []string // of its coordinators
	services []string
	ledger   *ledger
	http     *http.Client
	started  atomic.Int64
}

// said is what was answered.
type reply struct {
	status int
	body   []byte
	err    error
}

// ask asks a coordinator, and another one where there is one, if it does not answer soon, or does not own the saga.
func (c *clients) ask(ctx context.Context, method, path string, body []byte, patience time.Duration) reply {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	order := rand.Perm(len(c.urls))
	replies := make(chan reply, len(order))
	next := func() {
		url := c.urls[order[0]]
		order = order[1:]
		go func() { replies <- c.askOne(ctx, method, url+path, body) }()
	}
	next()
	var last reply
	for waiting := 1; waiting > 0; {
		soon := time.NewTimer(100 * time.Millisecond)
		select {
		case last = <-replies:
			waiting--
			if last.err == nil && last.status != http.StatusServiceUnavailable {
				soon.Stop()
				return last
			}
		case <-soon.C:
		}
		soon.Stop()
		if len(order) > 0 {
			next()
			waiting++
		}
	}
	return last
}

func (c *clients) askOne(ctx context.Context, method, url string, body []byte) (a reply) {
	q, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	r, err := c.http.Do(q)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = r.Body.Close() }()
	a.status = r.StatusCode
	a.body, a.err = io.ReadAll(r.Body)
	return a
}

// insist asks until there is an answer that is one, or ctx ends.
func (c *clients) insist(ctx context.Context, what, method, path string, body []byte) (reply, bool) {
	for {
		a := c.ask(ctx, method, path, body, 15*time.Second)
		again := a.err != nil || a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests
		c.count(what, a)
		if !again {
			return a, true
		}
		select {
		case <-ctx.Done():
			return a, false
		case <-time.After(time.Duration(50+rand.IntN(200)) * time.Millisecond):
		}
	}
}

func (c *clients) count(what string, a reply) {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	if a.err != nil {
		c.ledger.asked[what+": no answer"]++
		return
	}
	c.ledger.asked[fmt.Sprintf("%s: %d", what, a.status)]++
}

// run starts a saga at each tick until loading ends, and returns when all have been answered, or ctx has ended.
func (c *clients) run(ctx, loading context.Context, every time.Duration, most int) {
	var all sync.WaitGroup
	room := make(chan struct{}, most)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for loading.Err() == nil {
		select {
		case <-loading.Done():
		case <-tick.C:
			select {
			case room <- struct{}{}:
				all.Go(func() { c.one(ctx, loading); <-room })
			default: // so many wait already
			}
		}
	}
	all.Wait()
}

// one starts a saga, and does with it what clients and people do.
func (c *clients) one(ctx, loading context.Context) {
	id := fmt.Sprintf("%s-%05d", c.world, c.started.Add(1))
	r := randomOf(c.seed, id)
	d := define(r, id, c.services)
	c.ledger.mu.Lock()
	c.ledger.sagas[id] = &account{definition: d, byHand: map[string]bool{}}
	c.ledger.mu.Unlock()
	if r.IntN(100) < 8 {
		// This one does not wait for an answer, and does not ask again.
		a := c.ask(ctx, http.MethodPost, "/v1/sagas", text(d), time.Duration(1+r.IntN(30))*time.Millisecond)
		c.count("start, impatient", a)
		if a.err == nil && a.status == http.StatusOK {
			c.acknowledge(id, a)
		}
		return
	}
	a, ok := c.insist(ctx, "start", http.MethodPost, "/v1/sagas", text(d))
	if !ok {
		return
	}
	if a.status != http.StatusOK {
		c.ledger.complain(id, "its start was answered %d %s", a.status, a.body)
		return
	}
	c.acknowledge(id, a)
	pause := time.Duration(r.IntN(1500)) * time.Millisecond
	step := d.Steps[r.IntN(len(d.Steps))].Name
	what := r.IntN(100)
	select {
	case <-time.After(pause):
	case <-loading.Done():
		return
	}
	switch {
	case what < 7:
		if c.verb(loading, id, "abort", nil) == http.StatusOK {
			c.ledger.note(id, func(a *account) { a.aborted = true })
		}
	case what < 11:
		c.ledger.note(id, func(a *account) { a.byHand[step] = true })
		c.verb(loading, id, "skip", map[string]string{"step": step})
	case what < 16:
		c.verb(loading, id, "retry", nil)
	case what < 19:
		other := *d
		other.Labels = map[string]string{"of": "somebody else"}
		a, ok := c.insist(loading, "start, other content", http.MethodPost, "/v1/sagas", text(&other))
		if ok && a.status != http.StatusConflict {
			c.ledger.complain(id, "another one with its id was answered %d %s", a.status, a.body)
		}
	case what < 50:
		c.read(loading, id, true)
	}
}

// acknowledge takes note of the answer to a start.
func (c *clients) acknowledge(id string, a reply) {
	c.ledger.note(id, func(s *account) { s.acknowledged = true })
	c.see(id, a)
}

// see takes note of how a saga is shown.
func (c *clients) see(id string, a reply) (v view) {
	if err := json.Unmarshal(a.body, &v); err != nil {
		c.ledger.complain(id, "it is shown as %s: %v", a.body, err)
		return v
	}
	c.ledger.note(id, func(s *account) {
		if s.ended != "" && s.ended != v.State {
			s.complaints = append(s.complaints, fmt.Sprintf("it was %s, and then %s", s.ended, v.State))
		}
		if v.State.Ended() {
			s.ended = v.State
		}
		s.parked = s.parked || v.State == saga.Parked
	})
	return v
}

// verb does to a saga what a person does, and returns the status of the answer. 409 is one.
func (c *clients) verb(ctx context.Context, id, verb string, body map[string]string) int {
	if body == nil {
		body = map[string]string{}
	}
	body["by"] = "chaos"
	a, ok := c.insist(ctx, verb, http.MethodPost, "/v1/sagas/"+id+":"+verb, text(body))
	switch {
	case !ok:
		return 0
	case a.status == http.StatusOK:
		c.see(id, a)
	case a.status != http.StatusConflict:
		c.ledger.complain(id, "%s was answered %d %s", verb, a.status, a.body)
	}
	return a.status
}

// read reads a saga, once it has ended or is parked if it is to be waited for. It reports whether there was an answer: one of a saga that there is not has no state.
func (c *clients) read(ctx context.Context, id string, wait bool) (v view, ok bool) {
	path := "/v1/sagas/" + id
	if wait {
		path += ":wait?timeout=10s"
	}
	a, ok := c.insist(ctx, "read", http.MethodGet, path, nil)
	switch {
	case !ok:
	case a.status == http.StatusOK:
		v = c.see(id, a)
	case a.status == http.StatusNotFound:
		c.ledger.note(id, func(s *account) {
			if s.acknowledged {
				s.complaints = append(s.complaints, fmt.Sprintf("it was acknowledged, and then answered %d %s", a.status, a.body))
			}
		})
	default:
		c.ledger.complain(id, "it is answered %d %s", a.status, a.body)
	}
	return v, ok
}
