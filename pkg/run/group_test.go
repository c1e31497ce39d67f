package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if maybeChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// journal records in which order things happened.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// untilStopped is a member that takes a second of the bubble's time to stop.
func (j *journal) untilStopped(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " asked")
		time.Sleep(time.Second)
		j.add(name + " stopped")
		return ctx.Err()
	}
}

func TestMembersStopInReverseOrderEachAfterItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := New(Config{})
		for _, name := range []string{"store", "server", "listener"} {
			g.Add(name, j.untilStopped(name))
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatalf("a stop that was asked for is no error, got %v", err)
		}
		want := []string{
			"listener asked", "listener stopped", "server asked", "server stopped", "store asked", "store stopped",
		}
		if !slices.Equal(j.lines, want) {
			t.Fatalf("order\n got %q\nwant %q", j.lines, want)
		}
	})
}

func TestFirstReturnStopsAllAndItsErrorNamesTheMember(t *testing.T) {
	errBroken := errors.New("broken")
	for _, tc := range []struct {
		name  string
		first error
		want  string
	}{
		{"error", errBroken, "middle: broken"},
		{"nil", nil, ""},
		{"someone else's cancellation", fmt.Errorf("dial: %w", context.Canceled), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				g := New(Config{})
				g.Add("first", j.untilStopped("first"))
				g.Add("middle", func(context.Context) error { return tc.first })
				g.Add("last", j.untilStopped("last"))
				err := g.Run(t.Context())
				if got := errorText(err); got != tc.want {
					t.Errorf("error %q, want %q", got, tc.want)
				}
				if want := []string{"last asked", "last stopped", "first asked", "first stopped"}; !slices.Equal(j.lines, want) {
					t.Errorf("order %q, want %q", j.lines, want)
				}
			})
		})
	}
}

func TestErrorsOfSeveralMembersAreJoinedInOrderOfAdd(t *testing.T) {
	g := New(Config{})
	for _, name := range []string{"a", "b"} {
		g.Add(name, func(context.Context) error { return errors.New("failed") })
	}
	if got, want := errorText(g.Run(t.Context())), "a: failed\nb: failed"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestStopTimeoutNamesWhoHangsAndStillStopsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var log bytes.Buffer
		release := make(chan struct{})
		g := New(Config{StopTimeout: 5 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		g.Add("flusher", func(ctx context.Context) error {
			<-ctx.Done()
			j.add("flushed")
			return nil
		})
		g.Add("stuck", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		err := g.Run(ctx)
		if !errors.Is(err, ErrStopTimeout) || !strings.Contains(err.Error(), "still running: stuck") {
			t.Errorf("got error %v", err)
		}
		if took := time.Since(began); took != 5*time.Second+lastCall {
			t.Errorf("gave up after %v", took)
		}
		if !slices.Equal(j.lines, []string{"flushed"}) {
			t.Error("the member before the one that hangs was not stopped")
		}
		if !strings.Contains(log.String(), "hanging=stuck") {
			t.Errorf("log does not name who hangs:\n%s", log.String())
		}
		close(release)
	})
}

func TestSlowMemberThatReturnsInTheLastCallIsNamedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{StopTimeout: time.Second})
		g.Add("slow", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second + lastCall/2)
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := g.Run(ctx)
		if !errors.Is(err, ErrStopTimeout) || !strings.Contains(err.Error(), "waited for slow") {
			t.Fatalf("got %v", err)
		}
	})
}

func TestEmptyGroupReturnsAtOnce(t *testing.T) {
	if err := New(Config{}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
