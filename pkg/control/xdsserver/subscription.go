package xdsserver

import (
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// streamID tells streams apart: each server counts its own from 1.
type streamID struct {
	delta bool
	wave  int
	id    int64
}

// stream is a connected client. All of it is guarded by Cache.mu.
type stream struct {
	id            streamID
	opened        time.Time
	peer          string
	node          node
	subscriptions map[codec.Type]*subscription
	nameless      map[codec.Type]bool // the first request for the type had no names
	// link is put into each request by the callbacks, which see it with its stream, so that the watch that
	// may be made of it is found to be the stream's. Nothing is in it, and nothing of a request is kept for it.
	link *core.Node
}

type node struct{ id, cluster, userAgent string }

// subscription is what a stream wants of a type. Its fields, but for the watch,
// are guarded by Cache.mu.
type subscription struct {
	cache  *Cache
	stream *stream
	typ    codec.Type

	names    map[string]struct{}
	bytes    int // of the names
	wildcard bool
	// dirty are names that changed since they were sent; all says that of every one.
	dirty map[string]struct{}
	all   bool
	// marked: it is in Cache.marked.
	marked bool
	// sent is what the client was told last, by name: a version, or gone. The stream
	// server keeps it too, as what was returned, and changes it when names are
	// unsubscribed, so only the stream's goroutine touches it.
	sent map[string]string
	// nameless: a request without names means all resources.
	nameless bool
	// built is what the response under way holds: name to version.
	built map[string]string
	// outstanding are the responses that were neither taken nor refused yet.
	outstanding []outstanding
	applied     map[string]string // the version, by name
	rejected    map[string]rejected

	watch *watch // the open one; nil: the client owes an answer
}

// gone is what sent says of a name that the client knows not to exist.
const gone = "-"

type rejected struct {
	version string
	reason  string
	at      time.Time
}

// outstanding is a response that the client owes an answer to.
type outstanding struct {
	nonce     string
	resources map[string]string // name to version
}

// maxOutstanding bounds the answers owed per type; a client that never answers
// gets no more than one response unasked, each further one needs a request.
const maxOutstanding = 32

func newSubscription(c *Cache, st *stream, t codec.Type) *subscription {
	return &subscription{
		cache: c, stream: st, typ: t, nameless: st.nameless[t],
		names:    map[string]struct{}{},
		dirty:    map[string]struct{}{},
		applied:  map[string]string{},
		rejected: map[string]rejected{},
	}
}

// mark notes that a name changed.
func (s *subscription) mark(name string) {
	s.dirty[name] = struct{}{}
	if !s.marked {
		s.marked = true
		s.cache.marked = append(s.cache.marked, s)
	}
}

// want brings the index to the names that the client subscribes to now.
func (s *subscription) want(names map[string]struct{}, wildcard bool) {
	rs := s.cache.types[s.typ]
	for name := range s.names {
		if _, still := names[name]; !still {
			s.forget(rs, name)
		}
	}
	for name := range names {
		if _, had := s.names[name]; !had {
			s.add(rs, name)
		}
	}
	s.setWildcard(rs, wildcard)
}

func (s *subscription) add(rs *resources, name string) {
	s.names[name] = struct{}{}
	s.bytes += len(name)
	s.cache.subscribed++
	s.cache.subscribedBytes += len(name)
	takers := rs.wanted[name]
	if takers == nil {
		takers = map[*subscription]struct{}{}
		rs.wanted[name] = takers
	}
	takers[s] = struct{}{}
	s.dirty[name] = struct{}{}
}

func (s *subscription) forget(rs *resources, name string) {
	delete(s.names, name)
	s.bytes -= len(name)
	s.cache.subscribed--
	s.cache.subscribedBytes -= len(name)
	takers := rs.wanted[name]
	delete(takers, s)
	if len(takers) == 0 {
		delete(rs.wanted, name)
	}
	if s.wildcard {
		s.dirty[name] = struct{}{}
		return
	}
	delete(s.dirty, name)
	delete(s.sent, name)
	delete(s.applied, name)
	delete(s.rejected, name)
}

func (s *subscription) setWildcard(rs *resources, wildcard bool) {
	if wildcard == s.wildcard {
		return
	}
	s.wildcard = wildcard
	if wildcard {
		rs.wildcard[s] = struct{}{}
		s.all = true
		return
	}
	delete(rs.wildcard, s)
	for name := range s.sent {
		if _, named := s.names[name]; !named {
			delete(s.sent, name)
			delete(s.applied, name)
			delete(s.rejected, name)
		}
	}
}

// pending reports whether there may be something to send. Before the cache is
// synced there never is.
func (s *subscription) pending() bool { return s.cache.synced && (s.all || len(s.dirty) > 0) }

// leave takes the subscription out of the index.
func (s *subscription) leave() {
	rs := s.cache.types[s.typ]
	s.cache.subscribed -= len(s.names)
	s.cache.subscribedBytes -= s.bytes
	for name := range s.names {
		takers := rs.wanted[name]
		delete(takers, s)
		if len(takers) == 0 {
			delete(rs.wanted, name)
		}
	}
	delete(rs.wildcard, s)
}

// owe notes that the client must answer the response that was just built. It owes an answer about each resource
// once, to the last response that has it: a client that asks for the same without end costs no more for that.
func (s *subscription) owe(nonce string) {
	var owed []outstanding
	for _, o := range s.outstanding {
		o.resources = without(o.resources, s.built)
		if len(o.resources) > 0 {
			owed = append(owed, o)
		}
	}
	if len(owed) >= maxOutstanding {
		owed = owed[1:]
	}
	owed = append(owed, outstanding{nonce: nonce, resources: s.built})
	s.outstanding, s.built = owed, nil
}

// without returns those of have that are not in gone. It is a map of its own if any are, since one from which
// is deleted does not shrink.
func without(have, gone map[string]string) map[string]string {
	left := map[string]string{}
	for name, version := range have {
		if _, ok := gone[name]; !ok {
			left[name] = version
		}
	}
	if len(left) == len(have) {
		return have
	}
	return left
}

// answered takes the client's answer to a response.
func (s *subscription) answered(nonce string, refused map[string]string, all string) {
	for i, o := range s.outstanding {
		if o.nonce != nonce {
			continue
		}
		s.outstanding = append(s.outstanding[:i], s.outstanding[i+1:]...)
		for name, version := range o.resources {
			reason, bad := refused[name]
			if all != "" {
				reason, bad = all, true
			}
			s.settle(name, version, reason, bad)
		}
		s.cache.progressed()
		return
	}
}

// settle notes what the client says of a resource. In the state of the world it says it again with every
// response, since that repeats what did not change: its first word counts. What it says of a name that it has
// given up meanwhile counts for nothing: if it wants it again, it is to be sent it.
func (s *subscription) settle(name, version, reason string, bad bool) {
	if _, named := s.names[name]; !named && !s.wildcard {
		return
	}
	if bad && s.rejected[name].version == version {
		return
	}
	delete(s.rejected, name)
	switch {
	case version == gone: // there is nothing to take or refuse
		delete(s.applied, name)
	case bad:
		s.rejected[name] = rejected{version: version, reason: reason, at: s.cache.now()}
		if !s.cache.tellRefusal.AllowN(s.cache.now(), 1) {
			return // who refuses without end must not fill the disk; the API shows it
		}
		s.cache.log.Warn("resource refused", "node", s.stream.node.id, "type", s.typ, "resource", name, "version", version, "reason", reason)
	default:
		s.applied[name] = version
	}
}

// watch is a request that waits to be answered, once. A watch may be cancelled
// and its channel closed at any time: sending and cancelling exclude each other.
type watch struct {
	mu   sync.Mutex
	done bool   // guarded by mu
	send func() // does not block
}

func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.done = true
		w.send()
	}
}

func (w *watch) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
}

// notify answers the open watch if there is something to say. The answer itself is
// made on the stream's goroutine. It needs Cache.mu.
func (s *subscription) notify() {
	if s.watch == nil || !s.pending() {
		return
	}
	w := s.watch
	s.watch = nil
	w.fire()
}
