package codec

import (
	"fmt"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Of a listener that tells its connections apart.

// canonicalChains fills in the defaults, and puts the default chain last.
func canonicalChains(l mesh.Listener) mesh.Listener {
	l.StatPrefix = ""
	l.Chains = slices.Clone(l.Chains)
	for i := range l.Chains {
		c := &l.Chains[i]
		if c.TCP != nil {
			to := *c.TCP
			canonicalProxy(&to, l.Name)
			c.TCP = &to
		}
		if c.HTTP != nil && c.HTTP.StatPrefix == "" {
			manager := *c.HTTP
			manager.StatPrefix = l.Name
			c.HTTP = &manager
		}
	}
	slices.SortStableFunc(l.Chains, func(a, b mesh.Chain) int {
		switch {
		case a.Default == b.Default:
			return 0
		case b.Default:
			return -1
		}
		return 1
	})
	return l
}

func chainsProto(f *faults, m *listenerv3.Listener, l mesh.Listener) {
	for i, c := range l.Chains {
		at := chainPath("", i, c.Default)
		out := &listenerv3.FilterChain{Name: c.Name, TransportSocket: downstreamProto(f, c.TLS)}
		switch {
		case (c.TCP == nil) == (c.HTTP == nil):
			f.add(at, "must have either TCP or HTTP")
		case c.TCP != nil:
			out.Filters = tcpProxyProto(*c.TCP)
		default:
			out.Filters = managerFilter(f, at+".filters[0].typed_config", mesh.Listener{
				Name: l.Name, Route: c.HTTP.Route, RouteName: c.HTTP.RouteName, StatPrefix: c.HTTP.StatPrefix, HTTP: c.HTTP.HTTP,
			})
		}
		if c.Default {
			if m.DefaultFilterChain != nil {
				f.add(at, "there are two")
			}
			m.DefaultFilterChain = out
			continue
		}
		if len(c.Match.ServerNames) > 0 || c.Match.Transport != "" || len(c.Match.Protocols) > 0 {
			out.FilterChainMatch = &listenerv3.FilterChainMatch{
				ServerNames: c.Match.ServerNames, TransportProtocol: c.Match.Transport, ApplicationProtocols: c.Match.Protocols,
			}
		}
		m.FilterChains = append(m.FilterChains, out)
	}
}

// chainPath is the place of a chain: those of filter_chains come before the default one.
func chainPath(path string, i int, isDefault bool) string {
	if isDefault {
		return field(path, "default_filter_chain")
	}
	return item(field(path, "filter_chains"), i)
}

// chainsValue reads the chains of a listener that tells its connections apart.
func chainsValue(f *faults, path string, m *listenerv3.Listener, p mesh.Preface) []mesh.Chain {
	var all []mesh.Chain
	taken := map[string]bool{}
	for i, chain := range m.GetFilterChains() {
		at := chainPath(path, i, false)
		c := chainValue(f, at, chain)
		match := chain.GetFilterChainMatch()
		c.Match = mesh.ChainMatch{
			ServerNames: match.GetServerNames(), Transport: match.GetTransportProtocol(), Protocols: match.GetApplicationProtocols(),
		}
		checkMatch(f, at, c.Match, p, taken)
		checkForwarded(f, at, c, p)
		all = append(all, c)
	}
	if m.GetDefaultFilterChain() != nil {
		c := chainValue(f, chainPath(path, 0, true), m.GetDefaultFilterChain())
		c.Default = true
		checkForwarded(f, chainPath(path, 0, true), c, p)
		all = append(all, c)
	}
	return all
}

func chainValue(f *faults, at string, m *listenerv3.FilterChain) mesh.Chain {
	checkText(f, field(at, "name"), m.GetName())
	c := mesh.Chain{Name: m.GetName(), TLS: downstreamValue(f, field(at, "transport_socket"), m.GetTransportSocket())}
	filters := field(at, "filters")
	if n := len(m.GetFilters()); n != 1 {
		f.add(filters, "must be one, an HTTP connection manager or a TCP proxy, not %d", n)
		return c
	}
	filter := m.GetFilters()[0]
	checkName(f, field(item(filters, 0), "name"), filter.GetName())
	config := field(item(filters, 0), "typed_config")
	if isRelay(m) {
		to := tcpProxyValue(f, config, filter.GetTypedConfig())
		c.TCP = &to
		return c
	}
	var l mesh.Listener
	readManager(f, config, filter.GetTypedConfig(), &l)
	c.HTTP = &mesh.HTTPManager{Route: l.Route, RouteName: l.RouteName, StatPrefix: l.StatPrefix, HTTP: l.HTTP}
	return c
}

// checkForwarded wants the client's address to be that of the socket where several chains are behind it.
func checkForwarded(f *faults, at string, c mesh.Chain, p mesh.Preface) {
	if c.HTTP != nil && c.HTTP.HTTP.Forwarded.RemoteAddress && p.ProxyProtocol {
		f.add(at+".filters[0].typed_config.use_remote_address", "behind a ProxyProtocol is %s for a listener that tells its connections apart: have one chain without filter_chain_match", notSupported)
	}
}

// checkMatch wants what the listener's filters can tell, and every connection in one chain
// at most.
func checkMatch(f *faults, at string, match mesh.ChainMatch, p mesh.Preface, taken map[string]bool) {
	path := field(at, "filter_chain_match")
	if len(match.ServerNames) > 0 && !p.TLS {
		f.add(field(path, "server_names"), "needs a TLS inspector in listener_filters, which reads them")
	}
	checkServerNames(f, field(path, "server_names"), match.ServerNames, map[string]bool{})
	switch match.Transport {
	case "", mesh.TransportRaw:
	case mesh.TransportTLS:
		if !p.TLS {
			f.add(field(path, "transport_protocol"), "needs a TLS inspector in listener_filters, which finds it")
		}
	default:
		f.add(field(path, "transport_protocol"), "%q is %s: it must be tls or raw_buffer", clip(match.Transport), notSupported)
	}
	if len(match.Protocols) > 0 && !p.TLS && !p.HTTP {
		f.add(field(path, "application_protocols"), "needs an HTTP or a TLS inspector in listener_filters, which finds them")
	}
	if len(match.Protocols) > maxALPN {
		f.add(field(path, "application_protocols"), "are %d, more than %d", len(match.Protocols), maxALPN)
	}
	for i, protocol := range match.Protocols {
		if n := len(protocol); n == 0 || n > maxALPNBytes {
			f.add(item(field(path, "application_protocols"), i), "is %d bytes long, not 1 to %d", n, maxALPNBytes)
		}
	}
	for _, name := range orNone(match.ServerNames) {
		for _, protocol := range orNone(match.Protocols) {
			key := fmt.Sprintf("%q %q %q", strings.ToLower(name), match.Transport, protocol)
			if taken[key] {
				f.add(at, "is for connections that another chain is for: those of server name %q, transport_protocol %q, application_protocol %q",
					clip(name), clip(match.Transport), clip(protocol))
			}
			taken[key] = true
		}
	}
}

// orNone stands for a criterion that is not there by an empty value of it.
func orNone(values []string) []string {
	if len(values) == 0 {
		return []string{""}
	}
	return values
}

// checkChainClusters wants every chain of a static listener to lead somewhere.
func checkChainClusters(f *faults, path string, l mesh.Listener, b *Bootstrap, clusters, heralded map[string]bool) {
	for i, c := range l.Chains {
		config := chainPath(path, i, c.Default) + ".filters[0].typed_config"
		switch {
		case c.TCP != nil:
			checkTCPCluster(f, field(config, "cluster"), c.TCP.Cluster, l, b.Clusters)
		case c.HTTP != nil && c.HTTP.Route != nil:
			checkClusters(f, field(config, "route_config"), *c.HTTP.Route, clusters, heralded)
		case c.HTTP != nil && c.HTTP.RouteName != "" && b.ControlPlane == nil:
			f.add(field(config, "rds"), "needs dynamic_resources.ads_config")
		}
	}
}
