package xdsserver

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// Key names a resource.
type Key struct {
	Type codec.Type
	Name string
}

// entry is a resource. It is immutable.
type entry struct {
	version string
	body    *anypb.Any
	byName  bool   // it is not for a wildcard
	seq     uint64 // grows with every change of any resource
}

// Cache holds the resources and who wants them. It is safe for concurrent use.
type Cache struct {
	log *slog.Logger
	now func() time.Time
	// tellRefusal bounds how often it is logged that a client refuses a resource.
	tellRefusal *rate.Limiter

	mu       sync.Mutex
	synced   bool                      // guarded by mu
	revision int64                     // guarded by mu
	seq      uint64                    // guarded by mu
	types    map[codec.Type]*resources // guarded by mu
	streams  map[streamID]*stream      // guarded by mu
	// links leads from a stream's link to the stream: see there.
	links map[*core.Node]*stream // guarded by mu
	// marked are the subscriptions that a change has touched and that were not told.
	marked []*subscription // guarded by mu
	// progress is closed and renewed when a client has applied or refused something,
	// or has gone.
	progress chan struct{} // guarded by mu
	stats    Stats         // guarded by mu

	subscribed      int // guarded by mu; by name, over all streams
	subscribedBytes int // guarded by mu; of these names
	most            int // of them
	mostBytes       int
}

// resources are those of one type.
type resources struct {
	entries  map[string]*entry
	wanted   map[string]map[*subscription]struct{}
	wildcard map[*subscription]struct{}
}

// Stats are counters for metrics.
type Stats struct {
	Streams        int    // open
	Subscriptions  int    // of resources by name, over all streams
	Pushes         uint64 // responses sent
	PushedBytes    uint64 // of resources in them
	Acks, Nacks    uint64
	RefusedStreams uint64
}

// NewCache returns an empty cache, which answers nobody before SetSynced.
func NewCache(log *slog.Logger) *Cache {
	c := &Cache{
		log:      log,
		now:      time.Now,
		types:    map[codec.Type]*resources{},
		streams:  map[streamID]*stream{},
		links:    map[*core.Node]*stream{},
		progress: make(chan struct{}),

		most:      MaxAllSubscriptions,
		mostBytes: MaxAllNameBytes,

		tellRefusal: rate.NewLimiter(1, 100),
	}
	for _, t := range codec.Types() {
		c.types[t] = &resources{
			entries:  map[string]*entry{},
			wanted:   map[string]map[*subscription]struct{}{},
			wildcard: map[*subscription]struct{}{},
		}
	}
	return c
}

// Update adds, changes and removes resources at once, and tells those who want
// them. A resource whose version is the one in the cache is not a change. revision
// is that of the store.
func (c *Cache) Update(set []codec.Encoded, remove []Key, revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = revision
	for _, e := range set {
		rs := c.types[e.Type]
		if old := rs.entries[e.Name]; old != nil && old.version == e.Version {
			continue
		}
		c.seq++
		rs.entries[e.Name] = &entry{version: e.Version, body: e.Any(), byName: e.ByName, seq: c.seq}
		rs.touch(e.Name)
	}
	for _, k := range remove {
		rs := c.types[k.Type]
		if rs.entries[k.Name] == nil {
			continue
		}
		c.seq++
		delete(rs.entries, k.Name)
		rs.touch(k.Name)
	}
	c.wake()
}

// touch marks a name in every subscription that wants it.
func (rs *resources) touch(name string) {
	for s := range rs.wanted[name] {
		s.mark(name)
	}
	for s := range rs.wildcard {
		s.mark(name)
	}
}

// wake tells the streams of marked subscriptions. It needs c.mu.
func (c *Cache) wake() {
	if !c.synced {
		return
	}
	for _, s := range c.marked {
		s.marked = false
		s.notify()
	}
	clear(c.marked)
	c.marked = c.marked[:0]
}

// SetSynced says that the cache holds all that there is: from now on it answers.
func (c *Cache) SetSynced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = true
	for _, st := range c.streams {
		for _, s := range st.subscriptions {
			s.notify()
		}
	}
}

// Has reports whether a resource exists, and its version.
func (c *Cache) Has(k Key) (version string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.types[k.Type].entries[k.Name]
	if e == nil {
		return "", false
	}
	return e.version, true
}

// Stats returns the counters.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Streams = len(c.streams)
	stats.Subscriptions = c.subscribed
	return stats
}

// AwaitApplied blocks until every client that subscribes to a resource has
// applied or refused its present content, or has gone, or until ctx ends. It
// returns how many had not by then.
func (c *Cache) AwaitApplied(ctx context.Context, k Key) int {
	for {
		missing, progress := c.missing(k)
		if missing == 0 {
			return 0
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return missing
		}
	}
}

func (c *Cache) missing(k Key) (int, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rs := c.types[k.Type]
	want := ""
	if e := rs.entries[k.Name]; e != nil {
		want = e.version
	}
	n := 0
	count := func(s *subscription) {
		if s.applied[k.Name] != want && s.rejected[k.Name].version != want {
			n++
		}
	}
	for s := range rs.wanted[k.Name] {
		count(s)
	}
	for s := range rs.wildcard {
		if _, named := s.names[k.Name]; !named {
			count(s)
		}
	}
	return n, c.progress
}

// progressed wakes AwaitApplied. It needs c.mu.
func (c *Cache) progressed() {
	close(c.progress)
	c.progress = make(chan struct{})
}

func (c *Cache) systemVersion() string { return strconv.FormatInt(c.revision, 10) }
