package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const prefix = store.Root + "m/"

func put(t *testing.T, s store.Store, name, value string) int64 {
	t.Helper()
	r, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(prefix+name, []byte(value))}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// follow runs a mirror with the default times inside a synctest bubble and waits until it is idle.
func follow(t *testing.T, s store.Store) (*store.Mirror, *storetest.Recorder) {
	t.Helper()
	return followLogging(t, s, nil)
}

func followLogging(t *testing.T, s store.Store, l *slog.Logger) (*store.Mirror, *storetest.Recorder) {
	t.Helper()
	recorder := new(storetest.Recorder)
	m, err := store.NewMirror(s, store.MirrorConfig{Prefix: prefix, Logger: l}, recorder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("mirror ended with %v, want the context's error", err)
		}
	})
	synctest.Wait()
	return m, recorder
}

func TestMirrorIsNotSyncedBeforeItsFirstListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		s.SetDown(true)
		m, recorder := follow(t, s)
		time.Sleep(time.Minute)
		if m.Synced() || m.Revision() != 0 || len(recorder.Snapshots()) != 0 {
			t.Errorf("synced %t at revision %d with a store that was never there", m.Synced(), m.Revision())
		}
		s.SetDown(false)
		time.Sleep(10 * time.Second) // the longest pause
		synctest.Wait()
		if !m.Synced() || len(recorder.Snapshots()) != 1 {
			t.Errorf("synced %t, %d snapshots; want one, empty as it is", m.Synced(), len(recorder.Snapshots()))
		}
	})
}

// lockedBuffer is what a log was written to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written since the last take.
func (b *lockedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func TestMirrorTellsOfAnOutageOnceAMinuteAndOfItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		told := func() (warned, again int) {
			synctest.Wait()
			text := out.take()
			return strings.Count(text, "level=WARN"), strings.Count(text, "following the store again")
		}
		s := memstore.New()
		followLogging(t, s, slog.New(slog.NewTextHandler(&out, nil)))
		if warned, again := told(); warned != 0 || again != 0 {
			t.Errorf("%d warnings, %d times back, though all is well", warned, again)
		}
		s.SetDown(true)
		if warned, _ := told(); warned != 1 {
			t.Errorf("%d warnings at once, want 1", warned)
		}
		time.Sleep(time.Hour)
		if warned, again := told(); warned < 50 || warned > 60 || again != 0 {
			t.Errorf("%d warnings in an hour, %d times back", warned, again)
		}
		s.SetDown(false)
		time.Sleep(time.Minute)
		if warned, again := told(); warned > 1 || again != 1 {
			t.Errorf("%d warnings, %d times back after the end of the outage", warned, again)
		}
	})
}

func TestMirrorKeepsItsStateWhileTheStoreIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		put(t, s, "a", "1")
		m, recorder := follow(t, s)
		s.SetDown(true)
		time.Sleep(time.Hour)
		if !m.Synced() || len(recorder.State()) != 1 || len(recorder.Batches()) != 0 {
			t.Errorf("after an hour's outage: %v, batches %v; want what was true last", recorder.State(), recorder.Batches())
		}
		if silent := time.Since(m.LastProgress()); silent < 59*time.Minute {
			t.Errorf("last progress %v ago, want it to show the outage", silent)
		}
	})
}

func TestMirrorReplacesAWatchThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		i := &storetest.Interrupter{Store: s}
		put(t, s, "a", "1")
		m, recorder := follow(t, i)
		time.Sleep(time.Minute)
		if n := i.Watches.Load(); n != 1 {
			t.Fatalf("%d watches in an idle minute, want 1", n)
		}
		if silent := time.Since(m.LastProgress()); silent > 3*time.Second {
			t.Errorf("idle, but the last progress is %v ago; the probe interval is 3s", silent)
		}
		s.StallWatches(true)
		time.Sleep(13 * time.Second) // stale after 10 s, noticed at the next probe
		if n := i.Watches.Load(); n != 2 {
			t.Errorf("%d watches, want the stalled one replaced", n)
		}
		s.StallWatches(false)
		put(t, s, "a", "2")
		synctest.Wait()
		if got := recorder.State()[prefix+"a"]; got != "2" {
			t.Errorf("value %q, want the mirror to go on", got)
		}
	})
}

func TestMirrorListsAnewWhenResumingFailsAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		put(t, s, "a", "1")
		_, recorder := follow(t, s)
		for range 3 { // three watches in a row that deliver nothing
			s.BreakWatches()
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if b := recorder.Batches(); len(b) != 1 || !b[0].Synthetic || !b[0].Bookmark() {
			t.Errorf("batches %+v; want one synthetic one without a change", b)
		}
	})
}

func TestMirrorFollowsARestoredBackup(t *testing.T) {
	for _, writes := range []int{0, 5} {
		t.Run(fmt.Sprintf("%d writes after the restore", writes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memstore.New()
				put(t, s, "kept", "1")
				put(t, s, "changed", "old")
				backup := s.Backup()
				put(t, s, "changed", "new")
				put(t, s, "lost", "x")
				i := &storetest.Interrupter{Store: s}
				m, recorder := follow(t, i)
				i.Cut()
				s.Restore(backup)
				var last int64
				for n := range writes {
					last = put(t, s, "since", fmt.Sprint(n))
				}
				i.Restore()
				time.Sleep(time.Minute)
				state := recorder.State()
				if _, lost := state[prefix+"lost"]; lost || state[prefix+"changed"] != "old" || state[prefix+"kept"] != "1" {
					t.Errorf("state %v; want that of the backup", state)
				}
				if b := recorder.Batches(); len(b) != 1 || !b[0].Synthetic || b[0].Revision != max(last, 3) {
					t.Errorf("batches %+v; want one synthetic one", b)
				}
				if m.Revision() != max(last, 3) {
					t.Errorf("revision %d, want the restored store's", m.Revision())
				}
			})
		})
	}
}

func TestMirrorRecognisesABackupFromBeforeADeletion(t *testing.T) {
	for _, only := range []bool{false, true} {
		t.Run(fmt.Sprintf("of the only key: %v", only), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memstore.New()
				put(t, s, "deleted", "1")
				if !only {
					put(t, s, "kept", "1")
				}
				i := &storetest.Interrupter{Store: s}
				_, recorder := follow(t, i)
				backup := s.Backup()
				if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Delete(prefix + "deleted")}}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				i.Cut()
				s.Restore(backup)
				for n := range 5 {
					put(t, s, "since", fmt.Sprint(n))
				}
				i.Restore()
				time.Sleep(time.Minute)
				if state := recorder.State(); state[prefix+"deleted"] != "1" {
					t.Errorf("state %v; want that of the backup", state)
				}
			})
		})
	}
}

func TestMirrorRefusesImpatientConfiguration(t *testing.T) {
	for _, c := range []store.MirrorConfig{
		{Prefix: "/elsewhere"},
		{Prefix: prefix, PageSize: store.MaxPageSize + 1},
		{Prefix: prefix, ProbeInterval: time.Second, StaleAfter: time.Second},
		{Prefix: prefix, RetryMin: time.Second, RetryMax: time.Millisecond},
	} {
		if _, err := store.NewMirror(memstore.New(), c, new(storetest.Recorder)); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%+v: error %v, want ErrInvalid", c, err)
		}
	}
}
