package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
)

const (
	// maxPeers is how many connections are kept that nobody uses.
	maxPeers = 64
	// maxCalls is how many calls use a connection: the others take 1,000 at once, and hold up what is more.
	maxCalls = 900
	// maxLanes is how many connections there are to one replica, for those who wait, and for all else. The last one holds up what is more.
	maxLanes = 32
	// maxAnswerBytes bounds what another replica answers.
	maxAnswerBytes = 8 << 20
)

// errClosed says that this replica ends.
var errClosed = errors.New("this replica ends")

// peers are the connections to the other replicas.
type peers struct {
	options []grpc.DialOption

	mu     sync.Mutex
	conns  map[lane]*peer // guarded by mu
	closed bool           // guarded by mu
}

// lane names a connection: those who wait have their own, so that they hold up nobody.
type lane struct {
	address string
	wait    bool
	number  int
}

// peer is a connection, and how many calls use it.
type peer struct {
	conn  *grpc.ClientConn
	calls int
}

func newPeers(options []grpc.DialOption) *peers {
	fixed := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithStatsHandler(sentHandler{}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		// One that is gone is given up within the patience of who asks, and found soon when it is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		// One that froze is found within 15 s, if nobody takes its place before.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
	return &peers{options: append(fixed, options...), conns: map[lane]*peer{}}
}

// take returns a connection to an address, for a call that waits or another. done is called once it is not used any more.
func (p *peers) take(address string, wait bool) (conn *grpc.ClientConn, done func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errClosed
	}
	at := lane{address: address, wait: wait}
	for p.conns[at] != nil && p.conns[at].calls >= maxCalls && at.number < maxLanes-1 {
		at.number++
	}
	found := p.conns[at]
	if found == nil {
		if len(p.conns) >= maxPeers {
			p.closeUnused()
		}
		conn, err := grpc.NewClient(address, p.options...)
		if err != nil {
			return nil, nil, err
		}
		found = &peer{conn: conn}
		p.conns[at] = found
	}
	found.calls++
	return found.conn, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		found.calls--
	}, nil
}

// closeUnused closes those that no call uses. The caller holds mu.
func (p *peers) closeUnused() {
	for at, c := range p.conns {
		if c.calls == 0 {
			_ = c.conn.Close() // it has nothing to say
			delete(p.conns, at)
		}
	}
}

// close closes all, and ends the calls that use them.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.conns {
		_ = c.conn.Close() // it has nothing to say
	}
	clear(p.conns)
}

// sentKey is the key of an atomic.Bool in the context of a call, which becomes true before anything of the call goes out that could have it done.
type sentKey struct{}

// sentHandler notes that. Headers go out before the message does, and are told of in between.
type sentHandler struct{}

// TagRPC implements stats.Handler.
func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (sentHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

// TagConn implements stats.Handler.
func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (sentHandler) HandleConn(context.Context, stats.ConnStats) {}
