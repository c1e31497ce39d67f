package etcdstore

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// response parses "5:a 5:b 6:-c": revision and key, "-" for a deletion.
func response(t *testing.T, fragment bool, header int64, events string) *pb.WatchResponse {
	t.Helper()
	resp := &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: 7, Revision: header}, Fragment: fragment}
	for _, text := range strings.Fields(events) {
		var e mvccpb.Event
		e.Kv = new(mvccpb.KeyValue)
		var key string
		if _, err := fmt.Sscanf(text, "%d:%s", &e.Kv.ModRevision, &key); err != nil {
			t.Fatal(err)
		}
		if name, deleted := strings.CutPrefix(key, "-"); deleted {
			e.Type, key = mvccpb.Event_DELETE, name
		}
		e.Kv.Key = []byte(key)
		resp.Events = append(resp.Events, &e)
	}
	return resp
}

func describe(batches []store.Batch) []string {
	var out []string
	for _, b := range batches {
		line := fmt.Sprint(b.Revision)
		for _, e := range b.Puts {
			line += " " + e.Key
		}
		for _, key := range b.Deletes {
			line += " -" + key
		}
		out = append(out, line)
	}
	return out
}

func TestFragmentsBecomeWholeRevisions(t *testing.T) {
	a := &assembler{next: 5}
	steps := []struct {
		name     string
		fragment bool
		header   int64
		events   string
		want     []string
	}{
		{"a revision before the wanted one is dropped", false, 4, "4:a", nil},
		{"two revisions in one message", false, 6, "5:a 6:b 6:-c", []string{"5 a", "6 b -c"}},
		{"a revision cut in two: only what is surely whole comes", true, 8, "7:a 8:b", []string{"7 a"}},
		{"its middle", true, 8, "8:c", nil},
		{"its end, and the next one", false, 9, "8:d 9:e", []string{"8 b c d", "9 e"}},
		{"progress", false, 12, "", []string{"12"}},
		{"a revision delivered before is not repeated", false, 13, "9:e 13:f", []string{"13 f"}},
	}
	for _, s := range steps {
		if diff := cmp.Diff(s.want, describe(a.add(response(t, s.fragment, s.header, s.events)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}
