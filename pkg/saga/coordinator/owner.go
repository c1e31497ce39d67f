package coordinator

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
)

// owner is who owns a shard, for as long as it does.
type owner struct {
	config  *Config
	journal *journal.Journal
	log     *slog.Logger

	events    chan func()
	committed chan error
	done      chan struct{} // closed when the loop has ended
	census    census
	born      time.Time // when the shard was owned

	// Of the loop.
	ctx     context.Context
	sagas   map[string]*entry
	due     due
	dirty   []*entry // in the order in which they became so
	batch   []written
	calls   int // under way, or about to be
	loading int
	// stopping: nothing new begins.
	stopping bool
	// services are those that are called now, or waited for.
	services map[string]*service
}

// written is what of an entry is in the batch under way.
type written struct {
	e     *entry
	calls []saga.CallRef
	told  []func(error)
}

// maxLoading is how many sagas are read from the store at once.
const maxLoading = 64

func newOwner(config *Config, j *journal.Journal, log *slog.Logger) *owner {
	return &owner{config: config, journal: j, log: log, events: make(chan func(), 256), committed: make(chan error, 1),
		done: make(chan struct{}), born: time.Now(), sagas: map[string]*entry{}, services: map[string]*service{}}
}

// now is the time by which the shard's sagas go: that of the clock when the shard was owned, and what has passed since, though the clock may have been set
// meanwhile. In Unix nanoseconds.
func (o *owner) now() int64 { return o.born.Add(time.Since(o.born)).UnixNano() }

