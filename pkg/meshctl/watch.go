package meshctl

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

const (
	// minPause and maxPause bound the time before a broken watch is resumed.
	minPause = 200 * time.Millisecond
	maxPause = 5 * time.Second
)

// follow shows a watch until ctx ends, which is no error, and resumes it after the
// last token when it breaks. What would fail again is returned.
func (c *client) follow(ctx context.Context, r *meshv1.WatchRequest) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	api := meshv1.NewRegistryClient(conn)
	pause := minPause
	for reached := false; ; {
		token := r.GetRevision()
		err := c.stream(ctx, api, r)
		if ctx.Err() != nil {
			return nil
		}
		if reached = reached || r.GetRevision() != token; !reached || !resumable(err) {
			return c.explain(err)
		}
		if r.GetRevision() != token {
			pause = minPause
		}
		_, _ = fmt.Fprintf(c.err, "the watch broke (%s); going on from %s\n", plain(status.Convert(err).Message()), r.GetRevision())
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, maxPause)
	}
}

// resumable reports whether a watch that broke with err may work when made anew.
func resumable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	default:
		return false
	}
}

// stream shows one watch until it breaks, and moves the request's token on.
func (c *client) stream(ctx context.Context, api meshv1.RegistryClient, r *meshv1.WatchRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := api.Watch(ctx, r)
	if err != nil {
		return err
	}
	for {
		e, err := w.Recv()
		if err != nil {
			return err
		}
		if err := c.event(e); err != nil {
			return err
		}
		r.Revision = e.GetToken()
	}
}

// event shows one revision.
func (c *client) event(e *meshv1.WatchResponse) error {
	if c.format != table {
		return c.document(e)
	}
	if e.GetSnapshot() {
		if _, err := fmt.Fprintf(c.out, "%-10d snapshot: %d services, %d instances\n", e.GetStoreRevision(), len(e.GetServices()), len(e.GetChanged())); err != nil {
			return err
		}
	} else {
		for _, s := range e.GetServices() {
			if _, err := fmt.Fprintf(c.out, "%-10d service   %s.%s\n", e.GetStoreRevision(), s.GetService(), s.GetNamespace()); err != nil {
				return err
			}
		}
	}
	for _, i := range e.GetChanged() {
		if _, err := fmt.Fprintf(c.out, "%-10d instance  %s.%s %s %s %s\n", e.GetStoreRevision(), i.GetService(), i.GetNamespace(), i.GetId(),
			addressOf(i), statusOf(i)); err != nil {
			return err
		}
	}
	for _, k := range e.GetRemoved() {
		if _, err := fmt.Fprintf(c.out, "%-10d removed   %s.%s %s\n", e.GetStoreRevision(), k.GetService(), k.GetNamespace(), k.GetId()); err != nil {
			return err
		}
	}
	return nil
}
