package metrics

import (
	"sync"
	"sync/atomic"
)

// TCP is the bundle of families about relayed connections:
//
//	fairlead_tcp_connections_opened_total  source destination
//	fairlead_tcp_connections_active        source destination
//	fairlead_tcp_connections_closed_total  source destination reason
//	fairlead_tcp_received_bytes_total      source destination
//	fairlead_tcp_sent_bytes_total          source destination
//
// Received is from clients, sent is to them. It is safe for concurrent use.
type TCP struct {
	reasons  []string
	maxPairs int

	mu     sync.Mutex
	pairs  map[pair]*Connections // guarded by mu
	order  []*Connections        // guarded by mu; as they were made, so that what passes a cap stays the same
	others *Connections          // of the pairs past maxPairs
}

// NewTCP makes the families. reasons names the reasons for a connection's end by index;
// index 0 is that of one that both its ends have ended.
//
// The registry's cap on series bounds the pairs of source and destination so that each
// has room for all its reasons.
func NewTCP(r *Registry, reasons []string) *TCP {
	t := &TCP{reasons: labelValues(reasons), maxPairs: max(r.maxSeries/len(reasons), 1), pairs: map[pair]*Connections{}}
	t.others = t.newConnections(pair{Other, Other})
	byPair := []string{"source", "destination"}
	family := func(name, help string, kind Kind, value func(*Connections) float64) {
		r.Collect(Prefix+name, help, kind, byPair, func(emit Emit) {
			for _, c := range t.listed() {
				emit(value(c), c.source, c.destination)
			}
		})
	}
	family("tcp_connections_opened_total", "Connections that were accepted to be relayed.", KindCounter,
		func(c *Connections) float64 { return float64(c.opened.Load()) })
	family("tcp_connections_active", "Connections that are being relayed.", KindGauge,
		func(c *Connections) float64 { return float64(c.active.Load()) })
	family("tcp_received_bytes_total", "Bytes relayed from clients.", KindCounter,
		func(c *Connections) float64 { return float64(c.received.Load()) })
	family("tcp_sent_bytes_total", "Bytes relayed to clients.", KindCounter,
		func(c *Connections) float64 { return float64(c.sent.Load()) })
	r.Collect(Prefix+"tcp_connections_closed_total", "Relayed connections that ended.", KindCounter, append(byPair, "reason"), func(emit Emit) {
		for _, c := range t.listed() {
			for i := range c.closed {
				if n := c.closed[i].Load(); n > 0 {
					emit(float64(n), c.source, c.destination, t.reasons[i])
				}
			}
		}
	})
	return t
}

func (t *TCP) newConnections(key pair) *Connections {
	return &Connections{source: key.source, destination: key.destination, closed: make([]atomic.Uint64, len(t.reasons))}
}

// Destination returns the handles of a pair, always the same ones, or those of "other"
// when there are too many pairs. It takes a lock: call it when configuration changes and
// keep the handles.
func (t *TCP) Destination(source, destination string) *Connections {
	key := pair{labelValue(source), labelValue(destination)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.pairs[key]; ok {
		return c
	}
	if len(t.pairs) >= t.maxPairs {
		return t.others
	}
	c := t.newConnections(key)
	t.pairs[key] = c
	t.order = append(t.order, c)
	return c
}

// listed copies the pairs, so that no lock is held while a scrape is read.
func (t *TCP) listed() []*Connections {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Connections, 0, len(t.order)+1)
	all = append(all, t.order...)
	if t.others.opened.Load() > 0 {
		all = append(all, t.others)
	}
	return all
}

// Connections are the handles of one source and destination. It is safe for concurrent
// use; nothing in it takes a lock or allocates.
type Connections struct {
	source, destination string

	opened, received, sent atomic.Uint64
	active                 atomic.Int64
	closed                 []atomic.Uint64 // by reason
}

// Begin counts a connection as active. Each Begin is followed by one Done.
func (c *Connections) Begin() {
	c.opened.Add(1)
	c.active.Add(1)
}

// Moved counts bytes of active connections: received from clients, and sent to them.
func (c *Connections) Moved(received, sent uint64) {
	c.received.Add(received)
	c.sent.Add(sent)
}

// Done counts a connection that was begun as ended, by the index of its reason in the
// table given to [NewTCP].
func (c *Connections) Done(reason int) {
	c.active.Add(-1)
	c.closed[reason].Add(1)
}
