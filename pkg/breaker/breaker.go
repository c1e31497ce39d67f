package breaker

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Breaker guards one endpoint. The package documentation says how it behaves.
//
// This type is concurrency safe. Its listener is the only foreign code it calls, and
// no lock is held meanwhile. Make it with [New].
type Breaker struct {
	// Read by every request, written when the state or the count of failures in a
	// row changes. The state part of word changes under mu only; the count is also
	// reset by successes, hence compare-and-swap for it.
	word      atomic.Uint64
	shutUntil atomic.Int64 // now before which Acquire is in vain; 0: never in vain
	farthest  atomic.Int64 // no honest shutUntil is farther from now than this
	settings  atomic.Pointer[settings]

	_ [64]byte // keeps the mutex's traffic off the requests' cache line

	mu         sync.Mutex // guards all below
	leases     []lease    // half-open: probes that are out, oldest first
	overdue    []uint32   // half-open: serials of probes whose places were taken, oldest first
	lastSerial uint32     // of the leases granted
	successes  int        // half-open: of probes so far
	trips      uint32     // openings in a row, for the doubling
	openedAt   int64      // now of the last opening, if trips > 0
	closedAt   int64      // now of the last closing, if trips > 0
	opened     uint64     // times it opened, ever
	unshared   uint64     // times the share refused to let it open
	retired    bool
	suspended  bool
	changes    uint32 // transitions so far
	pending    []Change
	delivering bool
	share      *Share       // nil: none. Fixed by New, as are the rest.
	onChange   func(Change) // may be nil
	classify   func(error) Outcome
	random     func() float64 // in [0, 1)
	born       time.Time      // zero of Execute's clock
}

// settings is what a Config becomes. Immutable but for the window's counts.
type settings struct {
	Config
	window *window // nil if FailureRatio is 0
}

// maxOverdue bounds how many probes are remembered that lost their places: with one
// place and the default lease, those of half an hour.
const maxOverdue = 64

// lease is the place of one probe. After its deadline another may have it.
type lease struct {
	serial   uint32
	deadline int64
}

// Option changes what [New] makes.
type Option func(*Breaker)

// WithShare makes the breaker open only while s allows it.
func WithShare(s *Share) Option { return func(b *Breaker) { b.share = s } }

// OnChange makes the breaker call f after each change of state: on the goroutine of
// a call that changed the state, without a lock held, one call at a time, in order.
// f may call the breaker; what that changes is delivered after f has returned. A
// panic in f reaches the caller of the breaker, which stays usable.
//
// At most 64 changes wait for a slow f; then the oldest is lost, and the gap in
// [Change.Sequence] shows it.
func OnChange(f func(Change)) Option { return func(b *Breaker) { b.onChange = f } }

// ClassifyErrors makes Execute ask f what a non-nil error of its function means,
// in place of the rule that [Breaker.Execute] documents. f must be concurrency safe.
func ClassifyErrors(f func(error) Outcome) Option {
	return func(b *Breaker) { b.classify = f }
}

// New returns a closed Breaker, or the error of c.Validate.
func New(c Config, options ...Option) (*Breaker, error) {
	b := &Breaker{random: rand.Float64, born: time.Now()}
	for _, o := range options {
		o(b)
	}
	if err := b.SetConfig(c); err != nil {
		return nil, err
	}
	b.word.Store(uint64(makeWord(1, Closed, 0)))
	return b, nil
}

// SetConfig puts c into force, or returns the error of c.Validate and changes
// nothing. The state, the failures in a row, probes and their leases stay; a running
// open time gets shorter if it would have been by c, and not longer. What the window has counted stays unless Window changes or the ratio
// rule is turned off. Lower thresholds are looked at with the next outcome.
func (b *Breaker) SetConfig(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := &settings{Config: c}
	if c.FailureRatio > 0 {
		old := b.settings.Load()
		if old != nil && old.window != nil && old.Window == c.Window {
			next.window = old.window
		} else {
			next.window = newWindow(int64(c.Window))
		}
	}
	b.leases = slices.Grow(b.leases, max(0, c.HalfOpenProbes-len(b.leases)))
	b.settings.Store(next)
	b.farthest.Store(2 * int64(max(c.MaxOpenTime, c.ProbeLease)))
	switch b.load().state() {
	case HalfOpen:
		b.shutWhileFull(next)
	case Open:
		b.shutUntil.Store(min(b.shutUntil.Load(), b.openedAt+next.openTime(b.trips, b.random())))
	case Closed:
	}
	return nil
}

