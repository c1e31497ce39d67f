package xdsserver

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

var errUnknownStream = errors.New("a watch of no known stream")

// CreateDeltaWatch implements [cache.ConfigWatcher].
func (c *Cache) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, answers chan cache.DeltaResponse) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, fresh, err := c.subscription(r.GetNode(), r.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	if fresh {
		s.sent = sub.ReturnedResources()
		for name, version := range s.sent {
			s.applied[name] = version
		}
	} else {
		// Asked for again, though it has it: the client lost it (xDS protocol, "Client
		// behavior": a resource that is subscribed to again is sent again).
		for _, name := range r.GetResourceNamesSubscribe() {
			if _, had := s.names[name]; had {
				delete(s.sent, name)
				s.dirty[name] = struct{}{}
			}
		}
	}
	if fresh || len(r.GetResourceNamesSubscribe())+len(r.GetResourceNamesUnsubscribe()) > 0 {
		s.want(sub.SubscribedResources(), sub.IsWildcard())
	}
	asked := &cache.DeltaRequest{TypeUrl: r.GetTypeUrl()} // for as long as it waits: what else clients put into a request is not kept
	w := &watch{send: func() {
		select {
		case answers <- &deltaResponse{request: asked, subscription: s}:
		default: // cannot be: the channel has room for one of each type
		}
	}}
	s.watch = w
	s.notify()
	return w.cancel, nil
}

// CreateWatch implements [cache.ConfigWatcher].
func (c *Cache) CreateWatch(r *cache.Request, sub cache.Subscription, answers chan cache.Response) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, fresh, err := c.subscription(r.GetNode(), r.GetTypeUrl())
	if err != nil {
		return nil, err
	}
	if fresh {
		s.sent = map[string]string{}
	}
	s.want(sub.SubscribedResources(), sub.IsWildcard())
	asked := &cache.Request{TypeUrl: r.GetTypeUrl()}
	w := &watch{send: func() {
		select {
		case answers <- &sotwResponse{request: asked, subscription: s}:
		default: // cannot be: the channel has room for one of each type
		}
	}}
	s.watch = w
	s.notify()
	return w.cancel, nil
}

// subscription finds or makes the one of the stream that a request came on.
func (c *Cache) subscription(link *core.Node, typeURL string) (s *subscription, fresh bool, err error) {
	st := c.links[link]
	t, known := codec.ParseType(typeURL)
	if st == nil || !known {
		return nil, false, errUnknownStream
	}
	s = st.subscriptions[t]
	if s == nil {
		s = newSubscription(c, st, t)
		st.subscriptions[t] = s
		return s, true, nil
	}
	return s, false, nil
}

// change is what a subscription has to be told.
type change struct {
	set    []*discovery.Resource
	remove []string
	bytes  uint64
}

// take collects what changed since the last response and marks it sent. It needs
// Cache.mu.
func (s *subscription) take() change {
	rs := s.cache.types[s.typ]
	if s.all {
		for name := range rs.entries {
			s.dirty[name] = struct{}{}
		}
		for name := range s.sent {
			s.dirty[name] = struct{}{}
		}
	}
	var ch change
	for _, name := range slices.Sorted(maps.Keys(s.dirty)) {
		_, named := s.names[name]
		e := rs.entries[name]
		had, told := s.sent[name]
		switch {
		case !named && (!s.wildcard || e != nil && e.byName):
		case e == nil:
			if had != gone && (named || told) {
				ch.remove = append(ch.remove, name)
				s.tell(name, gone)
			}
		case had == e.version || s.rejected[name].version == e.version:
			// It has it, or does not want it: refused content waits until it changes.
		default:
			ch.set = append(ch.set, &discovery.Resource{Name: name, Version: e.version, Resource: e.body})
			ch.bytes += uint64(len(e.body.GetValue()))
			s.sent[name] = e.version
		}
	}
	clear(s.dirty)
	s.all = false
	s.built = make(map[string]string, len(ch.set)+len(ch.remove))
	for _, r := range ch.set {
		s.built[r.GetName()] = r.GetVersion()
	}
	for _, name := range ch.remove {
		s.built[name] = gone
	}
	return ch
}

