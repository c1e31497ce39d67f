package codec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	maxTimeout = 24 * time.Hour
	// maxBody is Envoy's default for max_direct_response_body_size_bytes.
	maxBody = 4096
)

// EncodeRoute encodes a route configuration. It fails if DecodeRoute would
// refuse what came out, with the same faults.
func EncodeRoute(r mesh.RouteConfiguration) (Encoded, error) {
	var f faults
	m := routeProto(&f, "", r)
	checkName(&f, "name", r.Name)
	routeValue(&f, "", m)
	if err := f.err(); err != nil {
		return Encoded{}, fmt.Errorf("encode route %q: %w", clip(r.Name), err)
	}
	return seal(TypeRoute, r.Name, m)
}

// DecodeRoute decodes and validates a route configuration. Its error is an [*Error].
func DecodeRoute(a *anypb.Any) (mesh.RouteConfiguration, error) {
	var f faults
	m := &routev3.RouteConfiguration{}
	if !open(&f, a, TypeRoute, m, routeSubset()) {
		return mesh.RouteConfiguration{}, f.err()
	}
	checkName(&f, "name", m.GetName())
	r := routeValue(&f, "", m)
	if err := f.err(); err != nil {
		return mesh.RouteConfiguration{}, err
	}
	return r, nil
}

// routeProto notes what the message could not express.
func routeProto(f *faults, path string, r mesh.RouteConfiguration) *routev3.RouteConfiguration {
	m := &routev3.RouteConfiguration{Name: r.Name}
	for i, v := range r.VirtualHosts {
		at := item(field(path, "virtual_hosts"), i)
		host := &routev3.VirtualHost{Name: v.Name, Domains: v.Domains}
		for j, one := range v.Routes {
			host.Routes = append(host.Routes, oneRouteProto(f, item(field(at, "routes"), j), one))
		}
		fieldedTo(f, at, v.Fields, &host.RequestHeadersToAdd, &host.ResponseHeadersToAdd, &host.RequestHeadersToRemove, &host.ResponseHeadersToRemove)
		m.VirtualHosts = append(m.VirtualHosts, host)
	}
	fieldedTo(f, path, r.Fields, &m.RequestHeadersToAdd, &m.ResponseHeadersToAdd, &m.RequestHeadersToRemove, &m.ResponseHeadersToRemove)
	return m
}

func oneRouteProto(f *faults, path string, r mesh.Route) *routev3.Route {
	m := &routev3.Route{Name: r.Name, Match: &routev3.RouteMatch{
		PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: r.Match.Prefix},
	}}
	fieldedTo(f, path, r.Fields, &m.RequestHeadersToAdd, &m.ResponseHeadersToAdd, &m.RequestHeadersToRemove, &m.ResponseHeadersToRemove)
	if r.Match.Path != "" {
		m.Match.PathSpecifier = &routev3.RouteMatch_Path{Path: r.Match.Path}
		if r.Match.Prefix != "" {
			f.add(field(path, "match"), "has both a prefix and a path")
		}
	}
	conditionsProto(f, field(path, "match"), m.Match, r.Match.Where)
	if r.Match.Connect {
		m.Match.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
		if r.Match.Path != "" || r.Match.Prefix != "" {
			f.add(field(path, "match"), "is for CONNECT, which has no path, and has one")
		}
	}
	if d := r.Action.Direct; d != nil {
		if r.Action.Cluster != "" || r.Action.Timeout != 0 || r.Action.Host != "" || r.Action.Path != "" {
			f.add(path, "has both a direct response and a forward")
		}
		m.Action = &routev3.Route_DirectResponse{DirectResponse: directProto(*d)}
		if d.Redirect != nil {
			m.Action = &routev3.Route_Redirect{Redirect: redirectProto(f, field(path, "redirect"), *d)}
		}
	} else {
		forward := forwardProto(r.Action)
		if r.Match.Connect {
			forward.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{
				UpgradeType: connectType, ConnectConfig: &routev3.RouteAction_UpgradeConfig_ConnectConfig{},
			}}
		}
		m.Action = &routev3.Route_Route{Route: forward}
	}
	return m
}

func directProto(d mesh.DirectResponse) *routev3.DirectResponseAction {
	m := &routev3.DirectResponseAction{Status: uint32(min(max(d.Status, 0), 9999))}
	if d.Body != "" {
		m.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: d.Body}}
	}
	return m
}

// forwardProto always says the timeout, for Envoy's default is 15 s. grpc-go
// reads max_stream_duration only (gRFC A31) and takes it for the deadline of
// calls that set none or a later one, as Envoy does with grpc-timeout.
func forwardProto(a mesh.RouteAction) *routev3.RouteAction {
	m := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: a.Cluster},
		Timeout:          durationpb.New(a.Timeout),
		PrefixRewrite:    a.Path,
	}
	if a.Host != "" {
		m.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: a.Host}
	}
	if a.Timeout != 0 {
		m.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{
			GrpcTimeoutHeaderMax: durationpb.New(a.Timeout),
		}
	}
	return m
}

