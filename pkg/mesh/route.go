package mesh

import (
	"math"
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
	// HeadTimeout ends a connection whose request's head is not whole so long after its first
	// byte, or whose TLS handshake takes so long.
	HeadTimeout time.Duration
	// MaxConnectionDuration ends a connection that is so old, but for what chance takes away or adds
	// by MaxConnectionJitter, as of [OldAt].
	MaxConnectionDuration time.Duration
	MaxConnectionJitter   int32
	// MaxRequestsPerConnection ends a connection after so many.
	MaxRequestsPerConnection uint32
	Forwarded                Forwarded `json:",omitzero"`
	HTTP2Options
}

// Forwarded says what hosts are told of who sends a request. Without RemoteAddress, that is what
// the request says itself, and the others are zero.
type Forwarded struct {
	// RemoteAddress adds the address of the client's connection to x-forwarded-for, and says in
	// x-forwarded-proto whether that has TLS and in x-envoy-external-address whom it is from.
	RemoteAddress bool
	// SkipAppend leaves x-forwarded-for as it is.
	SkipAppend bool
	// TrustedHops is how many proxies before this one are believed what they say.
	TrustedHops uint32
}

// HTTP2Options say how HTTP/2 connections are kept, of clients or to hosts. Zero fields mean the
// engine's defaults.
type HTTP2Options struct {
	// MaxConcurrentStreams is how many requests a connection may carry at once. Hosts may allow fewer.
	MaxConcurrentStreams uint32
	// InitialStreamWindow is how many bytes of a body the peer may send before they are passed on,
	// once some of it was: until then they are 65,535.
	InitialStreamWindow uint32
	// InitialConnectionWindow is how many bytes of all bodies of a connection may be under way.
	InitialConnectionWindow uint32
	Keepalive               Keepalive
}

// Keepalive says how a peer is asked, by PING (RFC 9113 §6.7), whether it is still there.
type Keepalive struct {
	// Interval is how often, whatever else goes on; 0: when it has been silent for a while with
	// requests under way.
	Interval time.Duration
	// Jitter is the percentage of Interval that chance adds, up to 100. 0 without an Interval.
	Jitter uint32
	// Timeout ends a connection on which nothing has come for so long after a PING; 0: the
	// engine's default.
	Timeout time.Duration
}

// DefaultConnectionJitter is what chance does to the age of connections where nothing is said: those
// that began together do not end together, and none gets older than it may.
const DefaultConnectionJitter = -10

// OldAt returns when a connection that begins now, in nanoseconds, is as old as it may get: after
// most, and jitter percent of that more, or fewer where jitter is negative, times random, which is in
// [0, 1). With most 0 that is never.
func OldAt(now int64, most time.Duration, jitter int32, random float64) int64 {
	if most <= 0 {
		return math.MaxInt64
	}
	return now + int64(most) + int64(float64(most)*float64(jitter)/100*random)
}

// RouteConfiguration maps a request's authority and head to an action.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []VirtualHost
	Fields       FieldChanges `json:",omitzero"` // of all routes, after those of a virtual host
}

// VirtualHost holds the routes of a set of authorities.
type VirtualHost struct {
	Name string
	// Domains are exact authorities, suffix patterns (*.example.com), prefix
	// patterns (example.*) or "*", matched in that order, longest first
	// (Envoy's VirtualHost.domains). Case does not matter.
	Domains []string
	Routes  []Route      // the first that matches wins
	Fields  FieldChanges `json:",omitzero"` // of its routes, after their own
}

// Route is one match and what happens then.
type Route struct {
	Name   string
	Match  RouteMatch
	Action RouteAction
	Fields FieldChanges `json:",omitzero"`
}

// FieldChanges are made to the heads of requests, before they go on, and of their responses.
type FieldChanges struct {
	Request, Response []FieldChange // in this order
}

// FieldChange is made to one field of a head.
type FieldChange struct {
	Name string // a token (RFC 9110 §5.1); case does not matter, and what is added is spelt so
	How  FieldAction
	// Value is what is added; "" with Remove.
	Value string
}

// FieldAction is what a FieldChange does.
type FieldAction uint8

// The actions. But for the first, there is a Value.
const (
	FieldRemove        FieldAction = iota // all fields of the name
	FieldAppend                           // adds one, whatever there is
	FieldAddIfAbsent                      // adds one if there is none
	FieldOverwrite                        // one in place of all there are, or a new one
	FieldOverwriteOnly                    // one in place of all there are, if there are any
)

// RouteMatch holds conditions that must all be true.
type RouteMatch struct {
	// Connect is for requests of CONNECT, which become tunnels to the cluster, and for no
	// others; there is no Prefix and no Path then.
	Connect bool
	Prefix  string // of the path; "" if Path is set
	Path    string // the whole path without the query; "" if Prefix is set
	// Where has further conditions; none with Connect.
	Where []Condition `json:",omitzero"`
}

// Condition is one of the head of a request.
type Condition struct {
	Of   ConditionOf
	Name string // of the field or the parameter; "" of gRPC
	How  ConditionHow
	// Value is what is compared with, a whole RE2 with WhereRegex; Low and High are the bounds of
	// WhereRange, the latter not in it.
	Value     string
	Low, High int64
	// IgnoreCase is not of WhereRegex.
	IgnoreCase bool
	// Invert is of the comparison. What is not there meets no condition, but that of not being there,
	// unless MissingIsEmpty.
	Invert, MissingIsEmpty bool
}

// ConditionOf is what a condition is of.
type ConditionOf uint8

// Of fields, all values of a name together are compared, with commas between them; of parameters of
// the query, as they are written, the first. The method and so on are fields with Envoy's names.
const (
	OfField ConditionOf = iota // :method, :authority, :path and :scheme too
	OfParameter
	OfGRPC // the request is a call of gRPC
	OfPath // the path without the query, by WhereRegex; there is no Prefix and no Path then
)

// ConditionHow is how a condition compares.
type ConditionHow uint8

// The comparisons.
const (
	WherePresent ConditionHow = iota
	WhereExact
	WherePrefix
	WhereSuffix
	WhereContains
	WhereRegex
	WhereRange
)

// RouteAction is either a forward to Cluster or, if Direct is set, a response, and nothing
// else then.
type RouteAction struct {
	Cluster string
	// Timeout bounds the exchange from the request read to the response ended;
	// 0 means none.
	Timeout time.Duration
	// Host is what the cluster's hosts are asked for instead of what the client named, a host
	// with or without a port; "" is that. Tunnels of CONNECT have none.
	Host string
	// Path takes the place of what the route matches by, its Prefix or its Path; what comes
	// behind, the query too, stays. It begins with a slash; "" leaves paths as they are.
	// Tunnels of CONNECT have none.
	Path   string
	Direct *DirectResponse
}

// DirectResponse is answered by the proxy itself.
type DirectResponse struct {
	Status int // 200 to 599
	Body   string
	// Redirect says where the client is to go; nil: nowhere. There is no Body then, and Status is 301,
	// 302, 303, 307 or 308.
	Redirect *Redirect `json:",omitzero"`
}

// Redirect is a URL, made of the one that was asked for. Zero fields leave of that what there is.
type Redirect struct {
	Scheme string // http or https; with another one, the port goes that is the default of the old one
	Host   string // with or without a port
	Port   uint16
	// Path is all of the path, perhaps with a query, in whose place it is then; Prefix takes the place
	// of what the route matches by. One of both at most.
	Path, Prefix string
	StripQuery   bool // that was asked for
}
