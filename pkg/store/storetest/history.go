package storetest

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// testMirrorHistory starts mirrors that want to know the past.
func testMirrorHistory(t *testing.T, s suite) {
	s.put(t, "a", "1")
	second := s.put(t, "b", "1")
	third := s.txn(t, store.Txn{Then: []store.Op{store.Delete(s.prefix + "a"), store.Put(s.prefix+"b", []byte("2"))}}).Revision
	fourth := s.put(t, "c", "1")
	// A write beside the prefix moves the revision, and no batch tells of it.
	head := s.txn(t, store.Txn{Then: []store.Op{store.Put(store.Root+"mirrortest/beside", []byte("x"))}}).Revision

	check := func(when string, history, revision int64, entries []string, since ...string) *store.Mirror {
		t.Helper()
		m, recorder := startMirror(t, s.Store, s.prefix, history)
		snapshot := recorder.Snapshots()[0]
		was := map[string]string{}
		for _, e := range snapshot.Entries {
			was[e.Key] = string(e.Value)
		}
		if diff := cmp.Diff(entries, s.names(was)); diff != "" || snapshot.Revision != revision {
			t.Errorf("%s: of revision %d, want %d; entries (-want +got):\n%s", when, snapshot.Revision, revision, diff)
		}
		s.wantBatches(t, recorder, since...)
		if diff := cmp.Diff([]string{"b=2", "c=1"}, s.names(recorder.State())); diff != "" {
			t.Errorf("%s: in the end (-want +got):\n%s", when, diff)
		}
		return m
	}
	now := []string{"b=2", "c=1"}
	since := []string{fmt.Sprintf("%d b=2 -a", third), fmt.Sprintf("%d c=1", fourth)}
	check("none", 0, head, now)
	m := check("three revisions", 3, second, []string{"a=1", "b=1"}, since...)
	if err := s.Compact(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	check("more than is left after compaction", 3, third, []string{"b=2"}, since[1])
	next := s.put(t, "c", "2")
	Eventually(t, "it goes on after its past", func() bool { return m.Revision() >= next })
}
