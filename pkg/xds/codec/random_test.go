package codec

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// source makes random valid values, the same for the same seed.
type source struct{ *rand.Rand }

func newSource(seed uint64) source { return source{rand.New(rand.NewPCG(seed, 1))} }

func (s source) name() string {
	return fmt.Sprintf("svc-%d.ns-%d:p%d", s.IntN(50), s.IntN(5), s.IntN(3))
}

func (s source) zone() string { return []string{"", "a", "b", "eu-west-1c"}[s.IntN(4)] }

func (s source) between(low, high time.Duration) time.Duration {
	return low + time.Duration(s.Int64N(int64(high-low)+1))
}

func (s source) ip() netip.Addr {
	if s.IntN(3) == 0 {
		return netip.AddrFrom16([16]byte{0xfd, 1, 15: byte(1 + s.IntN(250))})
	}
	return netip.AddrFrom4([4]byte{10, byte(s.IntN(3)), byte(s.IntN(3)), byte(1 + s.IntN(250))})
}

func (s source) endpoints(cluster string) mesh.LoadAssignment {
	a := mesh.LoadAssignment{Cluster: cluster}
	for range s.IntN(12) {
		a.Endpoints = append(a.Endpoints, mesh.Endpoint{
			Instance: []string{"", fmt.Sprintf("i-%d", s.IntN(99))}[s.IntN(2)],
			Address:  netip.AddrPortFrom(s.ip(), uint16(1+s.IntN(65535))),
			Weight:   1 + s.Uint32N(maxWeight),
			Zone:     s.zone(),
			Health:   mesh.Health(s.IntN(4)),
			Sidecar:  s.IntN(2) == 0,
		})
	}
	a.Endpoints, _ = UniqueAddresses(a.Endpoints)
	return a
}

// breaker leaves about half of the fields to their defaults.
func (s source) breaker() mesh.Breaker {
	maybe := func(high uint32) uint32 { return (1 + s.Uint32N(high)) * s.Uint32N(2) }
	b := mesh.Breaker{
		Disabled:            s.IntN(5) == 0,
		ConsecutiveFailures: maybe(maxConsecutive),
		FailurePercent:      maybe(100),
		MinimumRequests:     maybe(maxMinimum),
		HalfOpenRequests:    maybe(maxProbes),
		MaxEjectionPercent:  maybe(100),
		PanicPercent:        maybe(100),
	}
	if s.IntN(2) == 0 {
		b.Window = s.between(minWindow, maxWindow)
		b.OpenTime = s.between(minOpen, maxOpen)
		b.MaxOpenTime = s.between(b.OpenTime, maxMaxOpen)
	}
	return b
}

func (s source) cluster() mesh.Cluster {
	c := mesh.Cluster{
		Name:           s.name(),
		Protocol:       mesh.Protocol(s.IntN(4)), // all but TCP
		LB:             mesh.LBPolicy(s.IntN(4)),
		Breaker:        s.breaker(),
		ConnectTimeout: s.between(time.Millisecond, maxConnectTimeout),
		MaxRequests:    s.Uint32N(unlimited) * s.Uint32N(2),
		MaxConnections: s.Uint32N(unlimited) * s.Uint32N(2),

		MaxPendingRequests: s.Uint32N(unlimited) * s.Uint32N(2),
	}
	if s.IntN(2) == 0 {
		c.ProxyProtocol = mesh.ProxyVersion(s.IntN(3))
	} else {
		c.TLS = &mesh.UpstreamTLS{TLS: s.tls(s.IntN(2)), SNI: []string{"", "a.example", "::1"}[s.IntN(3)]}
		if c.Protocol == mesh.ProtocolUnspecified && s.IntN(2) == 0 {
			c.ALPN, c.TLS.ALPN = true, nil
		}
	}
	if c.Protocol != mesh.ProtocolUnspecified || c.ALPN {
		c.MaxRequestsPerConnection = s.Uint32N(1<<31) * s.Uint32N(2)
		c.IdleTimeout = s.between(time.Millisecond, maxTimeout) * time.Duration(s.IntN(2))
		c.MaxConnectionDuration, c.MaxConnectionJitter = s.lifetime()
	}
	if c.Protocol == mesh.ProtocolHTTP2 || c.Protocol == mesh.ProtocolGRPC || c.ALPN {
		c.HTTP2 = s.http2(maxHostStreams)
	}
	if s.IntN(2) == 0 {
		static := s.endpoints(c.Name)
		c.Static = &static
	}
	if s.IntN(2) == 0 {
		c.TCPKeepalive = mesh.TCPKeepalive{Time: time.Duration(s.IntN(32768)) * time.Second, Interval: time.Duration(s.IntN(32768)) * time.Second, Probes: s.Uint32N(128)}
	}
	return c
}