// tell notes that the client knows that a name does not exist: for one that it
// subscribes to by name that must be remembered, else it would be told again.
func (s *subscription) tell(name, version string) {
	if _, named := s.names[name]; named {
		s.sent[name] = version
	} else {
		delete(s.sent, name)
	}
}

// deltaResponse is made when the stream sends it.
type deltaResponse struct {
	request      *cache.DeltaRequest
	subscription *subscription
	version      string
}

// GetDeltaDiscoveryResponse builds the response of all that has changed by now.
func (r *deltaResponse) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	s := r.subscription
	c := s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := s.take()
	r.version = c.systemVersion()
	c.stats.Pushes++
	c.stats.PushedBytes += ch.bytes
	return &discovery.DeltaDiscoveryResponse{
		TypeUrl:           r.request.GetTypeUrl(),
		SystemVersionInfo: r.version,
		Resources:         ch.set,
		RemovedResources:  ch.remove,
	}, nil
}

func (r *deltaResponse) GetDeltaRequest() *discovery.DeltaDiscoveryRequest { return r.request }
func (r *deltaResponse) GetSystemVersion() (string, error)                 { return r.version, nil }
func (r *deltaResponse) GetResponseVersion() string                        { return r.version }
func (r *deltaResponse) GetNextVersionMap() map[string]string              { return r.subscription.sent }
func (r *deltaResponse) GetReturnedResources() map[string]string           { return r.subscription.sent }
func (r *deltaResponse) GetContext() context.Context                       { return context.Background() }

// sotwResponse is made when the stream sends it.
type sotwResponse struct {
	request      *cache.Request
	subscription *subscription
	version      string
}

// GetDiscoveryResponse builds the response of the present state: of all resources
// for listeners and clusters, whose absence means that they do not exist; of those
// that changed for the other types.
func (r *sotwResponse) GetDiscoveryResponse() (*discovery.DiscoveryResponse, error) {
	s := r.subscription
	c := s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := s.take()
	if s.typ == codec.TypeListener || s.typ == codec.TypeCluster {
		ch.set = s.everything()
		for _, res := range ch.set {
			s.built[res.GetName()] = res.GetVersion()
		}
	}
	out := &discovery.DiscoveryResponse{TypeUrl: r.request.GetTypeUrl(), Resources: make([]*anypb.Any, len(ch.set))}
	sum := fnv.New64a()
	for i, res := range ch.set {
		out.Resources[i] = res.GetResource()
		c.stats.PushedBytes += uint64(len(res.GetResource().GetValue()))
		_, _ = fmt.Fprintf(sum, "%s\x00%s\x00", res.GetName(), res.GetVersion()) // a hash never fails to write
	}
	c.stats.Pushes++
	r.version = fmt.Sprintf("%016x", sum.Sum64())
	out.VersionInfo = r.version
	return out, nil
}

// everything lists all resources that the client subscribes to, by name.
func (s *subscription) everything() []*discovery.Resource {
	rs := s.cache.types[s.typ]
	var names []string
	if s.wildcard {
		names = slices.Sorted(maps.Keys(rs.entries))
	} else {
		names = slices.Sorted(maps.Keys(s.names))
	}
	var all []*discovery.Resource
	for _, name := range names {
		e := rs.entries[name]
		if _, named := s.names[name]; e == nil || e.byName && !named {
			continue
		}
		all = append(all, &discovery.Resource{Name: name, Version: e.version, Resource: e.body})
	}
	return all
}

func (r *sotwResponse) GetRequest() *discovery.DiscoveryRequest { return r.request }
func (r *sotwResponse) GetVersion() (string, error)             { return r.version, nil }
func (r *sotwResponse) GetResponseVersion() string              { return r.version }
func (r *sotwResponse) GetReturnedResources() map[string]string { return r.subscription.sent }
func (r *sotwResponse) GetContext() context.Context             { return context.Background() }
