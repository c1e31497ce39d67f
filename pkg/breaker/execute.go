package breaker

import (
	"context"
	"errors"
	"time"
)

// Execute calls f(ctx) if the breaker lets it, reports what became of it, and
// returns its error. If the breaker refuses, f is not called and the error is
// [ErrOpen] or [ErrTooManyProbes].
//
// Unless [ClassifyErrors] says otherwise, errors mean:
//
//   - context.Canceled is Ignored: the caller went away;
//   - a [Refusal], of this or another breaker, is Ignored: nothing was sent;
//   - context.DeadlineExceeded when ctx itself is over is a Failure if f was given
//     [Config.FairTime] or more, else Ignored;
//   - any other error is a Failure.
//
// A panic or runtime.Goexit in f is a Failure and goes on up the stack. Execute
// does not allocate.
func (b *Breaker) Execute(ctx context.Context, f func(context.Context) error) error {
	p, ok := b.acquireClosed() // reads no clock, which costs more than all the rest
	if !ok {
		if p, ok = b.Acquire(b.clock()); !ok {
			return b.refusal()
		}
	}
	started := b.startOf(ctx)
	outcome := Failure // unless f returns
	defer func() { b.report(p, outcome) }()
	err := f(ctx)
	outcome = b.outcome(ctx, err, started)
	return err
}

// clock returns nanoseconds since New, by the monotonic clock.
func (b *Breaker) clock() int64 { return int64(time.Since(b.born)) }

func (b *Breaker) refusal() error {
	if b.load().state() == HalfOpen {
		return ErrTooManyProbes
	}
	return ErrOpen
}

// startOf returns the time now where the FairTime rule may ask for it.
func (b *Breaker) startOf(ctx context.Context) int64 {
	if _, ok := ctx.Deadline(); !ok || b.settings.Load().FairTime == 0 {
		return 0
	}
	return b.clock()
}

// report calls Done, and reads the clock only where Done will.
func (b *Breaker) report(p Permit, o Outcome) {
	if o == Ignored || o == Success && p.probe == 0 && b.settings.Load().window == nil {
		b.Done(p, o, 0)
		return
	}
	b.Done(p, o, b.clock())
}

func (b *Breaker) outcome(ctx context.Context, err error, started int64) Outcome {
	if err == nil {
		return Success
	}
	if b.classify != nil {
		return b.classify(err)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, ErrOpen), errors.Is(err, ErrTooManyProbes):
		return Ignored
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && b.clock()-started < int64(b.settings.Load().FairTime):
		return Ignored
	default:
		return Failure
	}
}
