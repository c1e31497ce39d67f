package memstore

import (
	"context"
	"fmt"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// watch reads the store's log in place, so a slow reader costs nothing but the history it needs.
type watch struct {
	store  *Store
	prefix string
	forget func() bool // ends the interest in the context

	// Guarded by store.mu:

	next     int64 // the revision to look at next
	progress bool  // a bookmark was asked for
	err      error // why the watch ended
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, from int64) (store.Watch, error) {
	if err := store.CheckWatch(prefix, from); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	if from == 0 {
		from = s.revision + 1
	}
	w := &watch{store: s, prefix: prefix, next: from}
	s.watches[w] = struct{}{}
	w.forget = context.AfterFunc(ctx, func() { w.end(ctx.Err()) })
	return w, nil
}

// Next implements store.Watch.
func (w *watch) Next(ctx context.Context) (store.Batch, error) {
	for {
		b, ready, changed, err := w.poll()
		if ready || err != nil {
			return b, err
		}
		select {
		case <-ctx.Done():
			return store.Batch{}, ctx.Err()
		case <-changed:
		}
	}
}

// poll returns the next batch if there is one, and otherwise the channel that announces a change.
func (w *watch) poll() (b store.Batch, ready bool, changed <-chan struct{}, err error) {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.err != nil:
		return b, false, nil, w.err
	case s.faults.stalled:
		return b, false, s.changed, nil
	case w.next-1 < s.compacted:
		w.err = &store.CompactedError{Revision: s.compacted}
		return b, false, nil, w.err
	}
	for _, logged := range s.log {
		if logged.Revision < w.next {
			continue
		}
		w.next = logged.Revision + 1
		if b = under(logged, w.prefix); !b.Bookmark() {
			return b, true, nil, nil
		}
	}
	if w.progress && w.next <= s.revision+1 {
		w.progress = false
		return store.Batch{ClusterID: s.clusterID, Revision: s.revision}, true, nil, nil
	}
	return b, false, s.changed, nil
}

// under returns the part of a batch that concerns the prefix.
func under(b store.Batch, prefix string) store.Batch {
	part := store.Batch{ClusterID: b.ClusterID, Revision: b.Revision}
	for _, e := range b.Puts {
		if strings.HasPrefix(e.Key, prefix) {
			part.Puts = append(part.Puts, e)
		}
	}
	for _, key := range b.Deletes {
		if strings.HasPrefix(key, prefix) {
			part.Deletes = append(part.Deletes, key)
		}
	}
	return part
}

// RequestProgress implements store.Watch.
func (w *watch) RequestProgress() error {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.progress = true
	w.store.wake()
	return nil
}

// Close implements store.Watch.
func (w *watch) Close() error {
	w.forget()
	w.end(store.ErrClosed)
	return nil
}

func (w *watch) end(err error) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	delete(w.store.watches, w)
	if w.err == nil {
		w.err = err
	}
	w.store.wake()
}

// endWatches ends every watch. It needs mu.
func (s *Store) endWatches(err error) {
	for w := range s.watches {
		if w.err == nil {
			w.err = fmt.Errorf("watch ended: %w", err)
		}
	}
	clear(s.watches)
	s.wake()
}