// post hands f to the loop. It returns ErrChanging if that has ended, or the context's error.
func (o *owner) post(ctx context.Context, f func()) error {
	select {
	case o.events <- f:
		return nil
	case <-o.done:
		return ErrChanging
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stopTime is how long the calls under way may take to end when the owner is told to stop. What has not ended by then is cut off: its successor calls again.
const stopTime = 3 * time.Second

// run loads the shard and drives its sagas until ctx ends, or the shard has another owner: that is journal.ErrDeposed. Once stop is closed it begins nothing, and returns nil
// when what is under way has ended and is written.
func (o *owner) run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the calls under way: their outcome is the successor's to find
	o.ctx = ctx
	defer close(o.done)
	if err := o.load(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var cutOff <-chan time.Time
	for !o.stopping || o.calls > 0 || o.batch != nil || len(o.dirty) > 0 {
		select {
		case <-stop:
			stop, o.stopping, cutOff = nil, true, time.After(stopTime)
		case <-cutOff:
			return nil
		case f := <-o.events:
			f()
			o.drain()
		case err := <-o.committed:
			if err != nil {
				return err
			}
			o.written()
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := o.now()
		o.goOn(now)
		o.flush()
		if len(o.due) > 0 && o.hasRoom() && !o.stopping {
			timer.Reset(max(0, time.Duration(o.due[0].next-now)))
		} else {
			timer.Reset(time.Hour)
		}
	}
	return nil
}

// drain takes what else is here, so that it goes into one batch.
func (o *owner) drain() {
	for range cap(o.events) {
		select {
		case f := <-o.events:
			f()
		default:
			return
		}
	}
}

// load reads where all sagas stand. Calls that were intended by the owner before are due at once.
func (o *owner) load(ctx context.Context) error {
	now := o.now()
	return o.journal.Load(ctx, func(id string, r journal.Record) error {
		e := &entry{id: id, head: r.Head, place: -1, progress: r.Progress}
		o.become(e, r.State)
		o.sagas[id] = e
		switch {
		case r.State.Ended():
			e.next = r.Ended + int64(o.config.Retention)
			e.progress = saga.Progress{}
		case r.State != saga.Parked || r.Calling():
			e.next = now
		}
		o.schedule(e)
		return nil
	})
}

// schedule puts an entry among those that wait for their time, or takes it away.
func (o *owner) schedule(e *entry) {
	switch {
	case e.next == 0 && e.place >= 0:
		heap.Remove(&o.due, e.place)
	case e.next != 0 && e.place >= 0:
		heap.Fix(&o.due, e.place)
	case e.next != 0:
		heap.Push(&o.due, e)
	}
}

// hasRoom reports whether a saga may go on that may call.
func (o *owner) hasRoom() bool { return o.calls < o.config.MaxCalls && o.loading < maxLoading }

// goOn lets those go on whose time has come, as far as there is room for their calls.
func (o *owner) goOn(now int64) {
	for !o.stopping && len(o.due) > 0 && o.due[0].next <= now && o.hasRoom() {
		e := o.due[0]
		e.next = 0
		o.schedule(e)
		switch {
		case e.state.Ended():
			o.forget(e)
		case e.live == nil:
			o.read(e)
		default:
			o.advance(e)
		}
	}
}

// read makes an entry live, and lets it go on.
func (o *owner) read(e *entry) {
	if e.loading {
		return
	}
	e.loading = true
	o.loading++
	progress := e.progress
	go func() {
		l, err := o.liven(e.id, progress)
		_ = o.post(o.ctx, func() {
			e.loading = false
			o.loading--
			if err != nil {
				o.log.Error("saga cannot be read; it is tried again", "saga", e.id, "error", err)
				e.next = o.now() + int64(time.Second)
				o.schedule(e)
				return
			}
			e.live, e.progress = l, saga.Progress{}
			l.saga.Recover(o.now()) // nobody here has called
			e.next = 1              // it goes on when there is room for its calls, before those are read that wait to be
			o.schedule(e)
			e.goOn()
		})
	}()
}

func (o *owner) liven(id string, p saga.Progress) (*live, error) {
	d, err := o.journal.Definition(o.ctx, id)
	if err != nil {
		return nil, err
	}
	s, err := saga.Load(d, p)
	if err != nil {
		return nil, err
	}
	results, err := o.journal.Results(o.ctx, id)
	if err != nil {
		return nil, err
	}
	filled, err := o.journal.Calls(o.ctx, id)
	if err != nil {
		return nil, err
	}
	l := &live{saga: s, results: results, calls: map[string]*saga.Call{}}
	for name, text := range filled {
		c := new(saga.Call)
		if err := json.Unmarshal(text, c); err != nil {
			return nil, fmt.Errorf("call %s: %w", name, err)
		}
		l.calls[name] = c
	}
	return l, nil
}

// advance goes on with a saga that is live, and queues what is to be written of it.
func (o *owner) advance(e *entry) {
	now, late := o.now(), int64(0)
	crowded := false
	calls := e.live.saga.Advance(now, func(c saga.CallRef) bool {
		crowded = crowded || !e.pending.hasRoom()
		if !crowded && o.takePlace(e, e.live.saga.Call(c).Service) {
			o.fill(e, c)
			return true
		}
		late = now // what is due already goes on when a place is free, or what is pending is written
		return false
	})
	if crowded {
		e.later = append(e.later, func() { o.advance(e) })
	}
	o.calls += len(calls)
	e.pending.calls = append(e.pending.calls, calls...)
	if s := e.live.saga; s.State == saga.Parked && e.state != saga.Parked {
		o.log.Warn("saga is parked, for a person to decide", "saga", e.id, "reason", s.Reason)
	}
	o.become(e, e.live.saga.State)
	e.next = e.live.saga.NextAt(late)
	if e.state.Ended() {
		e.next = e.live.saga.Ended + int64(o.config.Retention)
	}
	o.schedule(e)
	o.queue(e)
	o.called(e)
}

func (o *owner) queue(e *entry) {
	if !e.queued {
		e.queued = true
		o.dirty = append(o.dirty, e)
	}
}

// callName is what a call is kept by that is made of results.
func callName(d *saga.Definition, c saga.CallRef) string {
	if c.Undo {
		return d.Steps[c.Step].Name + "/compensate"
	}
	return d.Steps[c.Step].Name + "/action"
}

// fill fills in what is to be called, once for all attempts.
func (o *owner) fill(e *entry, c saga.CallRef) {
	call := e.live.saga.Call(c)
	name := callName(e.live.saga.Definition, c)
	if !call.HasPlaces() || e.live.calls[name] != nil {
		return
	}
	filled, err := call.Fill(e.id, e.live.results)
	if err != nil {
		return // it fails again when it is called
	}
	text, filled, err := stored(filled)
	if err != nil {
		return
	}
	e.live.calls[name] = filled
	if e.pending.filled == nil {
		e.pending.filled = map[string][]byte{}
	}
	e.pending.filled[name] = text
}

// flush begins to write what is to be written, if nothing is being written.
func (o *owner) flush() {
	if o.batch != nil || len(o.dirty) == 0 {
		return
	}
	b := o.journal.NewBatch()
	n := 0
	for _, e := range o.dirty {
		if keys, bytes := e.size(); b.Len() > 0 && !b.Has(keys, bytes) {
			break
		}
		n++
		e.queued = false
		if e.state == "" { // to be forgotten
			b.Forget(e.id)
			o.batch = append(o.batch, written{e: e})
			continue
		}
		e.write(b)
		o.batch = append(o.batch, written{e, e.pending.calls, e.pending.told})
		e.pending, e.writing = pending{}, true
	}
	o.dirty = append(o.dirty[:0], o.dirty[n:]...)
	go func() {
		begun := time.Now()
		err := o.journal.Commit(o.ctx, b)
		if err == nil {
			o.config.Meter.Committed(b.Len(), time.Since(begun))
		}
		o.committed <- err
	}()
}

// written goes on with what was waiting for the batch.
func (o *owner) written() {
	batch := o.batch
	o.batch = nil
	for _, w := range batch {
		if w.e.state == "" {
			o.forgotten(w.e)
			continue
		}
		w.e.writing = false
		for _, f := range w.told {
			f(nil)
		}
		for _, c := range w.calls {
			o.call(w.e, c)
		}
		w.e.goOn()
		o.settled(w.e)
	}
}

// settled looks at an entry of which nothing is to be written.
func (o *owner) settled(e *entry) {
	if e.queued || e.live == nil {
		return
	}
	s := e.live.saga
	if s.State.Ended() || s.State == saga.Parked {
		for w := range e.waiting {
			w <- waited{view: o.view(e.id)}
		}
		e.waiting = nil
	}
	goesOn := e.next != 0 && !s.State.Ended() && time.Duration(e.next-o.now()) < soon
	if s.Calling() || goesOn && o.hasRoom() {
		return
	}
	e.progress, e.live = s.Progress, nil
	if s.State.Ended() {
		e.progress = saga.Progress{}
	}
}

// call makes a call of a saga that is live, and settles it.
func (o *owner) call(e *entry, c saga.CallRef) {
	s := e.live.saga
	step := &s.Definition.Steps[c.Step]
	r := &Request{Saga: e.id, Step: step.Name, Undo: c.Undo, Attempt: c.Attempt, Key: s.IdempotencyKey(c), Fence: o.journal.Fence(), Call: s.Call(c), Trace: s.Trace}
	if r.Call.HasPlaces() {
		filled := e.live.calls[callName(s.Definition, c)]
		if filled == nil {
			_, err := r.Call.Fill(e.id, e.live.results)
			text := "its values changed"
			if err != nil {
				text = err.Error()
			}
			o.settle(e, c, saga.Outcome{Answer: saga.AnswerRefused, Text: text})
			return
		}
		r.Call = filled
	}
	go func() {
		ctx, cancel := context.WithTimeout(o.ctx, step.CallTimeout())
		defer cancel()
		begun := time.Now()
		outcome := o.config.Caller.Call(ctx, r)
		o.config.Meter.Called(r.Undo, outcome.Answer, time.Since(begun))
		_ = o.post(o.ctx, func() { o.settle(e, c, outcome) })
	}()
}

// settle notes the outcome of a call, and goes on.
func (o *owner) settle(e *entry, c saga.CallRef, outcome saga.Outcome) {
	if !e.pending.hasRoom() {
		e.later = append(e.later, func() { o.settle(e, c, outcome) })
		return
	}
	o.calls--
	o.leavePlace(e.live.saga.Call(c).Service)
	if err := e.live.saga.Settle(c, outcome, o.now(), rand.Float64()); err != nil {
		o.log.Error("an outcome has no call", "saga", e.id, "error", err)
		return
	}
	if outcome.Answer == saga.AnswerDone && !c.Undo && len(outcome.Result) > 0 && len(outcome.Result) <= saga.MaxResultBytes {
		name := e.live.saga.Definition.Steps[c.Step].Name
		e.live.results[name] = outcome.Result
		if e.pending.results == nil {
			e.pending.results = map[string]json.RawMessage{}
		}
		e.pending.results[name] = outcome.Result
	}
	o.advance(e)
}

// forget deletes a saga whose retention is over.
func (o *owner) forget(e *entry) {
	o.become(e, "")
	o.queue(e)
}

// forgotten lets those start who wanted to by the same id while it was being deleted.
func (o *owner) forgotten(e *entry) {
	delete(o.sagas, e.id)
	for _, f := range e.again {
		f()
	}
}

// find returns a saga, unless there is none, or it is being deleted.
func (o *owner) find(id string) *entry {
	if e := o.sagas[id]; e != nil && e.state != "" {
		return e
	}
	return nil
}

// start takes a saga, unless it is there, or the store is full. told is called with nil when it is durable.
func (o *owner) start(d *saga.Definition, text []byte, trace string, takeRoom func(bytes int) bool, told func(error)) {
	digest := digestOf(text)
	if e := o.sagas[d.ID]; e != nil {
		switch {
		case e.state == "":
			e.again = append(e.again, func() { o.start(d, text, trace, takeRoom, told) })
		case e.head.Digest != digest:
			told(ErrConflict)
		case e.writing || e.queued:
			e.pending.told = append(e.pending.told, told)
			o.queue(e)
		default:
			told(nil)
		}
		return
	}
	if !takeRoom(len(text) + saga.MaxProgressBytes) {
		o.config.Meter.Full()
		told(ErrFull)
		return
	}
	now := o.now()
	e := &entry{id: d.ID, head: journal.Head{Digest: digest, Labels: hashesOf(d.Labels)}, place: -1}
	e.live = &live{saga: saga.Start(d, now), results: saga.Results{}, calls: map[string]*saga.Call{}}
	e.live.saga.Trace = trace
	o.become(e, saga.Running)
	e.next = now // it goes on in this turn of the loop, if there is room
	e.pending.definition = text
	e.pending.told = append(e.pending.told, told)
	o.sagas[d.ID] = e
	o.schedule(e)
	o.queue(e)
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}
