package mesh

import (
	"net/netip"
	"time"
)

// Listener is where requests, or connections, enter. One without an Address stands for a
// destination that clients call by name (for requests, Envoy's ApiListener).
type Listener struct {
	Name    string
	Address netip.AddrPort
	// Route holds the routes, if they came with the listener; else RouteName
	// names the RouteConfiguration that has them.
	Route     *RouteConfiguration
	RouteName string
	// StatPrefix names the listener in metrics.
	StatPrefix string
	HTTP       HTTPOptions
	TLS        *DownstreamTLS // nil: in the clear
	// TCP has the chains of a listener that relays connections; one with an Address has no
	// routes then, and no StatPrefix. Without one, connections to the destination go by
	// them, those of CONNECT among them, and its routes are for requests.
	TCP []TCPChain
	// Chains are those of a listener that tells its connections apart by more than the names
	// of servers, or whose TCP has TLS that ends here. It has no routes, no StatPrefix, no
	// TLS and no TCP of its own then.
	Chains  []Chain
	Preface Preface
}

// HTTPCodec is which versions of HTTP a listener takes.
type HTTPCodec uint8

// The versions. In the clear, HTTP/2 is taken with prior knowledge only.
const (
	CodecAuto HTTPCodec = iota // whichever a client begins with
	CodecHTTP1
	CodecHTTP2
)

// HTTPOptions say how a listener keeps the connections of its clients. Zero fields mean
// the engine's defaults.
type HTTPOptions struct {
	Codec HTTPCodec
	// IdleTimeout closes a connection without a request under way for so long.
	IdleTimeout time.Duration
	// MaxConnectionDuration ends a connection that is so old, or up to a tenth less.
	MaxConnectionDuration time.Duration
	// MaxRequestsPerConnection ends a connection after so many.
	MaxRequestsPerConnection uint32
	// MaxConcurrentStreams is how many requests an HTTP/2 connection may carry at once.
	MaxConcurrentStreams uint32
	// InitialStreamWindow is how many bytes of a request's body an HTTP/2 client may send
	// before they are passed on, once some of it was: until then they are 65,535.
	InitialStreamWindow uint32
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
	// Connect is for requests of CONNECT, which become tunnels to the cluster, and for no
	// others; there is no Prefix and no Path then.
	Connect bool
	Prefix  string // of the path; "" if Path is set
	Path    string // the whole path without the query; "" if Prefix is set
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
