// Package guard keeps a service from vanishing because the control plane lost sight of
// it. When most instances of a service are lost within half a minute, it is likelier
// that a network, the store or the control plane itself failed than that they did: the
// data planes then keep the last ones known, and find out by their own requests which
// of them answer.
//
// Only instances that nobody saw leave count: see [discovery.Changes]. The registry
// tells the truth meanwhile; it is publishing that is held up.
package guard

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// Window is how long a loss counts towards the loss of most of a service.
	Window = 30 * time.Second
	// MaxHold is how long a lost instance is held at the most.
	MaxHold = 10 * time.Minute
	// MinInstances is how many a service must have had to be guarded: of fewer, most
	// are easily lost one by one.
	MinInstances = 5
	// maxLosses bounds what is remembered of a service; the oldest are let go first.
	maxLosses = discovery.MaxInstancesPerService
)

// Guard holds the lost. Its methods take the time, and are safe for concurrent use.
type Guard struct {
	log *slog.Logger

	mu       sync.Mutex
	services map[mesh.ServiceName]*losses // guarded by mu
}

// losses are those of a service, by id.
type losses struct {
	holding bool
	lost    map[string]Held
}

// Held is an instance that is lost, and that the data planes keep.
type Held struct {
	Record *discovery.Record
	Lost   time.Time
}

// Until is when it is let go of at the latest.
func (h Held) Until() time.Time { return h.Lost.Add(MaxHold) }

// New returns a guard that holds nobody.
func New(log *slog.Logger) *Guard {
	return &Guard{log: log, services: map[mesh.ServiceName]*losses{}}
}

// Lose notes instances that were lost.
func (g *Guard) Lose(now time.Time, records []*discovery.Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range records {
		l := g.services[r.Key.Service]
		if l == nil {
			l = &losses{lost: map[string]Held{}}
			g.services[r.Key.Service] = l
		}
		l.lost[r.Key.ID] = Held{Record: r, Lost: now}
		if len(l.lost) > maxLosses {
			delete(l.lost, l.sorted()[0].Record.Key.ID)
		}
	}
}

// Hold returns the instances to publish beside those that a service has, sorted by id:
// all that it lost within [Window], if those are more than half of all it would have,
// of [MinInstances] or more. From then on each is held for [MaxHold] from its loss, or
// until so many are back that those missing are half or less, or until it is released.
func (g *Guard) Hold(now time.Time, s discovery.Service) []*discovery.Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.services[s.Name]
	if l == nil {
		return nil
	}
	for _, r := range s.Instances {
		delete(l.lost, r.Key.ID) // it is back
	}
	l.expire(now)
	held := len(l.lost)
	all := len(s.Instances) + held
	holds := 2*held > all && (l.holding || all >= MinInstances)
	if holds != l.holding {
		l.holding = holds
		if holds {
			g.log.Warn("most of a service was lost at once; its data planes keep the lost instances",
				"service", s.Name.String(), "lost", held, "left", len(s.Instances), "at_most", MaxHold)
		} else {
			g.log.Info("a service's lost instances are no longer kept", "service", s.Name.String(), "instances", len(s.Instances))
			clear(l.lost) // what is still missing is a loss like any other, and was counted
		}
	}
	if len(l.lost) == 0 {
		delete(g.services, s.Name)
	}
	if !holds {
		return nil
	}
	var records []*discovery.Record
	for _, h := range l.lost {
		records = append(records, h.Record)
	}
	slices.SortFunc(records, func(a, b *discovery.Record) int { return cmp.Compare(a.Key.ID, b.Key.ID) })
	return records
}

// expire forgets what no longer counts.
func (l *losses) expire(now time.Time) {
	maps.DeleteFunc(l.lost, func(_ string, h Held) bool { return !now.Before(l.until(h)) })
}

// until says when a loss no longer counts.
func (l *losses) until(h Held) time.Time {
	if l.holding {
		return h.Until()
	}
	return h.Lost.Add(Window)
}

// sorted lists the losses, oldest first.
func (l *losses) sorted() []Held {
	return slices.SortedFunc(maps.Values(l.lost), func(a, b Held) int {
		return cmp.Or(a.Lost.Compare(b.Lost), cmp.Compare(a.Record.Key.ID, b.Record.Key.ID))
	})
}

// Held lists the instances of a service that are held, longest lost first.
func (g *Guard) Held(s mesh.ServiceName) []Held {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.services[s]; l != nil && l.holding {
		return l.sorted()
	}
	return nil
}

// Count returns how many instances are held.
func (g *Guard) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, l := range g.services {
		if l.holding {
			n += len(l.lost)
		}
	}
	return n
}

// Release lets go of a held instance, or, if id is empty, of all of a service, and
// returns how many these were. The next Hold leaves them out.
func (g *Guard) Release(s mesh.ServiceName, id string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.services[s]
	if l == nil || !l.holding {
		return 0
	}
	before := len(l.lost)
	if id == "" {
		clear(l.lost)
	} else {
		delete(l.lost, id)
	}
	return before - len(l.lost)
}

// Due lists the services of which an instance has been held for long enough, and
// says when there is one next; the zero time is never.
func (g *Guard) Due(now time.Time) (due []mesh.ServiceName, next time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, l := range g.services {
		first := time.Time{}
		for _, h := range l.lost {
			if at := l.until(h); first.IsZero() || at.Before(first) {
				first = at
			}
		}
		if !first.After(now) {
			due = append(due, name)
		} else if next.IsZero() || first.Before(next) {
			next = first
		}
	}
	return due, next
}

// Forget forgets a service that is no longer known.
func (g *Guard) Forget(s mesh.ServiceName) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.services, s)
}
