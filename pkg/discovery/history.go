package discovery

import (
	"sort"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxHistory bounds the revisions that a watcher may be behind.
const maxHistory = 4096

// revision is what one revision of the store changed.
type revision struct {
	number   int64
	touched  map[mesh.ServiceName]bool
	changed  []*Record
	removed  []Key
	services []mesh.ServiceName // first known in it
}

func (r *revision) empty() bool {
	return len(r.changed) == 0 && len(r.removed) == 0 && len(r.services) == 0
}

// history holds the last revisions that changed something, shared by all watchers,
// which read it with a cursor each.
type history struct {
	era       int        // counts restarts
	floor     int64      // everything after this revision is here
	revisions []revision // ascending
}

// restart forgets everything: the state is that of a revision that does not follow
// from what was before.
func (h *history) restart(number int64) {
	*h = history{era: h.era + 1, floor: number}
}

func (h *history) add(r revision) {
	if r.empty() {
		return
	}
	if h.revisions = append(h.revisions, r); len(h.revisions) < 2*maxHistory {
		return
	}
	// The older half goes, in a new array, so that a revision costs two copies at most.
	h.floor = h.revisions[maxHistory-1].number
	h.revisions = append(make([]revision, 0, 2*maxHistory), h.revisions[maxHistory:]...)
}

// after returns the revisions after one.
func (h *history) after(number int64) []revision {
	n := sort.Search(len(h.revisions), func(i int) bool { return h.revisions[i].number > number })
	return h.revisions[n:]
}