// Acquire asks to send a request at now. If it reports true, the Permit must be
// given to [Breaker.Done] once, whatever became of the request.
func (b *Breaker) Acquire(now int64) (Permit, bool) {
	if p, ok := b.acquireClosed(); ok {
		return p, true
	}
	if wait := b.shutUntil.Load() - now; wait > 0 && wait <= b.farthest.Load() {
		return Permit{}, false
	}
	return b.acquireProbe(now)
}

// acquireClosed is all of Acquire that needs no clock.
func (b *Breaker) acquireClosed() (Permit, bool) {
	if w := b.load(); w.state() == Closed {
		return Permit{generation: w.generation()}, true
	}
	return Permit{}, false
}

// acquireProbe goes half-open if it is time, and leases a place.
func (b *Breaker) acquireProbe(now int64) (Permit, bool) {
	b.mu.Lock()
	s := b.settings.Load()
	changed := false
	switch b.load().state() {
	case Closed:
		defer b.mu.Unlock()
		return b.acquireClosed()
	case Open:
		if b.stillOpen(s, now) {
			b.mu.Unlock()
			return Permit{}, false
		}
		b.forgetProbes()
		b.successes = 0
		b.enter(HalfOpen, OpenTimeOver, now)
		changed = true
	case HalfOpen:
	}
	p, ok := b.leaseProbe(s, now)
	b.mu.Unlock()
	if changed {
		b.deliver()
	}
	return p, ok
}

// stillOpen reports whether the open time lasts. The caller holds mu.
func (b *Breaker) stillOpen(s *settings, now int64) bool {
	wait := b.shutUntil.Load() - now
	if wait > b.farthest.Load() { // now stepped back: do not wait for the old now
		b.shutUntil.Store(now + int64(s.MaxOpenTime))
	}
	return wait > 0
}

// leaseProbe grants a place that is free, or else that of the oldest probe if its
// lease has expired, whose result counts all the same should it come yet. The caller
// holds mu.
func (b *Breaker) leaseProbe(s *settings, now int64) (Permit, bool) {
	if len(b.leases) >= s.HalfOpenProbes {
		wait := b.leases[0].deadline - now
		if wait > 0 && wait <= b.farthest.Load() {
			return Permit{}, false
		}
		b.endLease(0)
	}
	b.lastSerial = max(1, b.lastSerial+1)
	b.leases = append(b.leases, lease{b.lastSerial, now + int64(s.ProbeLease)})
	b.shutWhileFull(s)
	return Permit{generation: b.load().generation(), probe: b.lastSerial}, true
}

// endLease lets another have the place of a probe, which is remembered. The caller holds mu.
func (b *Breaker) endLease(at int) {
	if len(b.overdue) == maxOverdue {
		b.overdue = slices.Delete(b.overdue, 0, 1)
	}
	b.overdue = append(b.overdue, b.leases[at].serial)
	b.leases = slices.Delete(b.leases, at, at+1)
}

// Yield ends the lease of a probe before its time, for one whose outcome is not due yet though
// nothing is wrong: another may be out beside it from now on. Its own outcome counts when it is
// reported, as that of one whose lease has run out. For other permits it does nothing.
func (b *Breaker) Yield(p Permit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.load().grantedBy(p) {
		return
	}
	if at := slices.IndexFunc(b.leases, func(l lease) bool { return l.serial == p.probe }); at >= 0 {
		b.endLease(at)
		b.shutWhileFull(b.settings.Load())
	}
}

// shutWhileFull lets half-open refuse without the mutex until the oldest lease
// expires. The caller holds mu.
func (b *Breaker) shutWhileFull(s *settings) {
	until := int64(0)
	if len(b.leases) >= s.HalfOpenProbes {
		until = b.leases[0].deadline
	}
	b.shutUntil.Store(until)
}

