package xdsserver

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// The bounds on a client.
const (
	// MaxSubscriptions by name, per type of a stream.
	MaxSubscriptions = 10_000
	// MaxAllSubscriptions by name, over all streams: what a replica can hold, whoever asks.
	MaxAllSubscriptions = 2_000_000
	// MaxAllNameBytes of the names in them: enough for 2,000,000 names of 128 bytes.
	MaxAllNameBytes = 256 << 20
	// MaxNameLength of a resource, in bytes.
	MaxNameLength = 512
	// MaxStreams open at once; one more is refused with RESOURCE_EXHAUSTED.
	MaxStreams = 20_000
)

// maxVersionLength is more than any version of a resource has here, in bytes.
const maxVersionLength = 64

// waves is in how many parts a drain ends the streams.
const waves = 20

// Server serves a cache as the Aggregated Discovery Service. It is safe for
// concurrent use.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	next  atomic.Uint32
	waves [waves]wave
}

// wave is the stream servers of those streams that end together.
type wave struct {
	delta delta.Server
	sotw  sotw.Server
	end   context.CancelFunc
}

// NewServer returns a server of c. Drain or Close ends its streams.
func NewServer(c *Cache) *Server {
	s := &Server{}
	for n := range s.waves {
		ctx, end := context.WithCancel(context.Background())
		s.waves[n] = wave{
			delta: delta.NewServer(ctx, c, &deltaCallbacks{c, n}, delta.DeactivateLegacyWildcard()),
			sotw:  sotw.NewServer(ctx, c, &sotwCallbacks{c, n}, sotw.WithOrderedADS(), sotw.DeactivateLegacyWildcard()),
			end:   end,
		}
	}
	return s
}

// Drain ends the streams a part at a time, each at a random moment of a time, so that
// not all clients come to the next replica at once, nor in step with those of another
// that drains. It blocks until the last, and ends the rest when ctx ends.
func (s *Server) Drain(ctx context.Context, over time.Duration) {
	defer s.Close()
	var moments [waves]time.Duration
	for n := range moments {
		moments[n] = rand.N(max(over, 1))
	}
	slices.Sort(moments[:])
	began := time.Now()
	for n, moment := range moments {
		select {
		case <-time.After(moment - time.Since(began)):
			s.waves[n].end()
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all streams.
func (s *Server) Close() {
	for n := range s.waves {
		s.waves[n].end()
	}
}

// wave returns the part that a new stream belongs to.
func (s *Server) wave() *wave { return &s.waves[s.next.Add(1)%waves] }

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { discovery.RegisterAggregatedDiscoveryServiceServer(g, s) }

// StreamAggregatedResources serves the state of the world.
func (s *Server) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if err := stream.SendHeader(nil); err != nil { // so that the client knows that it is connected
		return err
	}
	return s.wave().sotw.StreamHandler(stream, "")
}

// DeltaAggregatedResources serves changes.
func (s *Server) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return s.wave().delta.DeltaStreamHandler(stream, "")
}

// open notes a new stream.
func (c *Cache) open(ctx context.Context, id streamID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) >= MaxStreams {
		c.stats.RefusedStreams++
		return status.Errorf(codes.ResourceExhausted, "this replica serves %d streams already: try another", MaxStreams)
	}
	st := &stream{id: id, opened: c.now(), subscriptions: map[codec.Type]*subscription{}, nameless: map[codec.Type]bool{}, link: &core.Node{}}
	if p, ok := peer.FromContext(ctx); ok {
		st.peer = p.Addr.String()
	}
	c.streams[id] = st
	c.links[st.link] = st
	return nil
}

func (c *Cache) closed(id streamID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	if st == nil {
		return
	}
	for _, s := range st.subscriptions {
		s.leave()
	}
	delete(c.links, st.link)
	delete(c.streams, id)
	c.progressed()
}

