// Package route compiles a route configuration into what a request is matched
// against: authority to virtual host, path to route, route to an index. It knows
// nothing of what stands at the index.
package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// NoMatch is returned where no route matches.
const NoMatch = -1

// maxAuthority is the longest authority that is matched: a DNS name with a port
// is shorter (RFC 1035 §2.3.4).
const maxAuthority = 272

// Matcher finds the route of a request. It is immutable.
type Matcher struct {
	exact    map[string]*host
	suffixes []pattern // longest first
	prefixes []pattern // longest first
	any      *host
	places   []place // by index
}

// place is where a route is in its virtual host.
type place struct {
	host *host
	next int // of host.routes
}

type pattern struct {
	text string
	host *host
}

type host struct {
	routes  []entry
	connect *entry // the first that is for CONNECT alone
}

type entry struct {
	path   string
	prefix bool
	index  int
}

// New compiles a configuration. Routes get their indices in the order of
// [mesh.RouteConfiguration]: virtual host by virtual host. A domain that two
// virtual hosts claim is an error, as in Envoy.
func New(c mesh.RouteConfiguration) (*Matcher, error) {
	m := &Matcher{exact: map[string]*host{}}
	index := 0
	for _, v := range c.VirtualHosts {
		h := &host{}
		for _, r := range v.Routes {
			e := entry{path: r.Match.Path, index: index}
			if r.Match.Connect {
				if h.connect == nil {
					h.connect = &e
				}
				m.places = append(m.places, place{h, len(h.routes)})
				index++
				continue
			}
			if r.Match.Path == "" {
				e.path, e.prefix = r.Match.Prefix, true
			}
			h.routes = append(h.routes, e)
			m.places = append(m.places, place{h, len(h.routes)})
			index++
		}
		for _, domain := range v.Domains {
			if !m.add(strings.ToLower(domain), h) {
				return nil, fmt.Errorf("route configuration %s: domain %q is claimed twice", c.Name, domain)
			}
		}
	}
	longestFirst := func(a, b pattern) int { return cmp.Compare(len(b.text), len(a.text)) }
	slices.SortStableFunc(m.suffixes, longestFirst)
	slices.SortStableFunc(m.prefixes, longestFirst)
	return m, nil
}

func (m *Matcher) add(domain string, h *host) bool {
	claim := func(list *[]pattern, text string) bool {
		if slices.ContainsFunc(*list, func(p pattern) bool { return p.text == text }) {
			return false
		}
		*list = append(*list, pattern{text, h})
		return true
	}
	switch {
	case domain == "*":
		if m.any != nil {
			return false
		}
		m.any = h
		return true
	case strings.HasPrefix(domain, "*"):
		return claim(&m.suffixes, domain[1:])
	case strings.HasSuffix(domain, "*"):
		return claim(&m.prefixes, domain[:len(domain)-1])
	}
	if _, twice := m.exact[domain]; twice {
		return false
	}
	m.exact[domain] = h
	return true
}

// Match returns the index of the first route of the authority's virtual host
// whose path matches, or NoMatch. path may carry a query, which does not count. What is
// asked of the server ("*") or of an authority (CONNECT, an empty path) has no path, so
// it goes where all paths go: to a prefix of "/"; but CONNECT to a route of its own first.
// It does not allocate.
func (m *Matcher) Match(authority, path []byte) int {
	h := m.host(authority)
	if h == nil {
		return NoMatch
	}
	if len(path) == 0 && h.connect != nil {
		return h.connect.index
	}
	return h.match(0, path)
}

// Next is Match from behind the route at index on.
func (m *Matcher) Next(index int, path []byte) int {
	p := m.places[index]
	return p.host.match(p.next, path)
}

// match looks from the route at first on.
func (h *host) match(first int, path []byte) int {
	for i, c := range path {
		if c == '?' || c == '#' {
			path = path[:i]
			break
		}
	}
	pathless := len(path) == 0 || string(path) == "*"
	for i := first; i < len(h.routes); i++ {
		e := &h.routes[i]
		if pathless && e.prefix && e.path == "/" {
			return e.index
		}
		if e.prefix && len(path) >= len(e.path) && string(path[:len(e.path)]) == e.path || !e.prefix && string(path) == e.path {
			return e.index
		}
	}
	return NoMatch
}

// host finds the virtual host: exact, then the longest suffix, then the longest
// prefix, then "*" (Envoy's VirtualHost.domains).
func (m *Matcher) host(authority []byte) *host {
	if len(m.exact) == 0 && m.suffixes == nil && m.prefixes == nil {
		return m.any
	}
	if len(authority) > maxAuthority {
		return m.any
	}
	var buf [maxAuthority]byte
	lower := buf[:len(authority)]
	for i, c := range authority {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	if h, ok := m.exact[string(lower)]; ok {
		return h
	}
	for _, p := range m.suffixes {
		// The star stands for at least one character.
		if n := len(lower) - len(p.text); n > 0 && string(lower[n:]) == p.text {
			return p.host
		}
	}
	for _, p := range m.prefixes {
		if len(lower) > len(p.text) && string(lower[:len(p.text)]) == p.text {
			return p.host
		}
	}
	return m.any
}
