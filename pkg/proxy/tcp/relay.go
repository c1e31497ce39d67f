package tcp

import (
	"context"
	"net"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

// Config is what a Relay needs. Fields without a default are required.
type Config struct {
	// Routes has the routes for the names of servers.
	Routes *Routes
	// Find, if it is set, finds the one route of all connections instead. It may block until
	// the route is known or ctx ends; the reason is None exactly if there is one. A connection
	// without one is reset.
	Find func(ctx context.Context) (*Route, reason.Reason)
	// Authority is what the log says was asked for, where no server's name says it.
	Authority []byte
	// Clock returns monotonic nanoseconds, as all of upstream uses.
	Clock func() int64
	// Source names the listener for connections that find no route, in metrics and log.
	Source string
	// Unrouted counts those.
	Unrouted *metrics.Connections
	Access   *accesslog.Log // nil: no access log
	// ProxyProtocol wants a PROXY protocol header in front of each connection.
	ProxyProtocol bool
	// TLS looks at the ClientHello of connections that begin with one, for their routes.
	TLS bool
	// HTTP looks whether connections that are not TLS begin with HTTP.
	HTTP bool
	// Knocks answers clients that knock, as sidecars do, once their host is connected to. It is
	// for a listener without TLS whose hosts are called in the clear.
	Knocks bool
	// KnockTimeout is how long a client's knock is waited for when its host has ended its side without a
	// word, before that is passed on. Default 1 s.
	KnockTimeout time.Duration
	// Continue takes a client that has not said what it is within PrefaceTimeout for one that
	// is neither; otherwise it is closed.
	Continue bool
	// PrefaceTimeout bounds the wait for each, and for a client's handshake. Default 15 s.
	PrefaceTimeout time.Duration
	// Grace is how long a client may still begin once a host has spoken that opaque bytes would go to, where it is not
	// known yet that clients wait for it: one on the same machine is faster than any client. Default 100 ms.
	Grace time.Duration
	// MaxPipes bounds how many connections may be spliced at one moment, each of which
	// takes two descriptors and some memory of the kernel's for that moment; others are
	// copied. Default 64.
	MaxPipes int
}

func (c Config) withDefaults() Config {
	if c.PrefaceTimeout == 0 {
		c.PrefaceTimeout = 15 * time.Second
	}
	if c.KnockTimeout == 0 {
		c.KnockTimeout = time.Second
	}
	if c.Grace == 0 {
		c.Grace = 100 * time.Millisecond
	}
	if c.MaxPipes == 0 {
		c.MaxPipes = 64
	}
	return c
}

// Relay makes of a listener's connections what they are relayed by. It is safe for
// concurrent use.
type Relay struct {
	config Config
	wall   time.Time // at clock 0
	pipes  pipes

	opaque  *Route // of what is neither TLS nor HTTP; nil: it is not connected to ahead
	answers answers
}

// New makes a relay. Whoever made it closes it.
func New(config Config) *Relay {
	config = config.withDefaults()
	r := &Relay{
		config: config,
		wall:   time.Now().Add(-time.Duration(config.Clock())),
		pipes:  pipes{limit: config.MaxPipes},
	}
	if config.Routes != nil {
		r.opaque = config.Routes.opaque()
	}
	return r
}

// Accept takes a connection, which its Serve will close.
func (r *Relay) Accept(nc net.Conn) *Conn {
	c := &Conn{relay: r, client: newEnd(nc)}
	c.began = r.config.Clock()
	return c
}

// Close closes what is kept for connections to come. Those under way go on.
func (r *Relay) Close() { r.pipes.close() }
