package tcp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// Route is where connections go. It does not change.
type Route struct {
	Name        string // of the chain, for the log
	Source      string // who connects, for the log
	Destination string // the cluster's name, for the log
	Cluster     *upstream.Cluster
	Counted     *metrics.Connections
	// IdleTimeout ends a connection on which no byte has moved for so long; 0: never.
	IdleTimeout time.Duration
	// Attempts is how often it is tried to connect; at least 1.
	Attempts int
}

// Routes finds the route for the name of a server. It does not change once it is in use.
type Routes struct {
	exact  map[string]*Route
	below  map[string]*Route // by the suffix, with its first dot
	others *Route            // nil: there is none
}

// Add lets connections to a server's names take a route: exact names, or *.suffix for all
// names below one; no names are all others. It fails for what has a route already.
func (r *Routes) Add(names []string, route *Route) error {
	if r.exact == nil {
		r.exact, r.below = map[string]*Route{}, map[string]*Route{}
	}
	if len(names) == 0 {
		if r.others != nil {
			return errors.New("two chains are for all connections")
		}
		r.others = route
	}
	for _, name := range names {
		routes, key := r.exact, strings.ToLower(name)
		if suffix, ok := strings.CutPrefix(key, "*"); ok {
			routes, key = r.below, suffix
		}
		if routes[key] != nil {
			return fmt.Errorf("two chains are for %q", name)
		}
		routes[key] = route
	}
	return nil
}

// find returns the route for a name, which may be empty; nil if there is none. It does
// not allocate.
func (r *Routes) find(name []byte) *Route {
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
	if route := r.exact[string(key)]; route != nil {
		return route
	}
	for dot := bytes.IndexByte(key, '.'); dot >= 0; dot = bytes.IndexByte(key, '.') {
		if route := r.below[string(key[dot:])]; route != nil {
			return route
		}
		key = key[dot+1:]
	}
	return r.others
}
