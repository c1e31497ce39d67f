package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// KeepAlive renews the lease at once and then every third of its TTL until ctx ends, then returns ctx's error; the lease lives
// on for what is left of its TTL. It returns ErrLeaseLost as soon as the store says that the lease is gone, or when no renewal
// was confirmed for a whole TTL, counted from the sending of the last successful one: from then on the store may have deleted
// the keys. Clock drift aside, the caller knows of the loss no later than the store acts on it. It blocks and starts no
// goroutine.
func KeepAlive(ctx context.Context, s Store, l Lease) error {
	deadline := time.Now().Add(l.TTL)
	for {
		sent := time.Now()
		renewed, err := renew(ctx, s, l, deadline)
		pause := l.TTL / 10
		switch {
		case err == nil:
			deadline = sent.Add(renewed.TTL)
			pause = renewed.TTL / 3
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrLeaseNotFound):
			return fmt.Errorf("%w: %w", ErrLeaseLost, err)
		case !time.Now().Before(deadline):
			return fmt.Errorf("%w: not renewed for %v: %w", ErrLeaseLost, l.TTL, err)
		}
		if err := sleep(ctx, min(pause, time.Until(deadline))); err != nil {
			return err
		}
	}
}

// renew renews once. A third of the TTL is its time, so that a request lost on a hanging connection leaves room for others.
func renew(ctx context.Context, s Store, l Lease, deadline time.Time) (Lease, error) {
	attempt := time.Now().Add(l.TTL / 3)
	if deadline.Before(attempt) {
		attempt = deadline
	}
	ctx, cancel := context.WithDeadline(ctx, attempt)
	defer cancel()
	return s.Renew(ctx, l.ID)
}
