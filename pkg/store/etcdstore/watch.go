package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// maxWatchMessage bounds one message of a watch. etcd fragments at MaxRequestBytes, except for what it caught up with before it
// announced the watch (serverWatchStream.sendLoop, "flush buffered events"): up to 1000 revisions in one message. Beyond the
// bound the watch fails, and store.Mirror lists anew.
const maxWatchMessage = 64 << 20

// watch is one Watch stream.
type watch struct {
	cancel  context.CancelCauseFunc
	batches chan store.Batch // unbuffered: a reader that stays away holds back the stream
	done    chan struct{}    // closed when the goroutine has ended
	err     error            // why; read after done

	sending sync.Mutex // a gRPC stream takes one sender at a time
	stream  pb.Watch_WatchClient
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) (store.Watch, error) {
	if err := s.usable(ctx, store.CheckWatch(prefix, from)); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	forget := context.AfterFunc(s.ctx, func() { cancel(store.ErrClosed) })
	w := &watch{cancel: cancel, batches: make(chan store.Batch), done: make(chan struct{})}
	a, err := w.open(ctx, s.watches.ActiveConnection(), prefix, from)
	if err != nil {
		forget()
		err = watchError(ctx, err)
		cancel(err)
		return nil, err
	}
	started := s.run(func() {
		defer close(w.done)
		w.err = watchError(ctx, w.receive(ctx, a))
		forget()
		cancel(w.err)
	})
	if !started {
		cancel(store.ErrClosed)
		return nil, store.ErrClosed
	}
	return w, nil
}

// open creates the watch and waits for the server's confirmation.
//
// It asks for one revision more than wanted, which the assembler drops: etcd answers progress requests only once its revision
// has reached the first one watched (watchableStore.progressIfSync), so that a watch for what comes next, from newest+1, would
// stay without an answer until somebody writes.
func (w *watch) open(ctx context.Context, conn *grpc.ClientConn, prefix string, from int64) (*assembler, error) {
	// RequireLeader: the server ends the stream when its member loses the leader, instead of leaving it silent.
	stream, err := pb.NewWatchClient(conn).Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(maxWatchMessage))
	if err != nil {
		return nil, err
	}
	w.stream = stream
	create := &pb.WatchCreateRequest{
		Key:            []byte(prefix),
		RangeEnd:       []byte(clientv3.GetPrefixRangeEnd(prefix)),
		StartRevision:  from,
		ProgressNotify: true,
		Fragment:       true,
	}
	if from > 1 {
		create.StartRevision = from - 1
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return nil, recvError(stream, err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := canceled(resp); err != nil {
		return nil, err
	}
	return &assembler{next: from}, nil
}

// recvError returns the reason of a stream that failed to send, which only receiving tells.
func recvError(stream pb.Watch_WatchClient, sendErr error) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return sendErr
}

func (w *watch) receive(ctx context.Context, a *assembler) error {
	for {
		resp, err := w.stream.Recv()
		if err != nil {
			return err
		}
		if err := canceled(resp); err != nil {
			return err
		}
		for _, b := range a.add(resp) {
			select {
			case w.batches <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// canceled returns why the server ended the watch, or nil.
func canceled(resp *pb.WatchResponse) error {
	switch {
	case resp.CompactRevision != 0:
		return &store.CompactedError{Revision: resp.CompactRevision}
	case !resp.Canceled:
		return nil
	case strings.Contains(resp.CancelReason, "permission denied"), strings.Contains(resp.CancelReason, "auth"):
		return fmt.Errorf("%w: %s", store.ErrDenied, resp.CancelReason)
	case resp.CancelReason == rpctypes.ErrCompacted.Error():
		return &store.CompactedError{}
	}
	return fmt.Errorf("%w: watch canceled by the server: %s", store.ErrUnavailable, resp.CancelReason)
}

// watchError maps why a watch ended.
func watchError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, store.ErrCompacted), errors.Is(err, store.ErrDenied), errors.Is(err, store.ErrUnavailable):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return readError(err)
}

// Next implements store.Watch.
func (w *watch) Next(ctx context.Context) (store.Batch, error) {
	select {
	case b := <-w.batches:
		return b, nil
	case <-w.done:
		return store.Batch{}, w.err
	case <-ctx.Done():
		return store.Batch{}, ctx.Err()
	}
}

// RequestProgress implements store.Watch.
func (w *watch) RequestProgress() error {
	w.sending.Lock()
	defer w.sending.Unlock()
	err := w.stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	if err != nil {
		return fmt.Errorf("%w: the watch has ended: %w", store.ErrUnavailable, err)
	}
	return nil
}

// Close implements store.Watch.
func (w *watch) Close() error {
	w.cancel(store.ErrClosed)
	<-w.done
	return nil
}

// assembler puts fragments together to whole revisions. It holds back at most the one revision that is not complete yet.
type assembler struct {
	next    int64 // events of earlier revisions are dropped
	partial store.Batch
}

// add returns the batches that resp completes.
func (a *assembler) add(resp *pb.WatchResponse) []store.Batch {
	var out []store.Batch
	if len(resp.Events) == 0 && !resp.Created && a.partial.Bookmark() {
		return append(out, store.Batch{ClusterID: resp.Header.ClusterId, Revision: resp.Header.Revision})
	}
	for _, e := range resp.Events {
		revision := e.Kv.ModRevision
		if revision < a.next {
			continue
		}
		if revision != a.partial.Revision {
			out = a.complete(out)
			a.partial = store.Batch{ClusterID: resp.Header.ClusterId, Revision: revision}
		}
		if e.Type == mvccpb.Event_DELETE {
			a.partial.Deletes = append(a.partial.Deletes, string(e.Kv.Key))
		} else {
			a.partial.Puts = append(a.partial.Puts, entry(e.Kv))
		}
	}
	if !resp.Fragment {
		out = a.complete(out)
	}
	return out
}

// complete appends the partial batch, if any: a later revision or the end of the fragments shows that it is whole.
func (a *assembler) complete(out []store.Batch) []store.Batch {
	if a.partial.Bookmark() {
		return out
	}
	out = append(out, a.partial)
	a.next = a.partial.Revision + 1
	a.partial = store.Batch{}
	return out
}
