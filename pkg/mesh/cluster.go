package mesh

import (
	"net/netip"
	"time"
)

// Protocol is what a port speaks.
type Protocol uint8

// The protocols of a port. The zero value means that nobody said.
const (
	ProtocolUnspecified Protocol = iota
	ProtocolHTTP                 // HTTP/1.1
	ProtocolHTTP2                // HTTP/2 in the clear with prior knowledge
	ProtocolGRPC                 // gRPC, so HTTP/2
	ProtocolTCP
)

// protocolNames is indexed by Protocol.
func protocolNames() [5]string { return [5]string{"", "HTTP", "HTTP2", "GRPC", "TCP"} }

// String returns HTTP, HTTP2, GRPC or TCP, as the API spells them.
func (p Protocol) String() string { return protocolNames()[p] }

// IsHTTP reports whether requests, not bytes, are balanced on such a port.
func (p Protocol) IsHTTP() bool {
	return p == ProtocolHTTP || p == ProtocolHTTP2 || p == ProtocolGRPC
}

// ParseProtocol reads what [Protocol.String] writes. It refuses the empty string.
func ParseProtocol(s string) (Protocol, bool) {
	for p, name := range protocolNames() {
		if p > 0 && name == s {
			return Protocol(p), true
		}
	}
	return 0, false
}

// Health says whether an endpoint should get traffic.
type Health uint8

// The states of health, in the order of Envoy's core.v3.HealthStatus.
const (
	HealthUnknown   Health = iota // nobody checks it: used as if healthy
	HealthHealthy                 // checked and well
	HealthUnhealthy               // checked and failing: not used
	HealthDraining                // leaving: gets no new requests
)

// String returns UNKNOWN, HEALTHY, UNHEALTHY or DRAINING.
func (h Health) String() string {
	return [4]string{"UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING"}[h]
}

// Usable reports whether new requests may go to an endpoint in this state.
func (h Health) Usable() bool { return h == HealthUnknown || h == HealthHealthy }

// Endpoint is an address in configuration: where an instance takes requests.
type Endpoint struct {
	Instance string         // id of the instance behind it; "" in static configuration
	Address  netip.AddrPort // the inbound address of its sidecar where it has one, else its own
	Weight   uint32         // share of the traffic, 1 to 10,000; never 0
	Zone     string
	Health   Health
	Sidecar  bool // Address is a sidecar's inbound listener
	Knocks   bool // that relays TCP, and answers whoever knocks
}

// LoadAssignment is the set of endpoints of a cluster. Known and empty is not
// the same as unknown: an assignment without endpoints exists.
type LoadAssignment struct {
	Cluster   string
	Endpoints []Endpoint
}

// LBPolicy says how a cluster's hosts share its requests.
type LBPolicy uint8

// The balancing policies, by Envoy's names. The zero value is the default of
// the mesh: the choice of two by least requests, which finds slow hosts unasked.
const (
	LBLeastRequest LBPolicy = iota
	LBRoundRobin
	LBWeightedRoundRobin
	LBRandom
)

// String returns LEAST_REQUEST, ROUND_ROBIN, WEIGHTED_ROUND_ROBIN or RANDOM.
func (p LBPolicy) String() string {
	return [4]string{"LEAST_REQUEST", "ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN", "RANDOM"}[p]
}

// Breaker configures the circuit breaker of each host of a cluster. Zero fields
// mean the default that their comment names.
type Breaker struct {
	Disabled            bool
	ConsecutiveFailures uint32        // failures in a row that open it; default 5, 0 in config means default
	FailurePercent      uint32        // share of failures in the window that opens it, 1 to 100; default 50
	MinimumRequests     uint32        // requests in the window below which the share is not looked at; default 20
	Window              time.Duration // rolling window of the share; default 10 s
	OpenTime            time.Duration // first time it stays open; default 5 s; doubles with each reopening
	MaxOpenTime         time.Duration // cap of the doubling; default 60 s
	HalfOpenRequests    uint32        // probes let through at once when half-open; default 1
	MaxEjectionPercent  uint32        // share of a cluster's hosts that may be open at once, 1 to 100; default 50
	// PanicPercent is the share of the healthy hosts below which those whose breakers are
	// not open do not get all requests: all healthy hosts get them then. 0 to 100; 0: never.
	PanicPercent uint32
}

