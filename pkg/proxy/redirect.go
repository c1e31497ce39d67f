package proxy

import (
	"bytes"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// redirect says where the client is to go instead (RFC 9110 §10.2.2), if the route does.
func (x *exchange) redirect(e *table.Entry) {
	r, h := e.Direct.Redirect, &x.request
	if r == nil {
		return
	}
	scheme, host, path := []byte("http"), h.Authority, h.Path
	if h.Scheme != nil {
		scheme = h.Scheme
	}
	to := scheme
	if r.Scheme != "" {
		to = []byte(r.Scheme)
	}
	switch {
	case r.Host != "":
		host = []byte(r.Host)
	case r.Port != 0, !bytes.EqualFold(scheme, to) && hasDefaultPort(host, scheme):
		host = withoutPort(host)
	}
	query := []byte(nil)
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		path, query = path[:i], path[i:]
	}
	if r.StripQuery {
		query = nil
	}
	var location []byte
	if len(host) > 0 { // of HTTP/1.0 there may be none: then it is on the same one
		location = append(append(append(location, to...), "://"...), host...)
		if r.Port != 0 {
			location = strconv.AppendUint(append(location, ':'), uint64(r.Port), 10)
		}
	}
	switch {
	case r.Path != "":
		location = append(location, r.Path...)
		if bytes.IndexByte([]byte(r.Path), '?') >= 0 {
			query = nil
		}
	case len(path) == 0 || path[0] != '/': // OPTIONS *
		location = append(location, '/')
	case r.Prefix != "":
		location = append(append(location, r.Prefix...), path[e.Matched:]...)
	default:
		location = append(location, path...)
	}
	x.response.Add(wire.Other, "location", append(location, query...))
}

// withoutPort returns the host of an authority.
func withoutPort(authority []byte) []byte {
	if colon := bytes.LastIndexByte(authority, ':'); colon > bytes.LastIndexByte(authority, ']') {
		return authority[:colon]
	}
	return authority
}

// hasDefaultPort reports whether an authority says the port that the scheme has without a word.
func hasDefaultPort(authority, scheme []byte) bool {
	port := authority[len(withoutPort(authority)):]
	return string(port) == ":80" && bytes.EqualFold(scheme, []byte("http")) || string(port) == ":443" && bytes.EqualFold(scheme, []byte("https"))
}
