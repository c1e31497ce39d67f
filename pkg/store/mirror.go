package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// MirrorHandler receives what a Mirror learns, one call at a time, from Run's goroutine. A call that blocks holds back the
// mirror (and, once the store's own buffers are full, the store's sending), and the staleness probe with it.
type MirrorHandler interface {
	// Snapshot is called once, first, with the whole state at one revision.
	Snapshot(s Snapshot)
	// Batch is called for everything after it, bookmarks included if they move the revision.
	Batch(b Batch)
}

// Snapshot is the whole state under a prefix at one revision, keys ascending, and what has happened since.
type Snapshot struct {
	ClusterID uint64
	Revision  int64
	Entries   []Entry
	// Since holds the revisions after Revision, in order and without bookmarks, up to the newest: see MirrorConfig.History.
	Since []Batch
}

// MirrorConfig says what a Mirror follows and how patient it is.
type MirrorConfig struct {
	// Prefix of the keys to follow.
	Prefix string
	// PageSize of listings, in entries. Default DefaultPageSize.
	PageSize int
	// ProbeInterval is the time between progress requests on a silent watch. Default 3 s.
	ProbeInterval time.Duration
	// StaleAfter is how long the watch may be silent, progress requests unanswered, before it is given up and made anew, and
	// how long any other request may take. Default 10 s; at least twice ProbeInterval, so that one late answer is no alarm.
	StaleAfter time.Duration
	// RetryMin and RetryMax bound the pause after a failure, which doubles with each one in a row; its second half is
	// random. Defaults 100 ms and 10 s.
	RetryMin, RetryMax time.Duration
	// History is how many revisions of the past the first snapshot brings along, at the most; fewer if they were compacted, none
	// if they cannot be read. They are held in memory until the handler has taken them. Default 0.
	History int64
	// Logger receives what goes wrong, as warnings at most once a minute, and when it goes on. Default: none.
	Logger *slog.Logger
}

func (c MirrorConfig) withDefaults() (MirrorConfig, error) {
	setDefault(&c.PageSize, DefaultPageSize)
	setDefault(&c.ProbeInterval, 3*time.Second)
	setDefault(&c.StaleAfter, max(10*time.Second, 2*c.ProbeInterval))
	setDefault(&c.RetryMin, 100*time.Millisecond)
	setDefault(&c.RetryMax, max(10*time.Second, c.RetryMin))
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.PageSize < 1 || c.PageSize > MaxPageSize:
		return c, fmt.Errorf("%w: page size %d is not within 1 and %d", ErrInvalid, c.PageSize, MaxPageSize)
	case c.ProbeInterval < 0 || c.StaleAfter < 2*c.ProbeInterval:
		return c, fmt.Errorf("%w: stale after %v is less than twice the probe interval %v", ErrInvalid, c.StaleAfter, c.ProbeInterval)
	case c.RetryMin < 0 || c.RetryMax < c.RetryMin:
		return c, fmt.Errorf("%w: longest retry pause %v is less than the shortest %v", ErrInvalid, c.RetryMax, c.RetryMin)
	}
	return c, CheckPrefix(c.Prefix)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// resumeAttempts is how many watches in a row may fail before they deliver anything until the mirror lists anew. It covers what
// makes every resumption from one revision fail, such as a backlog beyond the message size limit of the connection.
const resumeAttempts = 3

var (
	errStale       = errors.New("the watch is silent and does not answer progress requests")
	errOtherTime   = errors.New("the store's past is not the one followed so far")
	errOtherStore  = errors.New("the store's cluster id changed")
	errBackInTime  = errors.New("the store's revision went backwards")
	errListChanged = errors.New("the store changed while it was listed")
)

// Mirror follows the keys under a prefix: it lists them at one revision, page by page, and watches from there. Whatever
// breaks, it resumes after the last revision it delivered. Where it cannot, because that revision was compacted or because
// the store is another one or was set back to a backup, it lists again, compares with its memory and delivers the difference
// as one synthetic batch. It never delivers an empty state because the store is gone: what was true last stays.
//
// A store that was restored from a backup under the same cluster id, and has since been written to beyond the revision
// delivered last, is recognised by the newest entry in memory, which such a store does not have at that revision, and by what
// the last change deleted, which it still has; if both happen to be the same, it is not recognised.
//
// All methods but Run are safe for concurrent use.
type Mirror struct {
	store   Store
	config  MirrorConfig
	handler MirrorHandler

	// Owned by Run's goroutine.

	known    map[string]Entry
	gone     []string // some of the keys that the last change deleted
	relist   bool     // resuming is impossible
	barren   int      // watches in a row that delivered nothing
	failures int      // failures in a row, for the pause
	warned   time.Time
	missed   bool // a warning says that the store is not followed

	// Written by Run's goroutine with mu held, so that it alone may read them without.

	mu           sync.Mutex
	clusterID    uint64
	revision     int64
	lastProgress time.Time // zero before the snapshot
}

