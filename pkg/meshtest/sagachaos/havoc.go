package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// havoc kills and freezes processes until its time is over.
type havoc struct {
	world *world

	mu   sync.Mutex
	done map[string]int // guarded by mu; by what was done
}

// lease is longer than an owner keeps its shards when nothing is heard of it.
const lease = 10 * time.Second

// did takes note of what was done.
func (h *havoc) did(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done[what]++
}

// strike is something that is done to a process.
type strike struct {
	what string
	do   func(ctx context.Context, r *rand.Rand)
}

// wreak does one thing after the other, each once in a random order, and then again. Between two it waits.
func (h *havoc) wreak(ctx context.Context, r *rand.Rand, least, most time.Duration, strikes []strike) {
	for ctx.Err() == nil {
		for _, i := range r.Perm(len(strikes)) {
			pause(ctx, least+time.Duration(r.Int64N(int64(most-least))))
			if ctx.Err() != nil {
				return
			}
			strikes[i].do(ctx, r)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// patience is how long a moment is waited for.
const patience = 5 * time.Second

// at has a coordinator of a world struck as a participant has received, or committed, a call of its, and returns it, or nil if there was no such moment.
func (h *havoc) at(ctx context.Context, world, moment string, strike func(*coordinator)) (struck *coordinator) {
	happened := make(chan *coordinator, 1)
	off := h.world.director.await(world, moment, func(call *call) {
		c := h.world.caller(call)
		if c != nil {
			strike(c)
		}
		happened <- c
	})
	select {
	case c := <-happened:
		return c
	case <-time.After(patience):
	case <-ctx.Done():
	}
	if off() {
		return nil
	}
	return <-happened // it is about to
}

// killAt kills a coordinator at a moment.
func (h *havoc) killAt(world, moment string) strike {
	what := world + ": SIGKILL of the coordinator whose call was just " + moment
	return strike{what, func(ctx context.Context, _ *rand.Rand) {
		if h.at(ctx, world, moment, func(c *coordinator) { c.kill() }) != nil {
			h.did(what)
		}
	}}
}

// freezeAt freezes a coordinator at a moment, with calls and writes in its hands, and lets it go on.
func (h *havoc) freezeAt(world, moment string, least, most time.Duration) strike {
	what := world + ": SIGSTOP of the coordinator whose call was just " + moment
	if least > lease {
		what += ", past its lease"
	}
	return strike{what, func(ctx context.Context, r *rand.Rand) {
		c := h.at(ctx, world, moment, func(c *coordinator) { c.freeze() })
		if c == nil {
			return
		}
		h.did(what)
		pause(ctx, between(r, least, most))
		c.thaw()
	}}
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// alone is what happens to the control plane that has an etcd of its own.
func (h *havoc) alone(ctx context.Context, r *rand.Rand) {
	c := h.world.of(alone)[0]
	kill := strike{"alone: SIGKILL at random", func(context.Context, *rand.Rand) {
		h.did("alone: SIGKILL at random")
		c.kill()
	}}
	h.wreak(ctx, r, 500*time.Millisecond, 3*time.Second, []strike{
		kill, kill,
		{"alone: SIGKILL again as it starts", func(ctx context.Context, r *rand.Rand) {
			h.did("alone: SIGKILL again as it starts")
			c.kill()
			pause(ctx, between(r, 100*time.Millisecond, 1500*time.Millisecond))
			c.kill()
		}},
		h.killAt(alone, atReceived), h.killAt(alone, atReceived), h.killAt(alone, atCommitted), h.killAt(alone, atCommitted),
		h.freezeAt(alone, atReceived, 500*time.Millisecond, 2*time.Second),
	})
}

// pair is what kills the two that share an etcd.
func (h *havoc) pair(ctx context.Context, r *rand.Rand) {
	both := h.world.of(pair)
	one := strike{"pair: SIGKILL at random", func(_ context.Context, r *rand.Rand) {
		h.did("pair: SIGKILL at random")
		both[r.IntN(2)].kill()
	}}
	h.wreak(ctx, r, 2*time.Second, 8*time.Second, []strike{
		one, h.killAt(pair, atReceived), h.killAt(pair, atCommitted), h.killAt(pair, atReceived), h.killAt(pair, atCommitted),
		{"pair: SIGKILL of both", func(ctx context.Context, r *rand.Rand) {
			h.did("pair: SIGKILL of both")
			both[0].kill()
			pause(ctx, between(r, 0, 100*time.Millisecond))
			both[1].kill()
		}},
	})
}

// frozen is what freezes them: also past their lease, so that one wakes with calls and writes of shards that are not its own any more.
func (h *havoc) frozen(ctx context.Context, r *rand.Rand) {
	h.wreak(ctx, r, 2*time.Second, 8*time.Second, []strike{
		h.freezeAt(pair, atReceived, lease+time.Second, lease+4*time.Second),
		h.freezeAt(pair, atCommitted, lease+time.Second, lease+4*time.Second),
		h.freezeAt(pair, atReceived, 500*time.Millisecond, 3*time.Second),
	})
}

// etcd is what happens to the etcd that is shared.
func (h *havoc) etcd(ctx context.Context, r *rand.Rand) {
	e := h.world.etcd
	freeze := func(what string, least, most time.Duration) strike {
		return strike{what, func(ctx context.Context, r *rand.Rand) {
			h.did(what)
			e.freeze()
			pause(ctx, between(r, least, most))
			e.thaw()
		}}
	}
	h.wreak(ctx, r, 4*time.Second, 15*time.Second, []strike{
		{"etcd: SIGKILL", func(context.Context, *rand.Rand) {
			h.did("etcd: SIGKILL")
			e.kill()
		}},
		freeze("etcd: SIGSTOP", 500*time.Millisecond, 3*time.Second),
		freeze("etcd: SIGSTOP past the leases", lease+time.Second, lease+3*time.Second),
	})
}

// members is what happens to the participants.
func (h *havoc) members(ctx context.Context, r *rand.Rand) {
	any := func(r *rand.Rand) *member { return h.world.members[r.IntN(len(h.world.members))] }
	dies := func(how string) strike {
		return strike{how, func(ctx context.Context, r *rand.Rand) {
			m := any(r)
			p := m.expect()
			h.world.director.letDie(p.ID(), how)
			select {
			case <-p.Done():
				h.did("participant: " + how)
			case <-time.After(patience):
			case <-ctx.Done():
			}
		}}
	}
	h.wreak(ctx, r, 300*time.Millisecond, 2*time.Second, []strike{
		{"participant: SIGKILL at random", func(_ context.Context, r *rand.Rand) {
			h.did("participant: SIGKILL at random")
			any(r).kill()
		}},
		dies(diesReceived), dies(diesUndecided), dies(diesCommitted),
		{"participant: SIGSTOP", func(ctx context.Context, r *rand.Rand) {
			h.did("participant: SIGSTOP")
			m := any(r)
			m.freeze()
			pause(ctx, between(r, 100*time.Millisecond, 2*time.Second))
			m.thaw()
		}},
	})
}

// run wreaks havoc everywhere until ctx ends.
func (h *havoc) run(ctx context.Context, seed uint64) {
	var all sync.WaitGroup
	for name, f := range map[string]func(context.Context, *rand.Rand){"alone": h.alone, "pair": h.pair, "frozen": h.frozen, "etcd": h.etcd, "members": h.members} {
		all.Go(func() { f(ctx, randomOf(seed, "havoc "+name)) })
	}
	all.Wait()
}