func (s source) tls(certificates int) mesh.TLS {
	t := mesh.TLS{
		CA:         []string{"", "/etc/ca.pem"}[s.IntN(2)],
		MinVersion: mesh.TLSVersion(s.IntN(3)),
		ALPN:       [][]string{nil, {"h2"}, {"h2", "http/1.1"}}[s.IntN(3)],
	}
	if s.IntN(2) == 0 {
		t.MaxVersion = max(t.MinVersion, mesh.TLSVersion(s.IntN(3)))
	}
	for range certificates {
		t.Certificates = append(t.Certificates, mesh.KeyPair{Chain: "/etc/" + s.name(), Key: "/etc/key ß.pem"})
	}
	for range s.IntN(4) * len(t.CA) / len("/etc/ca.pem") {
		t.SANs = append(t.SANs, []mesh.SANMatch{
			{Type: mesh.SANDNS, Kind: mesh.MatchKind(s.IntN(3)), Value: s.name()},
			{Type: mesh.SANURI, Kind: mesh.MatchKind(s.IntN(3)), Value: "spiffe://td/"},
			{Type: mesh.SANIP, Value: s.ip().String()},
		}[s.IntN(3)])
	}
	return t
}

func (s source) route(name string) mesh.RouteConfiguration {
	r := mesh.RouteConfiguration{Name: name}
	for i := range s.IntN(4) {
		v := mesh.VirtualHost{Name: fmt.Sprintf("host-%d", i), Domains: []string{fmt.Sprintf("a%d.example", i)}}
		v.Domains = append(v.Domains, fmt.Sprintf("*.b%d", i), fmt.Sprintf("C%d.*", i))
		for range s.IntN(4) {
			v.Routes = append(v.Routes, s.oneRoute())
		}
		r.VirtualHosts = append(r.VirtualHosts, v)
	}
	if s.IntN(2) == 0 {
		r.VirtualHosts = append(r.VirtualHosts, mesh.VirtualHost{Name: "rest", Domains: []string{"*"}})
	}
	return r
}

