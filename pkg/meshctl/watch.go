package meshctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

const (
	// minPause and maxPause bound the time before a broken watch is resumed.
	minPause = 200 * time.Millisecond
	maxPause = 2 * time.Second
)

// follow shows a watch until ctx ends, which is no error, and resumes it after the
// last token when it breaks. What would fail again is returned, and so is a control
// plane that cannot be reached at first: then its address is likely wrong.
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
		// Once it was there, it is waited for instead of asked for again and again.
		err := c.stream(ctx, api, r, grpc.WaitForReady(reached))
		if ctx.Err() != nil {
			if r.GetRevision() != "" {
				_, _ = fmt.Fprintf(c.err, "to go on from here: --token %s\n", plain(r.GetRevision()))
			}
			return nil
		}
		moved := r.GetRevision() != token
		reached = reached || moved
		if !reached || !resumable(err) {
			return c.explain(err)
		}
		if moved { // else it is the outage that was said already
			pause = minPause
			_, _ = fmt.Fprintf(c.err, "the watch broke (%s); going on from %s\n", plain(status.Convert(err).Message()), plain(r.GetRevision()))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, maxPause)
	}
}

// resumable reports whether a watch that broke with err may work when made anew.
func resumable(err error) bool {
	if errors.Is(err, io.EOF) {
		return true // the control plane ended it
	}
	s, ours := status.FromError(err)
	if !ours {
		return false // gRPC returns nothing else: the output cannot be written to
	}
	switch s.Code() {
	case codes.Unavailable, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	default:
		return false
	}
}

// stream shows one watch until it breaks, and moves the request's token on.
func (c *client) stream(ctx context.Context, api meshv1.RegistryClient, r *meshv1.WatchRequest, wait grpc.CallOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := api.Watch(ctx, r, wait)
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
	_, err := io.WriteString(c.out, eventLines(e))
	return err
}

// eventLines has a line for each change; none for a bookmark.
func eventLines(e *meshv1.WatchResponse) string {
	var b strings.Builder
	line := func(what string, cells ...string) {
		for i, cell := range cells {
			cells[i] = plain(cell)
		}
		_, _ = fmt.Fprintf(&b, "%-10d %-9s %s\n", e.GetStoreRevision(), what, strings.Join(cells, " "))
	}
	if e.GetSnapshot() {
		line("snapshot:", fmt.Sprintf("%d services, %d instances", len(e.GetServices()), len(e.GetChanged())))
	} else {
		for _, s := range e.GetServices() {
			line("service", s.GetService()+"."+s.GetNamespace())
		}
	}
	for _, i := range e.GetChanged() {
		line("instance", i.GetService()+"."+i.GetNamespace(), i.GetId(), addressOf(i), statusOf(i))
	}
	for _, k := range e.GetRemoved() {
		line("removed", k.GetService()+"."+k.GetNamespace(), k.GetId())
	}
	return b.String()
}