// routeValue reads a configuration whose name has been checked: one that comes
// inside a listener needs none.
func routeValue(f *faults, path string, m *routev3.RouteConfiguration) mesh.RouteConfiguration {
	r := mesh.RouteConfiguration{Name: m.GetName(), Fields: fieldsValue(f, path, m)}
	checkText(f, field(path, "name"), m.GetName())
	names, domains := map[string]bool{}, map[string]bool{}
	for i, host := range m.GetVirtualHosts() {
		at := item(field(path, "virtual_hosts"), i)
		checkName(f, field(at, "name"), host.GetName())
		if names[host.GetName()] {
			f.add(field(at, "name"), "%q names two virtual hosts", clip(host.GetName()))
		}
		names[host.GetName()] = true
		checkDomains(f, field(at, "domains"), host.GetDomains(), domains)
		v := mesh.VirtualHost{Name: host.GetName(), Domains: host.GetDomains(), Fields: fieldsValue(f, at, host)}
		for j, one := range host.GetRoutes() {
			v.Routes = append(v.Routes, oneRouteValue(f, item(field(at, "routes"), j), one))
		}
		r.VirtualHosts = append(r.VirtualHosts, v)
	}
	return r
}

// checkDomains holds the domains of a virtual host to Envoy's rules. Those seen
// before, in any case, are in taken.
func checkDomains(f *faults, path string, domains []string, taken map[string]bool) {
	if len(domains) == 0 {
		f.add(path, "must not be empty")
	}
	for i, domain := range domains {
		at := item(path, i)
		key := strings.ToLower(domain)
		inner := strings.TrimSuffix(domain, "*")
		if inner == domain || domain == "*" {
			inner = strings.TrimPrefix(domain, "*")
		}
		switch {
		case taken[key]:
			f.add(at, "%q stands for two virtual hosts", clip(domain))
		case domain == "" || len(domain) > maxName:
			f.add(at, "is %d bytes long, not 1 to %d", len(domain), maxName)
		case strings.Contains(inner, "*"):
			f.add(at, "%q may have one * only, at its beginning or its end", clip(domain))
		default:
			checkText(f, at, domain)
		}
		taken[key] = true
	}
}

func oneRouteValue(f *faults, path string, m *routev3.Route) mesh.Route {
	checkText(f, field(path, "name"), m.GetName())
	r := mesh.Route{Name: m.GetName(), Match: matchValue(f, field(path, "match"), m.GetMatch()), Fields: fieldsValue(f, path, m)}
	switch action := m.GetAction().(type) {
	case *routev3.Route_Route:
		r.Action = forwardValue(f, field(path, "route"), action.Route)
		if r.Match.Connect {
			checkUnwritten(f, field(path, "route"), r.Action)
		}
		if r.Action.Path != "" && m.GetMatch().GetSafeRegex() != nil {
			f.add(field(path, "route.prefix_rewrite"), "with match.safe_regex is %s: there is no prefix whose place it could take", notSupported)
		}
		checkConnect(f, field(path, "route.upgrade_configs"), action.Route.GetUpgradeConfigs(), r.Match.Connect)
	case *routev3.Route_DirectResponse:
		direct := directValue(f, field(path, "direct_response"), action.DirectResponse)
		r.Action = mesh.RouteAction{Direct: &direct}
	case *routev3.Route_Redirect:
		direct := redirectValue(f, field(path, "redirect"), action.Redirect)
		if direct.Redirect.Prefix != "" && m.GetMatch().GetSafeRegex() != nil {
			f.add(field(path, "redirect.prefix_rewrite"), "with match.safe_regex is %s: there is no prefix whose place it could take", notSupported)
		}
		r.Action = mesh.RouteAction{Direct: &direct}
	default:
		f.add(path, "must have route, direct_response or redirect")
	}
	return r
}

// connectType is Envoy's name of the upgrade that CONNECT is to it.
const connectType = "CONNECT"

// checkConnect wants a route of connect_matcher to end CONNECT, which in Envoy is said by
// connect_config, and others to have nothing to do with it: WebSocket they let through anyway.
func checkConnect(f *faults, path string, configs []*routev3.RouteAction_UpgradeConfig, connect bool) {
	if !connect {
		for i, c := range configs {
			if !strings.EqualFold(c.GetUpgradeType(), "websocket") {
				f.add(field(item(path, i), "upgrade_type"), "%q without match.connect_matcher is %s: it must be websocket", clip(c.GetUpgradeType()), notSupported)
			}
			if c.GetConnectConfig() != nil {
				f.add(field(item(path, i), "connect_config"), "without match.connect_matcher is %s", notSupported)
			}
			if c.GetEnabled() != nil && !c.GetEnabled().GetValue() {
				f.add(field(item(path, i), "enabled"), "must be true: upgrades are let through")
			}
		}
		return
	}
	if len(configs) != 1 || configs[0].GetUpgradeType() != connectType || configs[0].GetConnectConfig() == nil {
		f.add(path, "must be [{upgrade_type: CONNECT, connect_config: {}}] with match.connect_matcher: the tunnel ends here, and its bytes go to the cluster")
	}
}

