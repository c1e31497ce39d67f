package mesh

import "time"

// ProxyVersion is a version of the PROXY protocol; 0 is none.
type ProxyVersion uint8

// The versions of the PROXY protocol.
const (
	ProxyV1 ProxyVersion = 1 // a line of text
	ProxyV2 ProxyVersion = 2 // a binary block
)

// DefaultTCPIdleTimeout is how long nothing may move on a relayed connection where nothing
// else is said (Envoy's default).
const DefaultTCPIdleTimeout = time.Hour

// DefaultConnectAttempts is how often a connection is tried to be made for a relayed one:
// once, and once more on another host.
const DefaultConnectAttempts = 2

// DefaultListenerTimeout bounds the wait for the first bytes of a connection where a listener
// reads them (Envoy's default for listener_filters_timeout).
const DefaultListenerTimeout = 15 * time.Second

// TCPChain is what a listener does with connections whose TLS names one of some servers:
// it relays their bytes.
type TCPChain struct {
	Name string
	// ServerNames are exact names, or *.suffix for all names below one, without regard to
	// case; the longest that matches wins. Empty: all connections that no other chain
	// takes, those without TLS among them.
	ServerNames []string
	TCP         TCPProxy
}

// TCPProxy relays the bytes of a connection to a host of a cluster, and back.
type TCPProxy struct {
	Cluster    string
	StatPrefix string // names the relay in metrics
	// IdleTimeout ends a connection on which no byte has moved either way for so long;
	// 0: never.
	IdleTimeout time.Duration
	// ConnectAttempts is how often it is tried to connect, on hosts that were not tried
	// before if there are any; at least 1.
	ConnectAttempts uint32
}

// ChainMatch says which connections a chain is for. The zero value is all that no other chain
// is for.
type ChainMatch struct {
	// ServerNames are those of TCPChain.
	ServerNames []string
	// Transport is TransportTLS, TransportRaw, or "" for both.
	Transport string
	// Protocols are those that clients of TLS offer by ALPN, and http/1.0, http/1.1 and h2c
	// of those in the clear.
	Protocols []string
}

// The transports, as Envoy calls them.
const (
	TransportTLS = "tls"
	TransportRaw = "raw_buffer"
)

// Chain is what a listener of several kinds of connections does with some of them: it has
// either TCP or HTTP.
type Chain struct {
	Name  string
	Match ChainMatch
	// Default is for connections that no chain is for; it has no Match.
	Default bool
	TLS     *DownstreamTLS // nil: in the clear, or the TLS of a host
	TCP     *TCPProxy
	HTTP    *HTTPManager
}

// HTTPManager serves requests. Its fields are those of a Listener that serves all of its
// connections so.
type HTTPManager struct {
	Route      *RouteConfiguration
	RouteName  string
	StatPrefix string
	HTTP       HTTPOptions
}

// Preface says what a listener reads of a connection before it serves it.
type Preface struct {
	// ProxyProtocol wants a PROXY protocol header of version 1 or 2, and takes the ends of
	// the connection from it. Connections without one are closed.
	ProxyProtocol bool
	// TLS looks at the ClientHello of connections that begin with one.
	TLS bool
	// HTTP looks whether connections that are not TLS begin with HTTP.
	HTTP bool
	// Timeout bounds each of them; > 0 if there is one.
	Timeout time.Duration
	// Continue takes a client that has said nothing within Timeout for one that is neither
	// TLS nor HTTP; otherwise it is closed.
	Continue bool
}
