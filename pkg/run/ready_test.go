package run

import (
	"context"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadyOnceEveryConditionIsMetAndNotAfterOneIsLost(t *testing.T) {
	r := NewReady()
	if !r.OK() {
		t.Fatal("without conditions it is ready")
	}
	table := r.Condition("table", "the first table")
	listener := r.Condition("listener", "")
	want := []Waiting{{"table", "the first table"}, {"listener", "listener"}}
	if got := r.Waiting(); !slices.Equal(got, want) {
		t.Fatalf("waiting %v, want %v", got, want)
	}
	table.Done()
	listener.Done()
	if !r.OK() {
		t.Fatalf("still waiting: %v", r.Waiting())
	}
	table.Wait("drain")
	if got := r.Waiting(); !slices.Equal(got, []Waiting{{"table", "drain"}}) {
		t.Fatalf("waiting %v", got)
	}
}

func TestAwaitBlocksUntilReadyAndSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReady()
		c := r.Condition("table", "the first table")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.Await(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "table: waiting for the first table") {
			t.Fatalf("got %v", err)
		}
		time.AfterFunc(time.Minute, c.Done)
		if err := r.Await(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestReadyOverHTTP(t *testing.T) {
	r := NewReady()
	c := r.Condition("table", "the first table")
	for _, want := range []struct {
		code int
		body string
	}{{503, "table: waiting for the first table\n"}, {200, "ready\n"}} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", "/ready", nil))
		if w.Code != want.code || w.Body.String() != want.body {
			t.Errorf("got %d %q, want %d %q", w.Code, w.Body.String(), want.code, want.body)
		}
		c.Done()
	}
}