func (s source) oneRoute() mesh.Route {
	r := mesh.Route{Name: []string{"", "r", "ß / é"}[s.IntN(3)]}
	if s.IntN(2) == 0 {
		r.Fields.Request = []mesh.FieldChange{{Name: "x-a"}, {Name: "X-B", How: mesh.FieldAction(1 + s.IntN(4)), Value: []string{"", "50%"}[s.IntN(2)]}}
		r.Fields.Response = []mesh.FieldChange{{Name: "x-c", How: mesh.FieldAppend, Value: "d"}}
	}
	switch s.IntN(4) {
	case 2:
		r.Match.Connect = true
	case 0:
		r.Match.Prefix = "/api/" + s.zone()
	case 1:
		r.Match.Path = "/exact"
	}
	if !r.Match.Connect && s.IntN(2) == 0 {
		r.Match.Where = []mesh.Condition{
			{Name: ":method", How: mesh.WhereExact, Value: "GET", Invert: s.IntN(2) == 0, IgnoreCase: s.IntN(2) == 0},
			{Name: "x-a", How: mesh.WherePresent, Invert: s.IntN(2) == 0, MissingIsEmpty: s.IntN(2) == 0},
			{Name: "x-b", How: mesh.WhereRange, Low: -s.Int64N(9), High: 1 + s.Int64N(9)},
			{Of: mesh.OfParameter, Name: "q", How: mesh.ConditionHow(1 + s.IntN(5)), Value: "a"},
			{Of: mesh.OfParameter, Name: "p", How: mesh.WherePresent, Invert: s.IntN(2) == 0},
			{Of: mesh.OfGRPC},
		}
	}
	if r.Match.Path == "" && r.Match.Prefix == "" && !r.Match.Connect && s.IntN(2) == 0 {
		r.Match.Where = append(r.Match.Where, mesh.Condition{Of: mesh.OfPath, How: mesh.WhereRegex, Value: "/[a-z]+"})
		r.Action.Cluster = s.name()
		return r
	}
	if s.IntN(8) == 0 {
		r.Action.Direct = &mesh.DirectResponse{Status: []int{301, 302, 303, 307, 308}[s.IntN(5)], Redirect: &mesh.Redirect{
			Scheme: []string{"", "http", "https"}[s.IntN(3)], Host: []string{"", "a.example", "a:80"}[s.IntN(3)], Port: uint16(s.IntN(2) * s.IntN(65536)),
			Path: []string{"", "/a", "/a?b"}[s.IntN(3)], StripQuery: s.IntN(2) == 0,
		}}
		return r
	}
	if s.IntN(4) == 0 {
		r.Action.Direct = &mesh.DirectResponse{Status: 200 + s.IntN(400), Body: []string{"", "sorry\n"}[s.IntN(2)]}
		return r
	}
	r.Action.Cluster = s.name()
	if !r.Match.Connect {
		r.Action.Host = []string{"", "a.example:80", "[::1]"}[s.IntN(3)]
		r.Action.Path = []string{"", "/", "/v2/"}[s.IntN(3)]
	}
	r.Action.Timeout = s.between(0, maxTimeout) * time.Duration(s.IntN(2))
	return r
}

// chains has one for all connections, and if their names are known, one for some.
func (s source) chains(named bool) []mesh.TCPChain {
	var all []mesh.TCPChain
	if named {
		all = append(all, mesh.TCPChain{Name: "named", ServerNames: []string{"a.example", "*.B.example"}[s.IntN(2):]})
	}
	all = append(all, mesh.TCPChain{})
	for i := range all {
		all[i].TCP = mesh.TCPProxy{
			Cluster:         s.name(),
			StatPrefix:      []string{"", "in"}[s.IntN(2)],
			IdleTimeout:     s.between(0, maxTimeout) * time.Duration(s.IntN(2)),
			ConnectAttempts: s.Uint32N(maxConnectAttempts + 1),
		}
	}
	return all
}

// told has chains of both kinds, told apart by all that there is.
func (s source) told() []mesh.Chain {
	tcp := s.chains(false)[0].TCP
	route := s.route("inline")
	all := []mesh.Chain{
		{Name: "http", Match: mesh.ChainMatch{Transport: mesh.TransportRaw, Protocols: []string{"http/1.1", "h2c"}},
			HTTP: &mesh.HTTPManager{Route: &route, StatPrefix: []string{"", "in"}[s.IntN(2)], HTTP: s.options()}},
		{Match: mesh.ChainMatch{ServerNames: []string{"a.example", "*.b.example"}, Transport: mesh.TransportTLS}, TCP: &tcp,
			TLS: &mesh.DownstreamTLS{TLS: s.tls(1)}},
	}
	rest := mesh.Chain{Name: "rest", Default: s.IntN(2) == 0, TCP: &tcp}
	if s.IntN(2) == 0 {
		rest.TCP, rest.HTTP = nil, &mesh.HTTPManager{RouteName: s.name()}
	}
	return append(all, rest)
}

