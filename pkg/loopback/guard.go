// Package loopback keeps web pages away from ports that have no passwords because
// only this machine reaches them.
package loopback

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Guard refuses what web pages can make a browser on this machine send to its
// loopback. The port has no passwords, so being able to connect is the only
// right there is, and a browser has it. Two attacks follow:
//
// DNS rebinding: a page of evil.example changes the address of its own name to
// 127.0.0.1 and then reads this port as its own origin. Such a request carries
// the page's name as Host. No name that an outsider controls gets through, as
// only localhost and IP addresses do.
//
// Cross-site requests: a page sends a form or a fetch here, whose answer it
// cannot read but whose effect it may like. Browsers mark those with
// Sec-Fetch-Site (Fetch Metadata), older ones with Origin (RFC 6454 §7) where
// it matters most. Following a link to a page here is allowed.
//
// Programs that are no browsers send neither header and are not held up.
//
// what names the port in the refusals, as in "the admin port". Answers are marked
// as not to be cached or framed.
func Guard(what string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		// frame-ancestors: nobody is to click the buttons inside another page.
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
		switch {
		case !isLocal(r.Host):
			http.Error(w, what+" answers to localhost or an IP address as Host only", http.StatusForbidden)
		case !sameSite(r):
			http.Error(w, what+" takes no requests from pages of other sites", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isLocal reports whether host, with or without a port, is localhost or an IP
// address. Any address will do, so that a probe of the pod's address gets in:
// what makes rebinding work is a name. A request without Host is of HTTP/1.0,
// which no browser speaks.
func isLocal(host string) bool {
	if host == "" {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	_, err = netip.ParseAddr(name)
	return err == nil
}

func sameSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		// "null", of sandboxed pages, has no host and is refused.
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, r.Host) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	default:
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		return reads && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	}
}
