package discovery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// BookmarkInterval is how often a watcher whose services do not change is told
// that time went on, so that its token stays young.
const BookmarkInterval = 10 * time.Second

// SlowError ends a watch that fell behind the history. A new one that begins after
// Token learns what it missed, or gets a snapshot.
type SlowError struct{ Token string }

func (e *SlowError) Error() string {
	return fmt.Sprintf("too slow: more than %d revisions behind; go on from %s", MaxHistory, e.Token)
}

// Filter chooses what is watched; empty fields match everything.
type Filter struct{ Namespace, Service string }

func (f Filter) matches(s mesh.ServiceName) bool {
	return (f.Namespace == "" || f.Namespace == s.Namespace) && (f.Service == "" || f.Service == s.Name)
}

// Event is one revision of what is watched, whole.
type Event struct {
	// Token resumes after this event.
	Token string
	// Snapshot: the event holds everything there is; all that was told before is void.
	Snapshot bool
	// Bookmark: nothing changed up to Revision.
	Bookmark bool
	Revision int64
	Changed  []*Record
	Removed  []Key
	Services []mesh.ServiceName // first known in this revision; in a snapshot, all
}

// Watcher follows a view. It holds nothing but its place: the history is shared.
// It is not for use by several goroutines.
type Watcher struct {
	view   *View
	filter Filter
	token  string // of the last event; at first, what the watch was asked to follow

	begun  bool
	era    int
	cursor int64 // everything up to it was told or did not match
}

// Watch follows what f matches, from after a token of an earlier watch, else, and
// if the token is too old, of another store or from the future, from a snapshot.
func (v *View) Watch(f Filter, token string) *Watcher {
	return &Watcher{view: v, filter: f, token: token}
}

// Next blocks until there is another event, at most [BookmarkInterval], or ctx
// ends. Its error is ctx's or a *SlowError.
func (w *Watcher) Next(ctx context.Context) (Event, error) {
	bookmark := time.NewTimer(BookmarkInterval)
	defer bookmark.Stop()
	due := false
	for {
		e, moved, err := w.step(due)
		if moved == nil {
			return e, err
		}
		select {
		case <-moved:
		case <-bookmark.C:
			due = true
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// step returns the next event or error, or what to wait for.
func (w *Watcher) step(bookmark bool) (Event, <-chan struct{}, error) {
	v := w.view
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.inForce == 0 {
		return Event{}, v.moved, nil // nothing is known yet, not even that there is nothing
	}
	if !w.begun {
		w.begun = true
		w.era, w.cursor = v.history.era, 0
		if after, ok := v.resumable(w.token); ok {
			w.cursor = after
		} else {
			return w.snapshot(), nil, nil
		}
	}
	if w.era != v.history.era {
		return w.snapshot(), nil, nil
	}
	if w.cursor < v.history.floor {
		return Event{}, nil, &SlowError{Token: w.token}
	}
	for _, r := range v.history.after(w.cursor) {
		if r.number > v.inForce {
			break
		}
		w.cursor = r.number
		if e := w.event(r); e.Changed != nil || e.Removed != nil || e.Services != nil {
			w.token = e.Token
			return e, nil, nil
		}
	}
	w.cursor = max(w.cursor, v.inForce)
	if bookmark {
		w.token = token(v.cluster, w.cursor, v.history.sumAt(w.cursor))
		return Event{Token: w.token, Bookmark: true, Revision: w.cursor}, nil, nil
	}
	return Event{}, v.moved, nil
}

func (w *Watcher) event(r revision) Event {
	e := Event{Revision: r.number, Token: token(w.view.cluster, r.number, r.sum)}
	for _, record := range r.changed {
		if w.filter.matches(record.Key.Service) {
			e.Changed = append(e.Changed, record)
		}
	}
	for _, key := range r.removed {
		if w.filter.matches(key.Service) {
			e.Removed = append(e.Removed, key)
		}
	}
	for _, name := range r.services {
		if w.filter.matches(name) {
			e.Services = append(e.Services, name)
		}
	}
	return e
}

// snapshot tells everything, as of the newest revision.
func (w *Watcher) snapshot() Event {
	v := w.view
	e := Event{Snapshot: true, Revision: v.revision, Token: token(v.cluster, v.revision, v.sum)}
	for _, name := range slices.SortedFunc(maps.Keys(v.services), compareNames) {
		if !w.filter.matches(name) {
			continue
		}
		e.Services = append(e.Services, name)
		e.Changed = append(e.Changed, v.services[name].view(name).Instances...)
	}
	w.era, w.cursor, w.token = v.history.era, v.revision, e.Token
	return e
}

// resumable reads a token and reports whether what followed it is still here.
func (v *View) resumable(s string) (after int64, ok bool) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return 0, false
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || n < v.history.floor || n > v.revision {
		return 0, false
	}
	return n, s == token(v.cluster, n, v.history.sumAt(n))
}

// token names a place in the life of a store: a revision, and the sum of the state
// there.
func token(cluster uint64, number int64, sum uint64) string {
	return fmt.Sprintf("%016x-%d-%016x", cluster, number, sum)
}