// options leaves about half of the fields to their defaults.
func (s source) options() mesh.HTTPOptions {
	o := mesh.HTTPOptions{
		Codec:                    mesh.HTTPCodec(s.IntN(3)),
		IdleTimeout:              s.between(time.Millisecond, maxTimeout) * time.Duration(s.IntN(2)),
		MaxRequestsPerConnection: s.Uint32N(1<<31) * s.Uint32N(2),
		HTTP2Options:             s.http2(maxStreams),
	}
	o.MaxConnectionDuration, o.MaxConnectionJitter = s.lifetime()
	if s.IntN(2) == 0 {
		o.Forwarded = mesh.Forwarded{RemoteAddress: true, SkipAppend: s.IntN(2) == 0, TrustedHops: s.Uint32N(3)}
	}
	o.HeadTimeout = s.between(time.Millisecond, maxTimeout) * time.Duration(s.IntN(2))
	return o
}

// lifetime is how old a connection may get, and its jitter.
func (s source) lifetime() (time.Duration, int32) {
	if s.IntN(2) == 0 {
		return 0, 0
	}
	return s.between(time.Millisecond, maxTimeout), []int32{mesh.DefaultConnectionJitter, 0, s.Int32N(101)}[s.IntN(3)]
}

func (s source) http2(streams uint32) mesh.HTTP2Options {
	maybe := func(low, high uint32) uint32 { return (low + s.Uint32N(high-low)) * s.Uint32N(2) }
	o := mesh.HTTP2Options{
		MaxConcurrentStreams:    maybe(1, streams),
		InitialStreamWindow:     maybe(minFlow, maxFlow),
		InitialConnectionWindow: maybe(minFlow, maxFlow),
	}
	if s.IntN(2) == 0 {
		o.Keepalive.Timeout = s.between(time.Millisecond, maxTimeout)
		if s.IntN(2) == 0 {
			o.Keepalive.Interval, o.Keepalive.Jitter = s.between(time.Millisecond, maxTimeout), s.Uint32N(101)
		}
	}
	return o
}

func (s source) listener() mesh.Listener {
	l := mesh.Listener{Name: s.name(), StatPrefix: []string{"", "in"}[s.IntN(2)]}
	if s.IntN(2) == 0 {
		l.Address = netip.AddrPortFrom(s.ip(), uint16(s.IntN(65536)))
		l.Preface = mesh.Preface{ProxyProtocol: s.IntN(2) == 0, TLS: s.IntN(2) == 0}
		if (l.Preface.ProxyProtocol || l.Preface.TLS) && s.IntN(2) == 0 {
			l.Preface.Timeout = s.between(time.Millisecond, maxPrefaceTimeout)
		}
		if s.IntN(4) == 0 {
			l.Preface = mesh.Preface{TLS: true, HTTP: true, ProxyProtocol: s.IntN(2) == 0, Continue: s.IntN(2) == 0}
			l.Chains = s.told()
			for _, c := range l.Chains {
				if c.HTTP != nil && l.Preface.ProxyProtocol {
					c.HTTP.HTTP.Forwarded = mesh.Forwarded{}
				}
			}
			return l
		}
		if s.IntN(2) == 0 {
			l.TCP = s.chains(l.Preface.TLS)
			return l
		}
		if s.IntN(2) == 0 {
			l.TLS = &mesh.DownstreamTLS{TLS: s.tls(1 + s.IntN(3))}
			l.TLS.RequireClientCertificate = l.TLS.CA != "" && s.IntN(2) == 0
		}
	} else if s.IntN(3) == 0 {
		l.TCP = s.chains(false)
	}
	if s.IntN(2) == 0 {
		l.HTTP = s.options()
	}
	if s.IntN(2) == 0 {
		route := s.route([]string{"", "inline"}[s.IntN(2)])
		l.Route = &route
	} else {
		l.RouteName = s.name()
	}
	return l
}
