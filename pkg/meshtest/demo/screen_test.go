package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// busiest is a scene of an act with long texts, late in the play.
func busiest() scene {
	s := scene{
		title:  "o1 and its sidecar are killed (SIGKILL).",
		lookAt: "no failure: the request under way is retried elsewhere; o1 is gone within two seconds",
		now: play.Now{
			Tally:     play.Tally{Requests: 400, ByInstance: map[string]int{"o1": 120, "o2": 118, "o3": 40, "o4": 122}},
			PerSecond: 200, P50: 1234 * time.Microsecond, P99: 156700 * time.Microsecond,
		},
		failed: 15,
		hosts: []play.Host{
			{Instance: "o1", Health: "HEALTHY", Breaker: "closed"}, {Instance: "o2", Health: "HEALTHY", Breaker: "closed"},
			{Instance: "o3", Health: "HEALTHY", Breaker: "half-open"}, {Instance: "o4", Health: "HEALTHY", Breaker: "open"},
		},
		sagas: []play.Saga{
			{ID: "order-1", State: "completed", Steps: []play.SagaStep{{Name: "reserve", State: "done", Attempts: 1}, {Name: "charge", State: "done", Attempts: 2}, {Name: "ship", State: "done", Attempts: 1}}},
			{ID: "order-2", State: "compensated", Steps: []play.SagaStep{{Name: "reserve", State: "compensated", Attempts: 1, Compensations: 1}, {Name: "charge", State: "refused", Attempts: 1}, {Name: "ship", State: "pending"}}},
			{ID: "order-3", State: "running", Steps: []play.SagaStep{{Name: "reserve", State: "done", Attempts: 1}, {Name: "charge", State: "running", Attempts: 1}, {Name: "ship", State: "pending"}}},
		},
		trace: []string{"shop.default GET → o2   server   1.2ms", "└─ shop.default GET     client   1.1ms", "   └─ orders.default GET  server  900µs", "      └─ orders.default GET  client  800µs"},
	}
	for n := range 20 {
		s.statements = append(s.statements, play.Statement{What: fmt.Sprintf("statement %d", n), OK: n != 18, Detail: "several lines\nof " + strings.Repeat("detail ", 10)})
	}
	return s
}

func TestScreenOfAnySizeShowsTheActAndTheNewestStatements(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {60, 16}, {120, 50}} {
		name := fmt.Sprintf("%dx%d", size.width, size.height)
		t.Run(name, func(t *testing.T) {
			got := strings.Join(draw(busiest(), size.width, size.height), "\n") + "\n"
			got = strings.ReplaceAll(got, "\x1b", "ESC")
			golden := filepath.Join("testdata", "screen-"+name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("screen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScreenNeverOverflows(t *testing.T) {
	for width := range 130 {
		for height := range 60 {
			lines := draw(busiest(), width, height)
			if len(lines) > height {
				t.Fatalf("%d lines on a screen of %d rows", len(lines), height)
			}
			for _, l := range lines {
				plain := escapes.ReplaceAllString(l, "")
				if n := utf8.RuneCountInString(plain); n > width || strings.ContainsAny(plain, "\x1b\r\n") {
					t.Fatalf("%d columns on a screen of %d: %q", n, width, l)
				}
			}
		}
	}
}

func TestWithoutColoursALineSaysTheSame(t *testing.T) {
	for _, l := range draw(busiest(), 120, 50) {
		if got, want := withoutColours(l), escapes.ReplaceAllString(l, ""); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
