package client

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// Resource is one that the server sent.
type Resource struct {
	Name    string
	Version string
	Body    *anypb.Any
}

// Update is a response: resources of one type that came or changed, and names
// that do not exist (any more).
type Update struct {
	TypeURL   string
	Resources []Resource
	Removed   []string
}

// Rejection is why the owner does not take a resource.
type Rejection struct {
	Name   string
	Reason string
}

// Config says who asks whom. Zero fields mean the default.
type Config struct {
	Node *core.Node
	Conn grpc.ClientConnInterface
	// Apply puts an update in force and returns what it refuses. It is called from
	// Run's goroutine, and the acknowledgement goes out when it has returned.
	Apply func(Update) []Rejection
	// OnConnect is called whenever a stream opened, from the goroutine that receives and so
	// beside Apply; nil: nobody is.
	OnConnect func()
	// MinBackoff and MaxBackoff bound the time before a new stream: it doubles with
	// each failure, and chance takes away up to all of it. Defaults 100 ms and 3 s.
	MinBackoff, MaxBackoff time.Duration
	Log                    *slog.Logger
}

// Client is a delta ADS client. Subscribe, Unsubscribe and Status are safe for
// concurrent use and do not block.
type Client struct {
	config Config
	wake   chan struct{} // holds one: subscriptions changed

	mu     sync.Mutex
	types  map[string]*typeState // guarded by mu
	status Status                // guarded by mu
	opened bool                  // guarded by mu; a stream did, once
}

// typeState is what is wanted and held of a type.
type typeState struct {
	wanted map[string]bool
	// told is what the server of the present stream knows that we want.
	told map[string]bool
	// left is what it has yet to hear that we do not want, or did not for a while: of a
	// name that is wanted again it would not send what it believes that we hold.
	left map[string]bool
	// held is the version in force of each resource.
	held map[string]string
	// asked: a request for the type went out on the present stream.
	asked bool
}

// Status is how the client is doing.
type Status struct {
	Connected bool
	Since     time.Time // when the stream opened, or was lost, or the client began
	LastError string    // of the last stream or attempt
	Responses uint64
	Rejected  uint64 // resources, ever
}

// New returns a client; Run starts it.
func New(config Config) *Client {
	if config.MinBackoff == 0 {
		config.MinBackoff = 100 * time.Millisecond
	}
	if config.MaxBackoff == 0 {
		config.MaxBackoff = 3 * time.Second
	}
	return &Client{config: config, wake: make(chan struct{}, 1), types: map[string]*typeState{}, status: Status{Since: time.Now()}}
}

// Subscribe asks for resources of a type, by name.
func (c *Client) Subscribe(typeURL string, names ...string) {
	c.mu.Lock()
	t := c.typeLocked(typeURL)
	for _, name := range names {
		t.wanted[name] = true
	}
	c.mu.Unlock()
	c.nudge()
}

// Unsubscribe ends the interest in resources.
func (c *Client) Unsubscribe(typeURL string, names ...string) {
	c.mu.Lock()
	t := c.typeLocked(typeURL)
	for _, name := range names {
		delete(t.wanted, name)
		delete(t.held, name)
		if t.told[name] {
			delete(t.told, name)
			t.left[name] = true
		}
	}
	c.mu.Unlock()
	c.nudge()
}

// Status returns how the client is doing.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Client) typeLocked(typeURL string) *typeState {
	t := c.types[typeURL]
	if t == nil {
		t = &typeState{wanted: map[string]bool{}, told: map[string]bool{}, left: map[string]bool{}, held: map[string]string{}}
		c.types[typeURL] = t
	}
	return t
}

