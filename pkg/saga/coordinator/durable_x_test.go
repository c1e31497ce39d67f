package coordinator_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestNothingIsAcknowledgedOrCalledBeforeThatIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Store: memstore.New()}
		defer func() { _ = s.Close() }()
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			if r.Step == "b" && !r.Undo {
				return saga.Outcome{Answer: saga.AnswerRefused}
			}
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		defer stop()
		s.pause.Store(int64(time.Second))
		acknowledged := make(chan error, 1)
		go func() {
			_, err := c.Start(t.Context(), define(t, "order-1"))
			acknowledged <- err
		}()
		ended := make(chan error, 1)
		time.Sleep(500 * time.Millisecond)
		go func() {
			_, err := c.Wait(t.Context(), "order-1")
			ended <- err
		}()
		for written, made := range []string{"", "a 1", "a 1, b 1", "a 1, b 1, a' 1", "a 1, b 1, a' 1"} {
			synctest.Wait()
			if calls.String() != made || len(acknowledged) != min(written, 1) || len(ended) != written/4 {
				t.Errorf("behind %d batches: called %q, acknowledged %d, ended %d", written, calls, len(acknowledged), len(ended))
			}
			time.Sleep(time.Second)
		}
	})
}

// What was called once is called again as it was, though it would be made otherwise of the results there are now.
func TestWhatWasMadeOfResultsIsReadByTheSuccessorAndNotMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		var undone []string
		calls := &callers{answer: func(ctx context.Context, r *coordinator.Request) saga.Outcome {
			switch r.Step {
			case "b":
				return saga.Outcome{Answer: saga.AnswerRefused}
			case "a":
				if r.Undo {
					undone = append(undone, r.Call.Path)
					return saga.Outcome{Answer: saga.AnswerUnknown}
				}
			}
			return done(ctx, r)
		}}
		c, stop := begin(t, s, calls, "one")
		start(t, c, define(t, "order-1"))
		time.Sleep(time.Second)
		stop()
		page, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root + "sagas/"})
		if err != nil {
			t.Fatal(err)
		}
		kept := map[string]saga.Call{}
		for _, e := range page.Entries {
			if _, name, ok := strings.Cut(e.Key, "/call/"); ok {
				var call saga.Call
				if err := json.Unmarshal(e.Value, &call); err != nil {
					t.Fatal(err)
				}
				kept[name] = call
			}
		}
		if len(kept) != 2 || kept["order-1/a/compensate"].Path != "/undo/r1" || kept["order-1/b/action"].Path != "/b/r1" {
			t.Errorf("%+v", kept)
		}
		synctest.Wait() // for the calls under way
		made := len(undone)
		_, stop = begin(t, s, calls, "two")
		defer stop()
		time.Sleep(time.Minute)
		synctest.Wait()
		if made == 0 || len(undone) <= made || slices.ContainsFunc(undone, func(p string) bool { return p != "/undo/r1" }) {
			t.Error(made, undone)
		}
	})
}
