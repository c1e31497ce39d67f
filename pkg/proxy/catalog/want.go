package catalog

import (
	"slices"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// want is a destination that somebody called. Its Listener is subscribed, also while
// it is unknown: the control plane tells when it comes to be.
type want struct {
	name   string
	usedAt atomic.Int64
	// published is what requests use; nil until the chain has been complete once. It
	// stays while a newer configuration is not complete: make before break.
	published atomic.Pointer[Destination]

	// Guarded by Catalog.mu.
	settled  chan struct{}  // closed when the answer is there; another once it is unknown no more
	listener *mesh.Listener // nil: not here yet
	route    *routeNode     // that the listener names; nil if it holds its routes
	needs    []*clusterNode // that the newest routes lead to
	serves   []*clusterNode // that the published routes lead to
	pending  bool           // the newest configuration is not published yet
	listed   bool           // the live table has it
	waiting  int            // requests that wait for it
	unknown  bool           // the control plane knows no such name
	since    int64          // when unknown was learnt
}

// newest returns the newest routes, nil if they are not here yet.
func (w *want) newest() *mesh.RouteConfiguration {
	switch {
	case w.listener == nil:
		return nil
	case w.route != nil:
		return w.route.config
	default:
		return w.listener.Route
	}
}

// complete reports whether every cluster that is needed knows its endpoints.
func (w *want) complete() bool {
	return !slices.ContainsFunc(w.needs, func(n *clusterNode) bool { return n.cluster == nil || !n.cluster.Known() })
}

func (w *want) isSettled() bool {
	select {
	case <-w.settled:
		return true
	default:
		return false
	}
}

// settle wakes those who wait for the answer.
func (w *want) settle() {
	if !w.isSettled() {
		close(w.settled)
	}
}

// routeNode is a RouteConfiguration that destinations need.
type routeNode struct {
	name   string
	config *mesh.RouteConfiguration // nil: not here yet, or removed
	users
}

// clusterNode is a Cluster that destinations need, and its endpoints.
type clusterNode struct {
	name    string
	cluster *upstream.Cluster // nil: not here yet, or removed
	// assigned is kept for when the cluster comes after its endpoints, or comes back:
	// the control plane does not send again what has not changed.
	assigned *mesh.LoadAssignment
	users
}

// users counts how often destinations need a resource.
type users struct {
	count  map[*want]int
	idleAt int64 // since when nobody needs it
}

func (u *users) add(w *want) {
	if u.count == nil {
		u.count = map[*want]int{}
	}
	u.count[w]++
}

func (u *users) drop(w *want, now int64) {
	if u.count[w]--; u.count[w] == 0 {
		delete(u.count, w)
	}
	u.idleAt = now
}

// expired reports whether nobody has needed the resource for LingerTime.
func (u *users) expired(now int64) bool {
	return len(u.count) == 0 && now-u.idleAt >= int64(LingerTime)
}
