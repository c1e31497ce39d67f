// Package table is configuration compiled into what a request reads: routes whose
// clusters are pointers and whose metrics are handles. After a request found its
// [Entry] there is no string-keyed map, no lock and no allocation.
//
// Everything here is immutable. What has a life of its own (hosts, breakers,
// connections) belongs to package upstream and is only pointed to.
package table

import (
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/route"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// Entry is what one route does.
type Entry struct {
	// Cluster takes the request, unless Direct answers it.
	Cluster *upstream.Cluster
	Direct  *mesh.DirectResponse
	// Timeout bounds the exchange; 0: nothing does.
	Timeout time.Duration
	// Authority is what hosts are asked for instead of what came; nil: that.
	Authority []byte
	// Path takes the place of the first Matched bytes of paths; nil: they stay as they are.
	Path    []byte
	Matched int // how many bytes of paths the route matches by
	// Request and Response are what is done to heads, before they go on.
	Request, Response Changes
	// Where the entry is, and what requests must meet for it.
	routes *Routes
	index  int
	where  []condition
	// Requests counts what goes to the destination.
	Requests *metrics.Requests
	// Source and Destination name the two ends in logs and spans.
	Source, Destination string
	// Route names the route, if it has a name.
	Route string
	// Connect entries are for CONNECT alone.
	Connect bool
	// Inbound entries lead to the application beside this sidecar.
	Inbound bool
	// Relay is where connections go instead, those of CONNECT among them; nil: they go where
	// requests do.
	Relay *Entry
	// TCP says how connections are relayed, on a Relay; nil on others.
	TCP *mesh.TCPProxy
}

// Routes is a compiled route configuration.
type Routes struct {
	Name    string
	matcher *route.Matcher
	entries []Entry
}

// Deps is what compiling needs from its surroundings.
type Deps struct {
	// Cluster finds a cluster by name; nil if there is none.
	Cluster func(name string) *upstream.Cluster
	Metrics *metrics.Proxy
	// Source names the calling side in metrics.
	Source string
	// TCP is the chain by which connections go; nil: they go where requests do.
	TCP *mesh.TCPChain
}

// Compile makes routes. A route, or a chain, to a cluster that does not exist is an error.
func Compile(c mesh.RouteConfiguration, deps Deps) (*Routes, error) {
	matcher, err := route.New(c)
	if err != nil {
		return nil, err
	}
	r := &Routes{Name: c.Name, matcher: matcher}
	var relay *Entry
	if deps.TCP != nil {
		e, err := entry(mesh.Route{Name: deps.TCP.Name, Action: mesh.RouteAction{Cluster: deps.TCP.TCP.Cluster}}, deps)
		if err != nil {
			return nil, fmt.Errorf("filter chain %s: %w", deps.TCP.Name, err)
		}
		e.TCP = &deps.TCP.TCP
		relay = &e
	}
	for _, v := range c.VirtualHosts {
		for _, rt := range v.Routes {
			e, err := entry(rt, deps)
			if err != nil {
				return nil, fmt.Errorf("route configuration %s: virtual host %s: %w", c.Name, v.Name, err)
			}
			e.Relay = relay
			e.routes, e.index = r, len(r.entries)
			if e.where, err = conditions(rt.Match.Where); err != nil {
				return nil, fmt.Errorf("route configuration %s: virtual host %s: %w", c.Name, v.Name, err)
			}
			e.Request = changes(rt.Fields.Request, v.Fields.Request, c.Fields.Request)
			e.Response = changes(rt.Fields.Response, v.Fields.Response, c.Fields.Response)
			r.entries = append(r.entries, e)
		}
	}
	return r, nil
}

func entry(rt mesh.Route, deps Deps) (Entry, error) {
	e := Entry{Direct: rt.Action.Direct, Timeout: rt.Action.Timeout, Source: deps.Source, Route: rt.Name, Connect: rt.Match.Connect}
	if e.Direct != nil {
		e.Destination = "direct_response"
	} else {
		e.Cluster = deps.Cluster(rt.Action.Cluster)
		if e.Cluster == nil {
			return Entry{}, fmt.Errorf("cluster %q does not exist", rt.Action.Cluster)
		}
		e.Destination = rt.Action.Cluster
	}
	if rt.Action.Host != "" {
		e.Authority = []byte(rt.Action.Host)
	}
	if rt.Action.Path != "" {
		e.Path = []byte(rt.Action.Path)
	}
	e.Matched = max(len(rt.Match.Path), len(rt.Match.Prefix)) // one of both is ""
	e.Requests = deps.Metrics.Destination(e.Source, e.Destination)
	return e, nil
}

// Match returns the entry of the first route whose path matches, nil if none does. For it to be the
// request's, its conditions must be met: see [Entry.For].
func (r *Routes) Match(authority, path []byte) *Entry {
	return r.at(r.matcher.Match(authority, path))
}

// at returns the entry at an index of the matcher's.
func (r *Routes) at(i int) *Entry {
	if i == route.NoMatch {
		return nil
	}
	return &r.entries[i]
}
