package etcdembed

import (
	"context"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// keys is the server's service of keys, called directly: through the socket, most of what a small request costs is gRPC's. Those that are under way when
// the server stops end before its data are closed.
type keys struct {
	server pb.KVServer

	mu     sync.RWMutex // held for reading by requests
	closed bool         // guarded by mu
}

// close waits for the requests under way, which etcd bounds, and refuses others.
func (k *keys) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
}

// ask makes a request. It ends with ctx, as through a connection, but for a read that waits for the data file: that is while it is defragmented.
func ask[Q, A any](ctx context.Context, k *keys, f func(context.Context, Q) (A, error), q Q) (a A, err error) {
	if err := ctx.Err(); err != nil {
		return a, status.FromContextError(err).Err()
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.closed {
		return a, rpctypes.ErrGRPCStopped
	}
	a, err = f(ctx, q)
	if err != nil && ctx.Err() != nil { // etcd has several words for it
		err = status.FromContextError(ctx.Err()).Err()
	}
	return a, err
}

// Range implements pb.KVClient.
func (k *keys) Range(ctx context.Context, q *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return ask(ctx, k, k.server.Range, q)
}

// Put implements pb.KVClient.
func (k *keys) Put(ctx context.Context, q *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	return ask(ctx, k, k.server.Put, q)
}

// DeleteRange implements pb.KVClient.
func (k *keys) DeleteRange(ctx context.Context, q *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return ask(ctx, k, k.server.DeleteRange, q)
}

// Txn implements pb.KVClient.
func (k *keys) Txn(ctx context.Context, q *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return ask(ctx, k, k.server.Txn, q)
}

// Compact implements pb.KVClient.
func (k *keys) Compact(ctx context.Context, q *pb.CompactionRequest, _ ...grpc.CallOption) (*pb.CompactionResponse, error) {
	return ask(ctx, k, k.server.Compact, q)
}

// RangeStream implements pb.KVClient. It is not needed, and not there.
func (k *keys) RangeStream(context.Context, *pb.RangeRequest, ...grpc.CallOption) (pb.KV_RangeStreamClient, error) {
	return nil, status.Error(codes.Unimplemented, "the embedded etcd streams no ranges")
}