func matchValue(f *faults, path string, m *routev3.RouteMatch) mesh.RouteMatch {
	where := conditionsValue(f, path, m)
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
		f.add(field(path, "case_sensitive"), "must be true: /a and /A are two paths (RFC 9110 §4.2.3)")
	}
	switch by := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if by.Prefix != "" {
			checkPath(f, field(path, "prefix"), by.Prefix)
		}
		return mesh.RouteMatch{Prefix: by.Prefix, Where: where}
	case *routev3.RouteMatch_Path:
		checkPath(f, field(path, "path"), by.Path)
		return mesh.RouteMatch{Path: by.Path, Where: where}
	}
	if by := m.GetSafeRegex(); by != nil {
		c := mesh.Condition{Of: mesh.OfPath, How: mesh.WhereRegex, Value: regexValue(f, field(path, "safe_regex.regex"), by)}
		checkCompared(f, field(path, "safe_regex"), c)
		return mesh.RouteMatch{Where: append(where, c)}
	}
	if m.GetConnectMatcher() != nil {
		if len(where) > 0 {
			f.add(field(path, "connect_matcher"), "with headers, query_parameters or grpc is %s: leave them out", notSupported)
		}
		return mesh.RouteMatch{Connect: true}
	}
	f.add(path, "must have prefix, path, safe_regex or connect_matcher")
	return mesh.RouteMatch{}
}

// checkPath refuses what no request's path could match.
func checkPath(f *faults, path, value string) {
	switch {
	case !strings.HasPrefix(value, "/"):
		f.add(path, "%q does not begin with /", clip(value))
	case strings.ContainsAny(value, "?#"):
		f.add(path, "%q contains ? or #, which no path does", clip(value))
	default:
		checkText(f, path, value)
	}
}

func forwardValue(f *faults, path string, m *routev3.RouteAction) mesh.RouteAction {
	if _, ok := m.GetClusterSpecifier().(*routev3.RouteAction_Cluster); ok {
		checkName(f, field(path, "cluster"), m.GetCluster())
	} else {
		f.add(path, "must have cluster")
	}
	a := mesh.RouteAction{
		Cluster: m.GetCluster(),
		Timeout: duration(f, field(path, "timeout"), m.GetTimeout(), mesh.DefaultRequestTimeout, 0, maxTimeout),
	}
	if a.Host = m.GetHostRewriteLiteral(); a.Host != "" && !isAuthority(a.Host) {
		f.add(field(path, "host_rewrite_literal"), "is %q, not a host, with or without a port", clip(a.Host))
	}
	if a.Path = m.GetPrefixRewrite(); a.Path != "" {
		checkPath(f, field(path, "prefix_rewrite"), a.Path)
		if len(a.Path) > maxName {
			f.add(field(path, "prefix_rewrite"), "is %d bytes long, more than %d", len(a.Path), maxName)
		}
	}
	if header := m.GetMaxStreamDuration().GetGrpcTimeoutHeaderMax(); header != nil && header.AsDuration() != a.Timeout {
		f.add(field(path, "max_stream_duration.grpc_timeout_header_max"),
			"is %s, not the route's timeout of %s: another limit is %s", durationText(header), short(a.Timeout), notSupported)
	}
	return a
}

// isAuthority reports whether s is a host, of IPv6 in brackets, with or without a port.
func isAuthority(s string) bool {
	host := s
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		host = s[:colon]
		if n, err := strconv.ParseUint(s[colon+1:], 10, 16); err != nil || n == 0 {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && ip.Is6() && ip.Zone() == "" && strings.HasSuffix(host, "]")
	}
	return isHost(host) && !strings.Contains(host, ":")
}

// checkUnwritten wants nothing to be changed of CONNECT, of whose head the cluster's hosts get nothing.
func checkUnwritten(f *faults, path string, a mesh.RouteAction) {
	if a.Host != "" {
		f.add(field(path, "host_rewrite_literal"), "with match.connect_matcher has no effect: hosts get the tunnel's bytes only")
	}
	if a.Path != "" {
		f.add(field(path, "prefix_rewrite"), "with match.connect_matcher has no effect: CONNECT has no path")
	}
}

func directValue(f *faults, path string, m *routev3.DirectResponseAction) mesh.DirectResponse {
	if s := m.GetStatus(); s < 200 || s > 599 {
		f.add(field(path, "status"), "is %d, not 200 to 599", s)
	}
	body := m.GetBody().GetInlineString()
	if len(body) > maxBody {
		f.add(field(path, "body.inline_string"), "is %d bytes long, more than %d", len(body), maxBody)
	}
	return mesh.DirectResponse{Status: int(m.GetStatus()), Body: body}
}