// The defaults of [Breaker].
const (
	DefaultConsecutiveFailures = 5
	DefaultFailurePercent      = 50
	DefaultMinimumRequests     = 20
	DefaultWindow              = 10 * time.Second
	DefaultOpenTime            = 5 * time.Second
	DefaultMaxOpenTime         = 60 * time.Second
	DefaultHalfOpenRequests    = 1
	DefaultMaxEjectionPercent  = 50
)

// WithDefaults returns b with every zero field set to its default.
func (b Breaker) WithDefaults() Breaker {
	b.ConsecutiveFailures = orDefault(b.ConsecutiveFailures, DefaultConsecutiveFailures)
	b.FailurePercent = orDefault(b.FailurePercent, DefaultFailurePercent)
	b.MinimumRequests = orDefault(b.MinimumRequests, DefaultMinimumRequests)
	b.Window = orDefault(b.Window, DefaultWindow)
	b.OpenTime = orDefault(b.OpenTime, DefaultOpenTime)
	b.MaxOpenTime = max(orDefault(b.MaxOpenTime, DefaultMaxOpenTime), b.OpenTime)
	b.HalfOpenRequests = orDefault(b.HalfOpenRequests, DefaultHalfOpenRequests)
	b.MaxEjectionPercent = orDefault(b.MaxEjectionPercent, DefaultMaxEjectionPercent)
	return b
}

func orDefault[T uint32 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// DefaultConnectTimeout bounds the connecting to a host where a cluster does
// not say (Envoy's default).
const DefaultConnectTimeout = 5 * time.Second

// TCPKeepalive says how the system asks, on connections that lie silent, whether their hosts
// are still there (RFC 9293 §3.8.4). Zero fields mean the engine's defaults.
type TCPKeepalive struct {
	Time     time.Duration // of silence before it asks; whole seconds, 1 s to 32767 s
	Interval time.Duration // from one question to the next; as Time
	Probes   uint32        // that have no answer before the connection ends; 1 to 127
}

// DefaultRequestTimeout bounds a request where nothing else does: from its
// head read to its response ended, as Envoy's RouteAction.timeout.
const DefaultRequestTimeout = 15 * time.Second

// DefaultInboundTimeout bounds a request on its way into the application. It is
// long: the caller's own timeout is the one that matters, and ends the exchange by
// closing the connection; this one is for callers that have none.
const DefaultInboundTimeout = time.Hour

// Cluster is a named set of hosts with the policy for using them.
type Cluster struct {
	Name           string
	Protocol       Protocol // of its hosts; unspecified is HTTP/1.1
	LB             LBPolicy
	Breaker        Breaker
	ConnectTimeout time.Duration // > 0
	TCPKeepalive   TCPKeepalive
	MaxRequests    uint32 // in flight at once; 0: no limit
	MaxConnections uint32 // open at once over all hosts; 0: no limit
	// MaxPendingRequests is how many requests, and connections to be relayed, may wait for a
	// connection to a host at once, over all hosts; 0: no limit but the engine's for each host.
	MaxPendingRequests uint32
	// MaxRequestsPerConnection is how many requests a connection to a host carries before
	// it is closed; 0: any number. It needs a Protocol, or ALPN.
	MaxRequestsPerConnection uint32
	// IdleTimeout closes a connection that carries no request for so long; 0: the engine's. It
	// needs a Protocol, or ALPN, as do the two below it.
	IdleTimeout time.Duration
	// MaxConnectionDuration is how old a connection may be when it is given to a request, but for
	// what chance takes away or adds by MaxConnectionJitter, as of [OldAt]; 0: any age.
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   int32
	HTTP2                 HTTP2Options // needs a Protocol of HTTP/2, or ALPN
	TLS                   *UpstreamTLS // nil: in the clear
	// ALPN says that each host chooses by ALPN between HTTP/2 and HTTP/1.1 (RFC 7301); one that
	// chooses nothing speaks HTTP/1.1. It needs TLS without ALPN of its own, and Protocol
	// unspecified.
	ALPN bool
	// ProxyProtocol is the version of the header with which relayed connections to the
	// hosts begin; 0: none. Requests share connections, so for HTTP there is none.
	ProxyProtocol ProxyVersion
	// Static holds the endpoints that came with the cluster (Envoy's STATIC
	// type); nil means that they come as a LoadAssignment of the same name.
	Static *LoadAssignment
	// DNS holds the hosts that the cluster has by name (Envoy's STRICT_DNS and LOGICAL_DNS types): whoever looks
	// them up brings the endpoints as a LoadAssignment of the same name. nil: it has none, as with Static.
	DNS *DNS
}
