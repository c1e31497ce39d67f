package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Attachment is an instance that lives by the stream of its sidecar. Its methods
// are for one goroutine: the stream's.
type Attachment struct {
	registry *Registry
	key      Key
	epoch    int64
	instance *meshv1.Instance
	replaced <-chan struct{}
}

// Attach registers an instance for as long as its stream lives, in place of
// whatever was registered under its name: a stream that takes over from one that is
// dying comes before the old one's end is known. Only if a stream that lives holds it at
// another address, it is ErrTwin. The stream counts as alive until ctx ends.
func (r *Registry) Attach(ctx context.Context, i *meshv1.Instance) (*Attachment, error) {
	i, err := completeIn(r.view.domain, i, false)
	if err != nil {
		return nil, err
	}
	key := keyFor(i)
	if err := r.room(key); err != nil {
		return nil, err
	}
	// No other attachment by this replica ever has this epoch, also if the key was
	// deleted in between: it is what tells two streams apart.
	a := &Attachment{registry: r, key: key, epoch: r.attachments.Add(1)}
	record, revision, err := r.change(ctx, key, func(old *Record) (*Record, error) {
		if old != nil && r.view.held(old) && !sameAddress(old.Instance, i) {
			return nil, fmt.Errorf("%w: %s of %s is at %s", ErrTwin, key.ID, key.Service, old.Instance.GetAddress())
		}
		return &Record{Instance: succeed(i, old), Owner: r.replica, Epoch: a.epoch}, nil
	})
	written := err == nil || errors.Is(err, store.ErrUnknownOutcome)
	if err == nil {
		a.instance = record.Instance
		err = r.view.Await(ctx, revision)
	}
	if err != nil {
		if written {
			a.Broke() // it may be registered, and nobody will hold it
		}
		return nil, err
	}
	a.replaced = r.view.hold(ctx, key, a.own)
	return a, nil
}

func sameAddress(a, b *meshv1.Instance) bool {
	return a.GetAddress() == b.GetAddress() && a.GetInboundPort() == b.GetInboundPort()
}

// Replaced is closed when the instance was removed, or is another stream's: this one
// keeps nothing registered any more.
func (a *Attachment) Replaced() <-chan struct{} { return a.replaced }

// Instance returns the instance as it is registered. Do not change it.
func (a *Attachment) Instance() *meshv1.Instance { return a.instance }

// own reports whether a record is what this attachment has written.
func (a *Attachment) own(r *Record) bool {
	return r != nil && r.Owner == a.registry.replica && r.Epoch == a.epoch
}

// SetStatus changes the status, and returns when that is in force. ErrReplaced says
// that the instance is another stream's by now.
func (a *Attachment) SetStatus(ctx context.Context, s meshv1.Status) error {
	if now, ok := a.registry.view.Instance(a.key); ok && a.own(now) && now.Instance.GetStatus() == s {
		return a.registry.view.Await(ctx, now.Revision) // told again: that need not reach the store
	}
	record, revision, err := a.registry.change(ctx, a.key, func(old *Record) (*Record, error) {
		if !a.own(old) {
			return nil, ErrReplaced
		}
		next := *old
		next.Instance = proto.Clone(old.Instance).(*meshv1.Instance)
		next.Instance.Status = s
		return &next, nil
	})
	if err != nil {
		return err
	}
	a.instance = record.Instance
	return a.registry.view.Await(ctx, revision)
}

// Detach removes the instance, unless another stream has attached it since.
func (a *Attachment) Detach(ctx context.Context) error { return a.detach(ctx, departure(a.key)) }

func (a *Attachment) detach(ctx context.Context, beside ...store.Op) error {
	_, revision, err := a.registry.change(ctx, a.key, func(old *Record) (*Record, error) {
		if !a.own(old) {
			return nil, ErrReplaced
		}
		return nil, nil
	}, beside...)
	if errors.Is(err, ErrReplaced) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.registry.view.Await(ctx, revision)
}

// Broke says that the sidecar's end of the stream was closed, which is what the death
// of its process looks like. The instance is removed soon, unless a new stream attaches
// it before, or this process ends, since then all streams break for no fault of theirs:
// whoever comes next gives them time. So it is if this process was frozen just before:
// then the sidecar gave it up, for all it can tell, and has time to come back, and if it
// does not, counts as lost.
func (a *Attachment) Broke() { a.leave(departure(a.key)) }

// FellSilent says that the sidecar was not heard for too long. It is as Broke, but
// the fault may lie on this side: the instance counts as lost, see [Changes].
func (a *Attachment) FellSilent() { a.leave() }

func (a *Attachment) leave(beside ...store.Op) {
	left := time.Now()
	a.registry.background(func() {
		until, frozen := left.Add(lostGrace), false
		for wait := time.Until(until); wait > 0; wait = time.Until(until) {
			grace := time.NewTimer(wait)
			select {
			case <-grace.C:
			case <-a.registry.stopped:
				grace.Stop()
				return
			}
			// It is asked now, and not when the stream ended: that may be noticed before the
			// freeze is, and a freeze during the grace keeps the sidecar away, too.
			if thawed := a.registry.pulse.wentOn(time.Now()); thawed.Add(thawTime).After(left) {
				until, frozen = thawed.Add(orphanGrace), true
			}
		}
		if frozen {
			beside = nil
		}
		a.registry.insist(a, beside...)
	})
}

// background runs f, unless Run has ended: it waits for all that began before.
func (r *Registry) background(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.stopped:
	default:
		r.lost.Go(f)
	}
}

// insist detaches, again and again until that succeeds or the registry stops.
func (r *Registry) insist(a *Attachment, beside ...store.Op) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		select {
		case <-r.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, storeTimeout) {
		bounded, done := context.WithTimeout(ctx, storeTimeout)
		err := a.detach(bounded, beside...)
		done()
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Warn("a lost instance is still registered", "instance", a.key.ID, "service", a.key.Service.String(),
			"error", err, "retry_in", pause)
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}
