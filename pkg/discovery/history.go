package discovery

import (
	"sort"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// MaxHistory bounds the revisions that a watcher may be behind.
const MaxHistory = 4096

// revision is what one revision of the store changed.
type revision struct {
	number   int64
	sum      uint64 // of the state after it
	changed  []*Record
	removed  []Key
	services []mesh.ServiceName // first known in it

	// For Apply alone:

	touched map[mesh.ServiceName]bool
	forgot  bool // a service is no longer known, which watchers have no word for
}

func (r *revision) empty() bool {
	return len(r.changed) == 0 && len(r.removed) == 0 && len(r.services) == 0
}

// history holds the last revisions that changed something, shared by all watchers,
// which read it with a cursor each.
//
// A place in it is a revision and the sum of the state there. The number alone would
// not do: a store that was set back to a backup uses the same numbers again, for
// other writes, under the same cluster id. Sums are the same in all replicas.
type history struct {
	era       int        // counts restarts
	floor     int64      // everything after this revision is here
	floorSum  uint64     // of the state at floor
	revisions []revision // ascending
}

// restart forgets everything: the state is that of a revision that does not follow
// from what was before.
func (h *history) restart(number int64, sum uint64) {
	*h = history{era: h.era + 1, floor: number, floorSum: sum}
}

func (h *history) add(r revision) {
	if r.empty() {
		return
	}
	r.touched = nil
	if h.revisions = append(h.revisions, r); len(h.revisions) < 2*MaxHistory {
		return
	}
	// The older half goes, in a new array, so that a revision costs two copies at most.
	h.floor, h.floorSum = h.revisions[MaxHistory-1].number, h.revisions[MaxHistory-1].sum
	h.revisions = append(make([]revision, 0, 2*MaxHistory), h.revisions[MaxHistory:]...)
}

// after returns the revisions after one.
func (h *history) after(number int64) []revision {
	return h.revisions[h.index(number):]
}

// sumAt returns the sum of the state at a revision that is not below the floor.
func (h *history) sumAt(number int64) uint64 {
	if n := h.index(number); n > 0 {
		return h.revisions[n-1].sum
	}
	return h.floorSum
}

// index returns where the revisions after one begin.
func (h *history) index(number int64) int {
	return sort.Search(len(h.revisions), func(i int) bool { return h.revisions[i].number > number })
}