// Done gives p back with the outcome of its request at now. It must be called at
// most once for a permit: a probe's second report is recognised and not counted, a
// second report of a permit granted while closed is not. A report that comes after
// the state has changed counts for nothing.
func (b *Breaker) Done(p Permit, o Outcome, now int64) {
	w := b.load()
	if !w.grantedBy(p) {
		return
	}
	switch {
	case p.probe != 0:
		b.doneProbe(p, o, now)
	case o == Success:
		b.succeed(w, p)
		if win := b.settings.Load().window; win != nil {
			win.success(now)
		}
	case o == Failure:
		b.fail(p, now)
	}
}

// succeed ends a row of failures.
func (b *Breaker) succeed(w word, p Permit) {
	for w.count() != 0 && w.grantedBy(p) {
		if b.word.CompareAndSwap(uint64(w), uint64(w.withCount(0))) {
			return
		}
		w = b.load()
	}
}

// fail counts a failure while closed, and opens if that was one too many.
func (b *Breaker) fail(p Permit, now int64) {
	b.mu.Lock()
	if !b.load().grantedBy(p) || b.retired || b.suspended {
		b.mu.Unlock()
		return
	}
	reason := b.countFailure(now)
	tripped := reason != 0 && b.share.take()
	switch {
	case tripped:
		b.trip(reason, now)
	case reason != 0:
		b.unshared++
	}
	b.mu.Unlock()
	if tripped {
		b.deliver()
	}
}

// countFailure returns the reason to open, 0 if there is none. The caller holds mu.
func (b *Breaker) countFailure(now int64) Reason {
	s := b.settings.Load()
	row := b.lengthenRow()
	if s.window != nil {
		s.window.failure(now)
	}
	if s.ConsecutiveFailures > 0 && row >= uint32(s.ConsecutiveFailures) {
		return ConsecutiveFailuresReached
	}
	if s.window != nil {
		requests, failures := s.window.counts(now)
		if requests >= uint64(s.MinimumRequests) && float64(failures) >= s.FailureRatio*float64(requests) {
			return FailureRatioReached
		}
	}
	return 0
}

// lengthenRow returns the failures in a row, this one included. The caller holds mu;
// only successes, which shorten the row, come between.
func (b *Breaker) lengthenRow() uint32 {
	for {
		w := b.load()
		longer := w.withCount(w.count() + 1)
		if b.word.CompareAndSwap(uint64(w), uint64(longer)) {
			return longer.count()
		}
	}
}

// doneProbe counts the outcome of a probe and frees its place.
func (b *Breaker) doneProbe(p Permit, o Outcome, now int64) {
	b.mu.Lock()
	if !b.load().grantedBy(p) || !b.returned(p.probe) {
		b.mu.Unlock()
		return
	}
	s := b.settings.Load()
	changed := true
	switch {
	case o == Failure:
		b.trip(ProbeFailed, now)
	case o == Success && b.successes+1 >= s.HalfOpenSuccesses:
		b.close(ProbesSucceeded, now)
	default:
		if o == Success {
			b.successes++
		}
		b.shutWhileFull(s)
		changed = false
	}
	b.mu.Unlock()
	if changed {
		b.deliver()
	}
}

// returned notes that a probe reported. It returns false if it did before, or was
// forgotten. The caller holds mu.
func (b *Breaker) returned(serial uint32) bool {
	if at := slices.IndexFunc(b.leases, func(l lease) bool { return l.serial == serial }); at >= 0 {
		b.leases = slices.Delete(b.leases, at, at+1)
		return true
	}
	at := slices.Index(b.overdue, serial)
	if at >= 0 {
		b.overdue = slices.Delete(b.overdue, at, at+1)
	}
	return at >= 0
}

// forgetProbes makes all places free. The caller holds mu.
func (b *Breaker) forgetProbes() { b.leases, b.overdue = b.leases[:0], b.overdue[:0] }