// NewMirror returns a mirror of what s holds under c.Prefix, or ErrInvalid. Nothing happens before Run.
func NewMirror(s Store, c MirrorConfig, h MirrorHandler) (*Mirror, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Mirror{store: s, config: c, handler: h}, nil
}

// Synced reports whether the snapshot has been delivered. It never turns false again: old data is better than none. For how
// old it may be, see LastProgress.
func (m *Mirror) Synced() bool { return !m.LastProgress().IsZero() }

// Revision returns the newest revision delivered, 0 before the snapshot.
func (m *Mirror) Revision() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// ClusterID returns the store that Revision belongs to, 0 before the snapshot.
func (m *Mirror) ClusterID() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clusterID
}

// LastProgress returns when the store was last heard with everything before it delivered: a listing, a batch or a bookmark. It
// is the zero time before the snapshot, and while all is well at most ProbeInterval and a round trip ago.
func (m *Mirror) LastProgress() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastProgress
}

// Run lists and follows until ctx ends, and returns ctx's error. Call it once. It starts no goroutine of its own.
func (m *Mirror) Run(ctx context.Context) error {
	for {
		err := m.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := m.pause()
		m.config.Logger.Log(ctx, m.complaint(), "following the store was interrupted", "prefix", m.config.Prefix,
			"revision", m.revision, "relist", m.relist, "retry_in", pause, "error", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// complaint returns how loud to be about a failure: warnings come once a minute, however often it fails.
func (m *Mirror) complaint() slog.Level {
	if !m.warned.IsZero() && time.Since(m.warned) < time.Minute {
		return slog.LevelDebug
	}
	m.warned, m.missed = time.Now(), true
	return slog.LevelWarn
}

// pause returns how long to wait after another failure.
func (m *Mirror) pause() time.Duration {
	pause := m.config.RetryMin
	for range m.failures {
		pause = min(2*pause, m.config.RetryMax)
	}
	m.failures = min(m.failures+1, 62)
	return pause/2 + rand.N(pause/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// follow resumes, or lists if it must, and watches until something fails.
func (m *Mirror) follow(ctx context.Context) error {
	if err := m.resumable(ctx); err != nil {
		return err
	}
	if m.relist || !m.Synced() {
		if err := m.list(ctx); err != nil {
			return err
		}
	}
	err := m.watch(ctx)
	if m.barren >= resumeAttempts || errors.Is(err, ErrCompacted) {
		m.relist = true
	}
	return err
}

// resumable looks whether the store still is the one followed so far, and sets relist if not.
func (m *Mirror) resumable(ctx context.Context) error {
	if !m.Synced() || m.relist {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.StaleAfter)
	defer cancel()
	head, err := m.store.Head(ctx)
	if err != nil {
		return fmt.Errorf("find the newest revision: %w", err)
	}
	switch {
	case head.ClusterID != m.clusterID:
		m.mustList(errOtherStore)
	case head.Revision < m.revision:
		m.mustList(errBackInTime)
	default:
		return m.checkAnchor(ctx)
	}
	return nil
}

// checkAnchor compares the newest entry in memory with what the store says it was.
func (m *Mirror) checkAnchor(ctx context.Context) error {
	anchor := newest(m.known)
	if anchor.Key == "" {
		return m.checkGone(ctx)
	}
	page, err := m.store.List(ctx, ListRequest{Prefix: anchor.Key, Revision: m.revision, Limit: 1})
	switch {
	case errors.Is(err, ErrCompacted):
		m.mustList(err)
		return nil
	case err != nil:
		return fmt.Errorf("compare with the past: %w", err)
	case len(page.Entries) == 0 || !same(page.Entries[0], anchor):
		m.mustList(errOtherTime)
		return nil
	}
	return m.checkGone(ctx)
}

// maxGone bounds the deleted keys that are looked for.
const maxGone = 4

// checkGone looks whether what was deleted last was gone in the store's past too.
func (m *Mirror) checkGone(ctx context.Context) error {
	for _, key := range m.gone {
		page, err := m.store.List(ctx, ListRequest{Prefix: key, Revision: m.revision, Limit: 1})
		switch {
		case errors.Is(err, ErrCompacted):
			m.mustList(err)
			return nil
		case err != nil:
			return fmt.Errorf("compare with the past: %w", err)
		case len(page.Entries) > 0 && page.Entries[0].Key == key:
			m.mustList(errOtherTime)
			return nil
		}
	}
	return nil
}

func (m *Mirror) mustList(why error) {
	m.relist = true
	m.config.Logger.Warn("cannot resume; listing anew", "prefix", m.config.Prefix, "revision", m.revision, "reason", why)
}

func newest(known map[string]Entry) Entry {
	var n Entry
	for _, e := range known {
		if e.ModRevision > n.ModRevision {
			n = e
		}
	}
	return n
}

// same compares values too: after a restore, one revision can stand for two writes.
func same(a, b Entry) bool {
	return a.Key == b.Key && a.ModRevision == b.ModRevision && a.CreateRevision == b.CreateRevision && bytes.Equal(a.Value, b.Value)
}

// list reads all pages at one revision and delivers them, as the snapshot or as the difference to what is known.
func (m *Mirror) list(ctx context.Context) error {
	s, err := m.read(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	listed := make(map[string]Entry, len(s.Entries))
	for _, e := range s.Entries {
		listed[e.Key] = e
	}
	if m.Synced() {
		m.handler.Batch(difference(m.known, listed, s))
	} else {
		m.handler.Snapshot(s)
	}
	m.known, m.gone = listed, nil
	m.relist = false
	m.barren = 0
	m.heard(s.ClusterID, s.Revision)
	for _, b := range s.Since { // which the handler has
		m.remember(b)
		m.heard(b.ClusterID, b.Revision)
	}
	return nil
}

// read reads the newest state, or, the first time, one of the past and what followed. Without a past it is still complete.
func (m *Mirror) read(ctx context.Context) (Snapshot, error) {
	if m.Synced() || m.config.History <= 0 {
		return m.readPages(ctx, 0)
	}
	s, err := m.readPast(ctx)
	if err == nil || ctx.Err() != nil {
		return s, err
	}
	m.config.Logger.Warn("the store's past cannot be read; going on without", "prefix", m.config.Prefix, "error", err)
	return m.readPages(ctx, 0)
}

// readPast reads the state of History revisions ago, or the oldest there is, and what happened since.
func (m *Mirror) readPast(ctx context.Context) (Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StaleAfter)
	defer cancel()
	head, err := m.store.Head(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	from := max(head.Revision-m.config.History, 1)
	s, err := m.readPages(ctx, from)
	if errors.Is(err, ErrCompacted) {
		if from, err = m.oldest(ctx, from); err == nil {
			s, err = m.readPages(ctx, from)
		}
	}
	if err != nil {
		return s, err
	}
	s.Since, err = m.readSince(ctx, s, head)
	return s, err
}

// oldest returns the oldest revision that can be listed, when one before it cannot. Whoever watches is told, whoever lists not.
func (m *Mirror) oldest(ctx context.Context, compacted int64) (int64, error) {
	w, err := m.store.Watch(ctx, m.config.Prefix, compacted+1)
	if err == nil {
		_, err = w.Next(ctx)
		_ = w.Close()
	}
	if c := (*CompactedError)(nil); errors.As(err, &c) && c.Revision > 0 {
		return c.Revision, nil
	}
	return 0, fmt.Errorf("find the oldest revision: %w", cmp.Or(err, ErrCompacted))
}

// catchUpProbe is the time between progress requests while the past is read: the newest revision may have changed nothing
// under the prefix, and then only the answer to one tells that all was delivered.
const catchUpProbe = 100 * time.Millisecond

// readSince reads what happened after a listing, up to head.
func (m *Mirror) readSince(ctx context.Context, s Snapshot, head Head) (since []Batch, err error) {
	w, err := m.store.Watch(ctx, m.config.Prefix, s.Revision+1)
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Close() }() // what was read is whole
	for at := s.Revision; at < head.Revision; {
		b, probe, err := m.next(ctx, w, catchUpProbe)
		switch {
		case err != nil:
			return nil, err
		case probe:
			if err := w.RequestProgress(); err != nil {
				return nil, err
			}
			continue
		case b.ClusterID != s.ClusterID || b.Revision < at:
			return nil, errListChanged
		}
		if at = b.Revision; !b.Bookmark() {
			since = append(since, b)
		}
	}
	return since, nil
}

// difference returns the batch that turns known into s, whose entries are also in listed.
func difference(known, listed map[string]Entry, s Snapshot) Batch {
	b := Batch{ClusterID: s.ClusterID, Revision: s.Revision, Synthetic: true}
	for _, e := range s.Entries {
		if old, ok := known[e.Key]; !ok || !same(old, e) {
			b.Puts = append(b.Puts, e)
		}
	}
	for key := range known {
		if _, ok := listed[key]; !ok {
			b.Deletes = append(b.Deletes, key)
		}
	}
	slices.Sort(b.Deletes)
	return b
}

// readPages lists at a revision, or at the newest if that is 0.
func (m *Mirror) readPages(ctx context.Context, revision int64) (Snapshot, error) {
	r := ListRequest{Prefix: m.config.Prefix, Limit: m.config.PageSize, Revision: revision}
	var s Snapshot
	for {
		page, err := m.readPage(ctx, r)
		if err != nil {
			return s, err
		}
		if s.Revision == 0 {
			s.ClusterID, s.Revision = page.ClusterID, page.Revision
		}
		if page.ClusterID != s.ClusterID || page.Revision != s.Revision {
			return s, errListChanged
		}
		s.Entries = append(s.Entries, page.Entries...)
		if !page.More {
			return s, nil
		}
		r.Revision, r.After = page.Revision, page.Entries[len(page.Entries)-1].Key
	}
}

func (m *Mirror) readPage(ctx context.Context, r ListRequest) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.StaleAfter)
	defer cancel()
	return m.store.List(ctx, r)
}

// watch delivers what happens after the current revision until something fails.
func (m *Mirror) watch(ctx context.Context) error {
	m.barren++
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := m.openWatch(ctx, cancel)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer func() { _ = w.Close() }() // the reason for closing is the error that matters

	heard := time.Now()
	for {
		b, probe, err := m.next(ctx, w, m.config.ProbeInterval)
		switch {
		case err != nil:
			return fmt.Errorf("watch: %w", err)
		case !probe:
			if err := m.deliver(b); err != nil {
				m.relist = true
				return err
			}
			heard = time.Now()
		case time.Since(heard) >= m.config.StaleAfter:
			return errStale
		default:
			if err := w.RequestProgress(); err != nil {
				return fmt.Errorf("request progress: %w", err)
			}
		}
	}
}

// openWatch gives the store StaleAfter to accept the watch; the watch's own life has no such bound.
func (m *Mirror) openWatch(ctx context.Context, cancel context.CancelFunc) (Watch, error) {
	giveUp := time.AfterFunc(m.config.StaleAfter, cancel)
	defer giveUp.Stop()
	return m.store.Watch(ctx, m.config.Prefix, m.revision+1)
}

// next waits for a batch, at most until the next probe is due.
func (m *Mirror) next(ctx context.Context, w Watch, interval time.Duration) (b Batch, probe bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, interval)
	defer cancel()
	b, err = w.Next(bounded)
	if err != nil && ctx.Err() == nil && errors.Is(err, bounded.Err()) {
		return b, true, nil
	}
	return b, false, err
}

// deliver hands on a batch that continues what was delivered before, and refuses any other.
func (m *Mirror) deliver(b Batch) error {
	switch {
	case b.ClusterID != m.clusterID:
		return errOtherStore
	case b.Revision < m.revision, b.Revision == m.revision && !b.Bookmark():
		return errBackInTime
	}
	if b.Revision > m.revision {
		m.remember(b)
		m.handler.Batch(b)
	}
	if m.missed {
		m.missed = false
		m.config.Logger.Info("following the store again", "prefix", m.config.Prefix, "revision", b.Revision)
	}
	m.barren = 0
	m.failures = 0
	m.heard(b.ClusterID, b.Revision)
	return nil
}

// remember brings the memory up to a batch.
func (m *Mirror) remember(b Batch) {
	for _, e := range b.Puts {
		m.known[e.Key] = e
	}
	for _, key := range b.Deletes {
		delete(m.known, key)
	}
	if !b.Bookmark() {
		m.gone = b.Deletes[:min(len(b.Deletes), maxGone)]
	}
}

func (m *Mirror) heard(clusterID uint64, revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clusterID, m.revision, m.lastProgress = clusterID, revision, time.Now()
}
