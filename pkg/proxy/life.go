package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// phase is what a connection or an exchange does, for the watchdog.
type phase uint32

const (
	idle       phase = iota // between requests
	heading                 // a head is coming in
	working                 // in an exchange, on the client's side
	silent                  // waiting for the upstream
	tunnelling              // carrying a tunnel
	resting                 // about to rest
	leaving                 // about to end, unless a request has come
	closing                 // about to close
)

// life is what others than its holder may see of an exchange, and end. It is safe
// for concurrent use.
type life struct {
	phase   atomic.Uint32
	since   atomic.Int64 // when the phase began, or when a byte last moved in it
	expires atomic.Int64 // the exchange's deadline; 0: none
	gone    atomic.Bool  // the client went away
	stopped atomic.Bool  // the time to drain was over
	idled   atomic.Bool  // nothing moved in its tunnel for too long
	// receiving: an upload waits for the client's next bytes.
	receiving atomic.Bool
	// patient: a client may be silent in its body for as long as it likes, as in a stream.
	patient atomic.Bool
	// final: the response to a request that is still being sent has begun, so that there is no second
	// attempt.
	final atomic.Bool
	// probe: an attempt finds out whether its host works, and has an answer that goes on, or sends a
	// request that does; nil: neither.
	probe atomic.Pointer[probe]

	mu       sync.Mutex
	upstream upstream.Stream    // guarded by mu; what to interrupt while silent
	cancel   context.CancelFunc // guarded by mu; ends a wait for configuration or a dial
	released bool               // guarded by mu; from what bound sets
	stirred  int64              // guarded by mu; the since of the last wait upstream that was stirred
}

// begin tells that another exchange begins. The one before has left nothing to
// interrupt.
func (l *life) begin(now int64) {
	l.expires.Store(0)
	if l.final.Load() {
		l.final.Store(false)
	}
	l.released = false // nobody else is there yet
	l.enter(working, now)
}

// enter tells the watchdog what is done from now on.
func (l *life) enter(p phase, now int64) {
	l.since.Store(now)
	l.phase.Store(uint32(p))
}

// touch tells that a byte has moved since the watchdog looked, at that time.
func (l *life) touch(lookedAt int64) {
	if l.since.Load() < lookedAt {
		l.since.Store(lookedAt)
	}
}

// using tells what stream to interrupt; nil for none. It must be told before the
// stream is released. Where the client went away before, it is interrupted at once.
func (l *life) using(up upstream.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.upstream = up
	if up != nil && l.gone.Load() {
		up.Abort()
	}
}

// probe is an attempt that finds out whether its host works again.
type probe struct {
	attempt    upstream.Attempt
	sentAt     int64
	answeredAt int64 // 0: it has no answer

	// Of the watchdog.
	asked   bool // the host was asked whether it is there
	yielded bool
}

// provenAfter is how long the response of a probe goes on until its host counts as one that works,
// as a relayed connection does. Others are let through to it then, and not only at its end, which may
// be hours away.
const provenAfter = time.Second

// prove tells the breaker that the host of a probe works, if it is time. What the attempt says at its
// end is then the second report of a probe, which does not count.
func (l *life) prove(now int64) {
	switch p := l.probe.Load(); {
	case p == nil:
	case p.answeredAt == 0:
		l.yield(p, now)
	case now-p.answeredAt >= int64(provenAfter) && l.probe.CompareAndSwap(p, nil):
		p.attempt.Settle(breaker.Success, now)
	}
}

// yield lets others find out beside a probe whose client has not sent all of its request after
// provenAfter: a host that answers at the end of a stream owes it nothing yet. That it lives has to be
// seen first, in what it says to a PING when it has all that the client has sent. It is no proof
// that it works, which is left to the answer, of this one or another.
func (l *life) yield(p *probe, now int64) {
	if p.yielded || now-p.sentAt < int64(provenAfter) || !l.receiving.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.upstream == nil {
		return
	}
	if l.upstream.Lives(!p.asked) {
		p.attempt.Yield()
		p.yielded = true
	}
	p.asked = true
}

// cancellable returns a context that ends when the client goes away. It is for
// the waits that happen once in a while: a dial, a destination called first.
func (l *life) cancellable() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	l.mu.Lock()
	l.cancel = cancel
	if l.gone.Load() {
		cancel()
	}
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		l.cancel = nil
		l.mu.Unlock()
		cancel()
	}
}

// interrupt ends whatever the exchange waits for upstream.
func (l *life) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interruptLocked()
}

// breakOff is interrupt for a client that broke its stream, or was cut off: nor is the host of
// a tunnel to take that for a clean end.
func (l *life) breakOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.upstream != nil && phase(l.phase.Load()) == tunnelling {
		reset(l.upstream)
	}
	l.interruptLocked()
}

// expire interrupts the exchange if its deadline has passed, and stirs a wait once that is longer
// than most. It looks under the lock: what there is to interrupt belongs to the exchange whose
// deadline is read.
func (l *life) expire(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := l.expires.Load(); at > 0 && now > at {
		l.interruptLocked()
		return
	}
	since := l.since.Load()
	if l.upstream != nil && since != l.stirred && now-since > int64(watchEvery) && phase(l.phase.Load()) == silent {
		l.stirred = since
		l.upstream.Stir()
	}
}

// stalled reports whether a client that has neither sent nor taken anything for that long, at the time now, has had
// its time: the limit, or less while others are refused for want of the place at the instance that it holds.
func (l *life) stalled(since int64, limit time.Duration, now int64) bool {
	if since > int64(limit) || since <= int64(crowdedStall) {
		return since > int64(limit)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upstream != nil && l.upstream.Crowded(now)
}

// crowdedStall is the stall of clients whose place others want. Who has not taken what one read brings, 64 kB at the
// most, in this time, of which kernels and windows hold as much again, does not want it as much as they do.
const crowdedStall = 3 * time.Second

// bound sets a deadline that is earlier than the one before, unless the exchange was
// released from that.
func (l *life) bound(at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.expires.Load(); !l.released && (now == 0 || at < now) {
		l.expires.Store(at)
	}
}

// release sets a deadline, 0 for none, that is the last one.
func (l *life) release(at int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = true
	l.expires.Store(at)
}

func (l *life) interruptLocked() {
	if l.upstream != nil {
		l.upstream.Abort()
	}
	if l.cancel != nil {
		l.cancel()
	}
}
