package codec

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// redirects are Envoy's names of the statuses.
func redirects() map[routev3.RedirectAction_RedirectResponseCode]int {
	return map[routev3.RedirectAction_RedirectResponseCode]int{
		routev3.RedirectAction_MOVED_PERMANENTLY:  301,
		routev3.RedirectAction_FOUND:              302,
		routev3.RedirectAction_SEE_OTHER:          303,
		routev3.RedirectAction_TEMPORARY_REDIRECT: 307,
		routev3.RedirectAction_PERMANENT_REDIRECT: 308,
	}
}

func redirectProto(f *faults, path string, d mesh.DirectResponse) *routev3.RedirectAction {
	r := d.Redirect
	m := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: uint32(r.Port), StripQuery: r.StripQuery, ResponseCode: -1}
	for code, status := range redirects() {
		if status == d.Status {
			m.ResponseCode = code
		}
	}
	if r.Scheme != "" {
		m.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.Path != "" && r.Prefix != "", d.Body != "":
		f.add(path, "has both a path and a prefix, or a body")
	case r.Path != "":
		m.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path}
	case r.Prefix != "":
		m.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: r.Prefix}
	}
	return m
}

func redirectValue(f *faults, path string, m *routev3.RedirectAction) mesh.DirectResponse {
	r := &mesh.Redirect{Host: m.GetHostRedirect(), Path: m.GetPathRedirect(), Prefix: m.GetPrefixRewrite(), StripQuery: m.GetStripQuery()}
	status, ok := redirects()[m.GetResponseCode()]
	if !ok {
		f.add(field(path, "response_code"), "%s is %s", m.GetResponseCode(), notSupported)
	}
	switch r.Scheme = strings.ToLower(m.GetSchemeRedirect()); {
	case m.GetHttpsRedirect():
		r.Scheme = "https"
	case r.Scheme != "" && r.Scheme != "http" && r.Scheme != "https":
		f.add(field(path, "scheme_redirect"), "%q is %s: it must be http or https", clip(r.Scheme), notSupported)
	}
	if r.Host != "" && !isAuthority(r.Host) {
		f.add(field(path, "host_redirect"), "is %q, not a host, with or without a port", clip(r.Host))
	}
	if m.GetPortRedirect() > 65535 {
		f.add(field(path, "port_redirect"), "is %d, not 1 to 65535", m.GetPortRedirect())
	}
	r.Port = uint16(min(m.GetPortRedirect(), 65535))
	if r.Path != "" {
		whole, _, _ := strings.Cut(r.Path, "?")
		checkPath(f, field(path, "path_redirect"), whole)
		checkURI(f, field(path, "path_redirect"), r.Path)
	}
	if r.Prefix != "" {
		checkPath(f, field(path, "prefix_rewrite"), r.Prefix)
		checkURI(f, field(path, "prefix_rewrite"), r.Prefix)
	}
	return mesh.DirectResponse{Status: status, Redirect: r}
}

// checkURI wants what may stand in a URL, whose other characters are percent-encoded (RFC 3986 §2).
func checkURI(f *faults, path, text string) {
	if len(text) > maxName {
		f.add(path, "is %d bytes long, more than %d", len(text), maxName)
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		f.add(path, "%q has characters that a URL has percent-encoded", clip(text))
	}
}
