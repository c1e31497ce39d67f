package upstream

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
)

const (
	// sweepEvery is how often idle connections are looked at; those of clusters with a short idle
	// time, or a short life, tickEvery.
	sweepEvery = 5 * time.Second
	tickEvery  = time.Second
)

// Set owns the clusters of a process by name. It is safe for concurrent use.
type Set struct {
	clock func() int64
	log   *slog.Logger
	limit int64                            // of connections; 0: none
	own   atomic.Pointer[[]netip.AddrPort] // nil: none
	open  atomic.Int64                     // connections, used and idle
	tls   *mtls.Keeper                     // nil: there are no clusters with TLS
	peers bool                             // hosts that are sidecars take HTTP/2

	streams sync.Pool // of *h2Stream

	mu       sync.Mutex
	clusters map[string]*Cluster // guarded by mu
	made     uint64              // guarded by mu; clusters ever

	partingMu sync.Mutex // may be taken under a cluster's mu
	parting   []*Host    // guarded by partingMu; retired, with streams that go on

	stop chan struct{}
	done chan struct{}
}

// NewSet starts an empty set. clock returns monotonic nanoseconds, the same that
// requests hand in as now.
func NewSet(clock func() int64, log *slog.Logger) *Set {
	s := &Set{clock: clock, log: log, clusters: map[string]*Cluster{}, stop: make(chan struct{}), done: make(chan struct{})}
	s.streams.New = func() any { return new(h2Stream) }
	go s.sweep()
	return s
}

// Limit bounds the connections of all clusters together, used and idle ones: at so many an
// idle one is closed for each that is opened, and where none is idle, one too many is
// closed after its use. 0, as at first, is no bound. It is called before the set is used.
func (s *Set) Limit(connections int) { s.limit = int64(connections) }

// UseTLS lets clusters have TLS, whose files k looks after. It is called before the set is
// used.
func (s *Set) UseTLS(k *mtls.Keeper) { s.tls = k }

// Multiplex lets requests to hosts that are sidecars go over few HTTP/2 connections,
// whatever their clusters speak. It is called before the set is used.
func (s *Set) Multiplex() { s.peers = true }

// Own names the address of a listener of this process whose requests, or connections, are
// routed to the set's clusters: a host there would send back what it was sent. There may be
// several; they are named one after the other.
func (s *Set) Own(listener netip.AddrPort) {
	var all []netip.AddrPort
	if before := s.own.Load(); before != nil {
		all = slices.Clone(*before)
	}
	all = append(all, unmapped(listener))
	s.own.Store(&all)
}

// isOwn reports whether an address is that of such a listener.
func (s *Set) isOwn(a netip.AddrPort) bool {
	own := s.own.Load()
	return own != nil && slices.Contains(*own, unmapped(a))
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// isOver reports whether there are more connections than there may be.
func (s *Set) isOver() bool { return s.limit > 0 && s.open.Load() > s.limit }

// sweep closes connections that have been idle for too long, until Close.
func (s *Set) sweep() {
	defer close(s.done)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		s.look(s.clock(), n%int(sweepEvery/tickEvery) == 0)
	}
}

// look is one round of sweep: over all hosts, or over those of the clusters that want it more often.
func (s *Set) look(now int64, all bool) {
	if all {
		s.sweepParting(now)
	}
	for _, c := range s.Clusters() {
		if !all && !c.limits.Load().isHasty() {
			continue
		}
		for _, h := range c.Hosts() {
			h.sweep(now)
		}
	}
}

// part hands over a host that is retired.
func (s *Set) part(h *Host) {
	s.partingMu.Lock()
	s.parting = append(s.parting, h)
	s.partingMu.Unlock()
}

// sweepParting looks after the connections of hosts that were retired, until their last stream has ended: an
// instance whose machine is gone goes without ending them.
func (s *Set) sweepParting(now int64) {
	s.partingMu.Lock()
	defer s.partingMu.Unlock()
	s.parting = slices.DeleteFunc(s.parting, func(h *Host) bool { return !h.shared.sweep(now) })
}

// Close closes every idle connection and stops the set. Requests in flight keep
// the connections that they use.
func (s *Set) Close() {
	close(s.stop)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clusters {
		c.retire()
	}
	s.clusters = map[string]*Cluster{}
}

// Apply makes or changes a cluster, or returns an error and changes nothing.
func (s *Set) Apply(config mesh.Cluster) (*Cluster, error) {
	if err := check(config); err != nil {
		return nil, err
	}
	security, err := s.security(config)
	if err != nil {
		return nil, err
	}
	c := s.get(config.Name)
	return c, c.configure(config, security)
}

// security returns the TLS of a cluster: the one that it has, if that is as it should be,
// or a new one; nil without.
func (s *Set) security(config mesh.Cluster) (*mtls.Client, error) {
	if config.TLS == nil {
		return nil, nil //nolint:nilnil // in the clear
	}
	if s.tls == nil {
		return nil, fmt.Errorf("cluster %s: has TLS, which is not for here", config.Name)
	}
	s.mu.Lock()
	c, ok := s.clusters[config.Name]
	s.mu.Unlock()
	if ok {
		before, _ := c.Config()
		if security := c.limits.Load().tls; security != nil && reflect.DeepEqual(before.TLS, config.TLS) {
			return security, nil
		}
	}
	return s.tls.Client("cluster "+config.Name, *config.TLS)
}

// ErrUnknownCluster is returned for endpoints of a cluster that does not exist.
var ErrUnknownCluster = errors.New("no such cluster")

// Assign replaces the endpoints of a cluster.
func (s *Set) Assign(a mesh.LoadAssignment) error {
	s.mu.Lock()
	c, ok := s.clusters[a.Cluster]
	s.mu.Unlock()
	if !ok {
		return ErrUnknownCluster
	}
	return c.assign(a)
}

// Remove forgets a cluster. Who still holds it gets no hosts any more.
func (s *Set) Remove(name string) {
	s.mu.Lock()
	c, ok := s.clusters[name]
	delete(s.clusters, name)
	s.mu.Unlock()
	if ok {
		c.retire()
	}
}

// Clusters returns all clusters, the oldest first: what is shown of them up to a
// number stays the same when more come.
func (s *Set) Clusters() []*Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Cluster, 0, len(s.clusters))
	for _, c := range s.clusters {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Cluster) int { return cmp.Compare(a.number, b.number) })
	return all
}

func (s *Set) get(name string) *Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clusters[name]
	if !ok {
		s.made++
		c = newCluster(name, s.made, s)
		s.clusters[name] = c
	}
	return c
}