// trip opens. The caller holds mu and, since the first of openings in a row, a place
// in the share.
func (b *Breaker) trip(reason Reason, now int64) {
	s := b.settings.Load()
	if reason != ProbeFailed && now-b.closedAt >= int64(s.MaxOpenTime) {
		b.trips = 0
	}
	b.trips++
	b.opened++
	b.openedAt = now
	b.forgetProbes()
	b.shutUntil.Store(now + s.openTime(b.trips, b.random()))
	b.enter(Open, reason, now)
}

// close forgets the evidence and gives the place in the share back. The caller
// holds mu.
func (b *Breaker) close(reason Reason, now int64) {
	b.closedAt = now
	b.forgetProbes()
	if w := b.settings.Load().window; w != nil {
		w.clear()
	}
	b.share.give()
	b.enter(Closed, reason, now)
}

// enter publishes the next state. The caller holds mu.
func (b *Breaker) enter(to State, reason Reason, now int64) {
	w := b.load()
	b.changes++
	b.word.Store(uint64(w.next(to)))
	b.enqueue(Change{From: w.state(), To: to, Reason: reason, At: now, Sequence: b.changes})
}

func (b *Breaker) load() word { return word(b.word.Load()) }

// Retire ends the breaker's work, for when its host is removed: it gives back the
// place in the [Share], closes, and never opens again. It may be called repeatedly.
func (b *Breaker) Retire() {
	b.mu.Lock()
	b.retired = true
	changed := b.load().state() != Closed
	if changed {
		b.close(Retired, 0)
	}
	b.mu.Unlock()
	if changed {
		b.deliver()
	}
}

// Suspend pauses the breaker while its host gets no requests for another reason, as
// when health checks fail: it closes if it was not closed, which gives the place in the
// [Share] back, and opens for nothing that comes in meanwhile. What doubles the open
// time stays. It reports whether the breaker was open or half-open. It may be called
// repeatedly.
func (b *Breaker) Suspend(now int64) (ejected bool) {
	b.mu.Lock()
	b.suspended = true
	ejected = b.load().state() != Closed
	if ejected {
		b.close(Suspended, now)
	}
	b.mu.Unlock()
	if ejected {
		b.deliver()
	}
	return ejected
}

// Resume ends what Suspend began. The breaker is closed, and takes a place in the Share
// only when it opens next.
func (b *Breaker) Resume() {
	b.mu.Lock()
	b.suspended = false
	b.mu.Unlock()
}

// State returns the state at now. A breaker whose open time is over is half-open to
// every observer, though its listener hears of it with the first probe.
func (b *Breaker) State(now int64) State {
	s := b.load().state()
	if s == Open && b.shutUntil.Load() <= now {
		return HalfOpen
	}
	return s
}

// ReadyAt returns the now from which on Acquire can succeed: 0 if it can at any
// time, else the end of the open time or, half-open with all probes out, the time
// the oldest of their leases expires. An owner who gives no requests to an open host
// sets a timer for it.
func (b *Breaker) ReadyAt() int64 {
	if b.load().state() == Closed {
		return 0
	}
	return b.shutUntil.Load()
}

// Snapshot is what a breaker knows, for statistics.
type Snapshot struct {
	State               State
	ConsecutiveFailures int    // while closed
	WindowRequests      uint64 // counted in the window: successes and failures
	WindowFailures      uint64
	ConsecutiveTrips    int    // openings in a row: the exponent of the open time
	Trips               uint64 // openings ever, failed probes included
	TripsRefused        uint64 // times the share did not let it open
	ProbesOut           int    // half-open: leases held, expired ones included
	ProbeSuccesses      int    // half-open: so far
	ReadyAt             int64  // as Breaker.ReadyAt
}

// Snapshot returns a consistent view at now. It takes the breaker's mutex.
func (b *Breaker) Snapshot(now int64) Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Snapshot{
		State:               b.State(now),
		ConsecutiveFailures: int(b.load().count()),
		ConsecutiveTrips:    int(b.trips),
		Trips:               b.opened,
		TripsRefused:        b.unshared,
		ReadyAt:             b.ReadyAt(),
	}
	if b.load().state() == HalfOpen {
		s.ProbesOut, s.ProbeSuccesses = len(b.leases), b.successes
	}
	if w := b.settings.Load().window; w != nil {
		s.WindowRequests, s.WindowFailures = w.counts(now)
	}
	return s
}