// arrived checks a request, takes the answer that it may be, and returns the link to
// its stream. whole says that names are all that the client wants, not what it wants besides.
func (c *Cache) arrived(id streamID, n *core.Node, typeURL, nonce string, detail *statuspb.Status, names []string, whole bool) (*core.Node, error) {
	t, known := codec.ParseType(typeURL)
	if !known {
		return nil, status.Errorf(codes.InvalidArgument, "resources of type %q are not served here", typeURL)
	}
	bytes := 0
	for _, name := range names {
		bytes += len(name)
		if len(name) > MaxNameLength {
			return nil, errLongName(name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	if st == nil {
		return nil, errUnknownStream
	}
	if n != nil {
		st.node = node{id: bounded(n.GetId()), cluster: bounded(n.GetCluster()), userAgent: bounded(n.GetUserAgentName())}
		// The stream servers keep the node as long as the stream, so nothing else is left in it.
		proto.Reset(n)
		n.Id, n.Cluster, n.UserAgentName = st.node.id, st.node.cluster, st.node.userAgent
	}
	s := st.subscriptions[t]
	had, fresh := 0, len(names)
	if s != nil {
		had = len(s.names)
	}
	if whole && s != nil {
		fresh -= had
		bytes -= s.bytes
	}
	if had+fresh > MaxSubscriptions {
		return nil, errTooMany()
	}
	if fresh > 0 && c.subscribed+fresh > c.most {
		c.stats.RefusedStreams++
		return nil, status.Errorf(codes.ResourceExhausted, "this replica serves %d subscriptions already: try another", c.subscribed)
	}
	if bytes > 0 && c.subscribedBytes+bytes > c.mostBytes {
		c.stats.RefusedStreams++
		return nil, status.Errorf(codes.ResourceExhausted, "this replica serves subscriptions with %d bytes of names already: try another", c.subscribedBytes)
	}
	if s != nil && nonce != "" {
		refused, all := refusals(detail)
		if detail != nil {
			c.stats.Nacks++
		} else {
			c.stats.Acks++
		}
		s.answered(nonce, refused, all)
	}
	return st.link, nil
}

// refusals reads what a client refuses: by name, or, if it does not say, all.
func refusals(detail *statuspb.Status) (byName map[string]string, all string) {
	if detail == nil {
		return nil, ""
	}
	for _, d := range detail.GetDetails() {
		var bad errdetails.BadRequest
		if d.UnmarshalTo(&bad) != nil {
			continue
		}
		byName = map[string]string{}
		for _, v := range bad.GetFieldViolations() {
			byName[v.GetField()] = bounded(v.GetDescription())
		}
	}
	if len(byName) > 0 {
		return byName, ""
	}
	if detail.GetMessage() == "" {
		return nil, "refused without a reason"
	}
	return nil, bounded(detail.GetMessage())
}

// bounded keeps a client from filling memory and logs with what it says.
func bounded(said string) string {
	const most = 1024
	if len(said) > most {
		return said[:most] + "…"
	}
	return said
}

// owes notes that a client must answer the response that was just built.
func (c *Cache) owes(id streamID, typeURL, nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, _ := codec.ParseType(typeURL)
	st := c.streams[id]
	if st == nil || st.subscriptions[t] == nil {
		return
	}
	st.subscriptions[t].owe(nonce)
}

type deltaCallbacks struct {
	c    *Cache
	wave int
}

func (d *deltaCallbacks) OnDeltaStreamOpen(ctx context.Context, id int64, _ string) error {
	return d.c.open(ctx, streamID{true, d.wave, id})
}

func (d *deltaCallbacks) OnDeltaStreamClosed(id int64, _ *core.Node) {
	d.c.closed(streamID{true, d.wave, id})
}

func (d *deltaCallbacks) OnStreamDeltaRequest(number int64, r *discovery.DeltaDiscoveryRequest) error {
	if len(r.GetInitialResourceVersions()) > MaxSubscriptions {
		return errTooMany()
	}
	id := streamID{true, d.wave, number}
	if len(r.GetResourceNamesSubscribe()) == 0 && d.c.isWildcard(id, r.GetTypeUrl(), true) {
		r.ResourceNamesSubscribe = []string{"*"}
	}
	if err := trimHeld(r); err != nil {
		return err
	}
	link, err := d.c.arrived(id, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail(), r.GetResourceNamesSubscribe(), false)
	r.Node = link
	return err
}

// trimHeld leaves, of what a client says that it holds, what is of use: the rest would be
// kept as long as the stream. A client that names what it wants needs to say no more than
// that; one that wants all must hear of what is gone. What is left out is sent again, if it
// is asked for.
func trimHeld(r *discovery.DeltaDiscoveryRequest) error {
	held := r.GetInitialResourceVersions()
	wanted := make(map[string]bool, len(r.GetResourceNamesSubscribe()))
	for _, name := range r.GetResourceNamesSubscribe() {
		wanted[name] = true
	}
	for name, version := range held {
		switch {
		case len(name) > MaxNameLength:
			return errLongName(name)
		case len(version) > maxVersionLength, !wanted["*"] && !wanted[name]:
			delete(held, name)
		}
	}
	return nil
}

func (d *deltaCallbacks) OnStreamDeltaResponse(id int64, r *discovery.DeltaDiscoveryRequest, out *discovery.DeltaDiscoveryResponse) {
	d.c.owes(streamID{true, d.wave, id}, r.GetTypeUrl(), out.GetNonce())
}

type sotwCallbacks struct {
	c    *Cache
	wave int
}

func (d *sotwCallbacks) OnStreamOpen(ctx context.Context, id int64, _ string) error {
	return d.c.open(ctx, streamID{false, d.wave, id})
}

func (d *sotwCallbacks) OnStreamClosed(id int64, _ *core.Node) {
	d.c.closed(streamID{false, d.wave, id})
}

func (d *sotwCallbacks) OnStreamRequest(number int64, r *discovery.DiscoveryRequest) error {
	id := streamID{false, d.wave, number}
	if len(r.GetResourceNames()) == 0 && d.c.isWildcard(id, r.GetTypeUrl(), false) {
		r.ResourceNames = []string{"*"}
	}
	link, err := d.c.arrived(id, r.GetNode(), r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail(), r.GetResourceNames(), true)
	r.Node = link
	return err
}

func (d *sotwCallbacks) OnStreamResponse(_ context.Context, id int64, r *discovery.DiscoveryRequest, out *discovery.DiscoveryResponse) {
	d.c.owes(streamID{false, d.wave, id}, r.GetTypeUrl(), out.GetNonce())
}

// isWildcard reports whether a request without names means all resources. Envoy's
// does, if it is the first for listeners or clusters, and, in the state of the
// world, those after it too. The stream servers' own rule for that would give
// everything to a client that unsubscribes its last name.
func (c *Cache) isWildcard(id streamID, typeURL string, delta bool) bool {
	if typeURL != codec.ListenerURL && typeURL != codec.ClusterURL {
		return false
	}
	t, _ := codec.ParseType(typeURL)
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	if st == nil {
		return false
	}
	if s := st.subscriptions[t]; s != nil {
		return !delta && s.nameless
	}
	st.nameless[t] = true
	return true
}

func errLongName(name string) error {
	return status.Errorf(codes.InvalidArgument, "resource name %.64q… is longer than %d bytes", name, MaxNameLength)
}

func errTooMany() error {
	return status.Errorf(codes.ResourceExhausted, "a stream may subscribe to %d resources of a type", MaxSubscriptions)
}
