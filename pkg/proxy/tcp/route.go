package tcp

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// Route is where connections go. It does not change.
type Route struct {
	// HTTP takes connections instead of the relay, which does not touch them any further:
	// what it has looked at is still to be read. It blocks at most until they are taken, or
	// there is nobody any more to take them. All but Name is nothing then; nil: they are
	// relayed.
	HTTP func(net.Conn)

	Name        string // of the chain, for the log
	Source      string // who connects, for the log
	Destination string // the cluster's name, for the log
	Cluster     *upstream.Cluster
	Counted     *metrics.Connections
	TLS         *mtls.Server // ends the client's TLS; nil: its bytes are relayed as they are
	// IdleTimeout ends a connection on which no byte has moved for so long; 0: never.
	IdleTimeout time.Duration
	// Attempts is how often it is tried to connect; at least 1.
	Attempts int
}

// Transport is what a connection begins with.
type Transport uint8

// The transports. AnyTransport is for a Match only.
const (
	AnyTransport Transport = iota
	RawBuffer
	TLS
)

// Match says which connections take a route. The zero value is all that no other route is for.
type Match struct {
	// ServerNames are exact names, or *.suffix for all names below one, without regard to case.
	ServerNames []string
	Transport   Transport
	// Protocols are those that a TLS client offers by ALPN, and of others http/1.1 or
	// http/1.0, which are not told apart, and h2c.
	Protocols []string
}

// Routes finds the route for a connection as Envoy does: by the name of the server, the
// longest that there is; then by the transport; then by the first of its protocols that
// there is. Each decides among what is left by those before, and what one has left out does
// not come back: a connection that finds nothing then takes the fallback. It does not change
// once it is in use.
type Routes struct {
	exact    map[string]*transports
	below    map[string]*transports // by the suffix, with its first dot
	others   *transports
	fallback *Route // nil: there is none
}

type transports [TLS + 1]*protocols // by Transport

type protocols struct {
	named map[string]*Route
	any   *Route
}

// Fallback lets connections take a route that no other is for.
func (r *Routes) Fallback(route *Route) { r.fallback = route }

// Add lets connections take a route. It fails for what has a route already.
func (r *Routes) Add(match Match, route *Route) error {
	if r.exact == nil {
		r.exact, r.below = map[string]*transports{}, map[string]*transports{}
	}
	if len(match.ServerNames) == 0 {
		if r.others == nil {
			r.others = &transports{}
		}
		return r.others.add(match, "all servers", route)
	}
	for _, name := range match.ServerNames {
		byName, key := r.exact, strings.ToLower(name)
		if suffix, ok := strings.CutPrefix(key, "*"); ok {
			byName, key = r.below, suffix
		}
		if byName[key] == nil {
			byName[key] = &transports{}
		}
		if err := byName[key].add(match, name, route); err != nil {
			return err
		}
	}
	return nil
}

func (t *transports) add(match Match, name string, route *Route) error {
	if t[match.Transport] == nil {
		t[match.Transport] = &protocols{named: map[string]*Route{}}
	}
	p := t[match.Transport]
	if len(match.Protocols) == 0 {
		if p.any != nil {
			return fmt.Errorf("two chains are for the same connections to %s", name)
		}
		p.any = route
	}
	for _, protocol := range match.Protocols {
		if p.named[protocol] != nil {
			return fmt.Errorf("two chains are for the same connections to %s of protocol %q", name, protocol)
		}
		p.named[protocol] = route
	}
	return nil
}

// find returns the route for a connection; nil if there is none. It does not allocate.
func (r *Routes) find(seen *seen) *Route {
	by := r.byName(seen.server)
	if by == nil {
		return r.fallback
	}
	p := by[RawBuffer]
	if seen.tls {
		p = by[TLS]
	}
	if p == nil {
		p = by[AnyTransport]
	}
	if p == nil {
		return r.fallback
	}
	for i := 0; i < len(seen.protocols) && len(p.named) > 0; {
		n := int(seen.protocols[i])
		if route := p.named[string(seen.protocols[i+1:i+1+n])]; route != nil {
			return route
		}
		i += 1 + n
	}
	if p.any != nil {
		return p.any
	}
	return r.fallback
}

func (r *Routes) byName(name []byte) *transports {
	var lower [256]byte
	if len(name) == 0 || len(name) > len(lower) {
		return r.others
	}
	key := lower[:len(name)]
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		key[i] = c
	}
	if found := r.exact[string(key)]; found != nil {
		return found
	}
	for dot := bytes.IndexByte(key, '.'); dot >= 0; dot = bytes.IndexByte(key, '.') {
		if found := r.below[string(key[dot:])]; found != nil {
			return found
		}
		key = key[dot+1:]
	}
	return r.others
}

// seen is what was seen of a connection before its route is found.
type seen struct {
	tls       bool
	server    []byte // the name of the server; empty: none
	protocols []byte // names, each behind a byte with its length
}

// opaque is the route of what is neither TLS nor HTTP, nil if that is not relayed as it comes.
func (r *Routes) opaque() *Route {
	route := r.find(&seen{})
	if route == nil || route.HTTP != nil || route.TLS != nil {
		return nil
	}
	return route
}
