package mesh

import (
	"net/netip"
	"time"
)

// Listener is where requests enter. One without an Address stands for a
// destination that clients call by name (Envoy's ApiListener).
type Listener struct {
	Name    string
	Address netip.AddrPort
	// Route holds the routes, if they came with the listener; else RouteName
	// names the RouteConfiguration that has them.
	Route     *RouteConfiguration
	RouteName string
	// StatPrefix names the listener in metrics.
	StatPrefix string
	TLS        *DownstreamTLS // nil: in the clear
}

// RouteConfiguration maps a request's authority and head to an action.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []VirtualHost
}

// VirtualHost holds the routes of a set of authorities.
type VirtualHost struct {
	Name string
	// Domains are exact authorities, suffix patterns (*.example.com), prefix
	// patterns (example.*) or "*", matched in that order, longest first
	// (Envoy's VirtualHost.domains). Case does not matter.
	Domains []string
	Routes  []Route // the first that matches wins
}

// Route is one match and what happens then.
type Route struct {
	Name   string
	Match  RouteMatch
	Action RouteAction
}

// RouteMatch holds conditions that must all be true.
type RouteMatch struct {
	Prefix string // of the path; "" if Path is set
	Path   string // the whole path without the query; "" if Prefix is set
}

// RouteAction is either a forward to Cluster or, if Direct is set, a response.
type RouteAction struct {
	Cluster string
	// Timeout bounds the exchange from the request read to the response ended;
	// 0 means none.
	Timeout time.Duration
	Direct  *DirectResponse
}

// DirectResponse is answered by the proxy itself.
type DirectResponse struct {
	Status int // 200 to 599
	Body   string
}