// nudge lets Run look at the subscriptions; many changes make one look.
func (c *Client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run keeps a stream open until ctx ends, which is no error. It blocks.
func (c *Client) Run(ctx context.Context) error {
	backoff := c.config.MinBackoff
	for {
		opened := time.Now()
		lost := c.stream(ctx)
		if ctx.Err() == nil {
			c.lost(lost)
		}
		if time.Since(opened) > c.config.MaxBackoff {
			backoff = c.config.MinBackoff
		}
		wait := time.NewTimer(time.Duration(rand.Int64N(int64(backoff) + 1)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
		backoff = min(2*backoff, c.config.MaxBackoff)
	}
}

func (c *Client) lost(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.status.Connected:
		c.config.Log.Warn("control plane lost; going on with what is known", "error", err)
		c.status.Connected, c.status.Since = false, time.Now()
	case c.status.LastError == "":
		c.config.Log.Warn("control plane not reached yet; trying on", "error", err)
	}
	c.status.LastError = err.Error()
}

func (c *Client) connected() {
	c.mu.Lock()
	if !c.opened {
		c.opened = true
		c.config.Log.Info("control plane connected")
	} else {
		c.config.Log.Info("control plane connected again", "gone_for", time.Since(c.status.Since).Round(time.Millisecond))
	}
	c.status.Connected, c.status.Since = true, time.Now()
	c.mu.Unlock()
	if c.config.OnConnect != nil {
		c.config.OnConnect()
	}
}

type adsStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// stream opens one and serves it until it breaks.
func (c *Client) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(c.config.Conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	responses := make(chan *discovery.DeltaDiscoveryResponse)
	var broken error
	var receiving sync.WaitGroup
	receiving.Go(func() {
		defer close(responses)
		// The header comes when the server has taken the stream, before it has anything
		// to say: that is when it is connected.
		if _, broken = s.Header(); broken != nil {
			return
		}
		c.connected()
		for {
			var r *discovery.DeltaDiscoveryResponse
			if r, broken = s.Recv(); broken != nil {
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	defer receiving.Wait()
	defer cancel()
	// A send that fails only says so; why, gRPC tells who receives.
	why := func() error {
		for range responses { // unanswered, so the server will send them again
		}
		receiving.Wait()
		return broken
	}
	if err := c.begin(s); err != nil {
		return why()
	}
	for {
		if c.sendSubscriptions(s) != nil {
			return why()
		}
		select {
		case r, ok := <-responses:
			if !ok || c.take(s, r) != nil {
				return why()
			}
		case <-c.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin forgets what the last stream's server knew, and says who is there, if no
// subscription is about to.
func (c *Client) begin(s adsStream) error {
	c.mu.Lock()
	wanted := 0
	for _, t := range c.types {
		t.told, t.left, t.asked = map[string]bool{}, map[string]bool{}, false
		wanted += len(t.wanted)
	}
	c.mu.Unlock()
	if wanted > 0 {
		return nil
	}
	// Of endpoints, since of listeners and clusters a first request without names
	// asks for all.
	return s.Send(&discovery.DeltaDiscoveryRequest{Node: c.config.Node, TypeUrl: codec.EndpointsURL})
}

// sendSubscriptions tells the server what changed of what is wanted. The first
// request for a type on a stream tells what is held too.
func (c *Client) sendSubscriptions(s adsStream) error {
	for _, r := range c.requests() {
		if err := s.Send(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) requests() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var requests []*discovery.DeltaDiscoveryRequest
	for _, typeURL := range slices.Sorted(maps.Keys(c.types)) {
		t := c.types[typeURL]
		if len(t.left) > 0 {
			requests = append(requests, &discovery.DeltaDiscoveryRequest{
				TypeUrl: typeURL, ResourceNamesUnsubscribe: slices.Sorted(maps.Keys(t.left))})
			t.left = map[string]bool{}
		}
		names := missing(t.wanted, t.told)
		if len(names) == 0 {
			continue
		}
		r := &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names}
		if !t.asked {
			t.asked = true
			r.Node = c.config.Node
			r.InitialResourceVersions = maps.Clone(t.held)
		}
		t.told = maps.Clone(t.wanted)
		requests = append(requests, r)
	}
	return requests
}

func missing(want, have map[string]bool) []string {
	var names []string
	for name := range want {
		if !have[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// take hands a response to the owner and answers it.
func (c *Client) take(s adsStream, r *discovery.DeltaDiscoveryResponse) error {
	u := Update{TypeURL: r.GetTypeUrl()}
	c.mu.Lock()
	t := c.types[u.TypeURL]
	if t == nil {
		t = &typeState{} // nothing of it was asked for, and nothing is to be kept of it
	}
	c.status.Responses++
	for _, res := range r.GetResources() {
		if t.wanted[res.GetName()] { // else it was unsubscribed meanwhile
			u.Resources = append(u.Resources, Resource{Name: res.GetName(), Version: res.GetVersion(), Body: res.GetResource()})
		}
	}
	for _, name := range r.GetRemovedResources() {
		if t.wanted[name] {
			u.Removed = append(u.Removed, name)
		}
	}
	c.mu.Unlock()

	rejections := c.config.Apply(u)

	ack := &discovery.DeltaDiscoveryRequest{TypeUrl: u.TypeURL, ResponseNonce: r.GetNonce()}
	if len(rejections) > 0 {
		ack.ErrorDetail = refusal(rejections)
	}
	c.settle(u, rejections)
	return s.Send(ack)
}

// settle notes what is in force now.
func (c *Client) settle(u Update, rejections []Rejection) {
	refused := map[string]bool{}
	for _, r := range rejections {
		refused[r.Name] = true
		c.config.Log.Warn("resource refused", "type", u.TypeURL, "resource", r.Name, "reason", r.Reason)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Rejected += uint64(len(rejections))
	t := c.types[u.TypeURL]
	if t == nil {
		return
	}
	for _, r := range u.Resources {
		if t.wanted[r.Name] && !refused[r.Name] {
			t.held[r.Name] = r.Version
		}
	}
	for _, name := range u.Removed {
		delete(t.held, name)
	}
}

// refusal names the refused resources in the form that the server reads.
func refusal(rejections []Rejection) *statuspb.Status {
	bad := &errdetails.BadRequest{}
	for _, r := range rejections {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: strings.ToValidUTF8(r.Name, "\uFFFD"), Description: strings.ToValidUTF8(r.Reason, "\uFFFD")})
	}
	status := &statuspb.Status{
		Code:    int32(codes.InvalidArgument),
		Message: bad.GetFieldViolations()[0].GetField() + ": " + bad.GetFieldViolations()[0].GetDescription(),
	}
	if detail, err := anypb.New(bad); err == nil { // strings that are valid UTF-8 always marshal
		status.Details = []*anypb.Any{detail}
	}
	return status
}
