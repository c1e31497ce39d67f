package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// report is what a soak has shown.
type report struct {
	Settings  settings                    `json:"settings"`
	Took      time.Duration               `json:"took"`
	Bulk      []bulk                      `json:"bulk"`
	Done      []tally                     `json:"done"`
	Events    map[string]int              `json:"events"`
	live      [2]map[string]int64         // when warm, and when the load ended
	Held      held                        `json:"held"`      // when everything was warm
	HeldAtEnd held                        `json:"heldAtEnd"` // when the load ended
	Trends    map[string]map[string]trend `json:"trends"`    // by process and quantity
	Samples   map[string][]sample         `json:"samples"`   // by process
	Rest      map[string]rested           `json:"rest"`      // by process
	Faults    []string                    `json:"faults"`    // what is not as it must be
}

// held is what was open at a time.
type held struct {
	Idle    int64 `json:"idle"`
	Streams int64 `json:"streams"`
}

// isAll reports whether all was open, but for streams through instances that are killed.
func (h held) isAll(s settings) bool {
	steadily := int64(0)
	for n := range s.Streams {
		if !isVictim(n) {
			steadily++
		}
	}
	return h.Idle >= int64(s.Idle) && h.Streams >= steadily
}

// rested is a process before and after the load.
type rested struct {
	Before sample `json:"before"`
	After  sample `json:"after"`
}

func (r *report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// shown is how many unexplained failures are told one by one.
const shown = 50

// judge takes over what was seen, and says what is not as it must be.
func (r *report) judge(s settings, l *ledger, w *watch) {
	tallies, unexplained := l.judge()
	r.Done, r.Events = tallies, l.occurred()
	if len(unexplained) > 0 {
		r.fault("%d failures are unexplained", len(unexplained))
		r.Faults = append(r.Faults, unexplained[:min(len(unexplained), shown)]...)
	}
	for at, h := range map[string]held{"when everything was to be warm": r.Held, "when the load ended": r.HeldAtEnd} {
		if !h.isAll(s) {
			r.fault("%s, only %d idle connections and %d long streams were open", at, h.Idle, h.Streams)
		}
	}
	r.Trends, r.Samples = map[string]map[string]trend{}, w.samples
	for _, name := range slices.Sorted(maps.Keys(w.samples)) {
		samples := w.samples[name]
		since := w.since
		live, isKnown := r.live[0][name]
		if !isKnown { // the control plane's
			live = 16 << 20
			if itself := l.lastStart().Add(s.becoming()); itself.After(since) {
				since = itself
			}
		}
		r.Trends[name] = trends(samples, since, live)
		if isKnown {
			r.Trends[name][liveHeap] = fit([]float64{0, 1}, []float64{float64(live), float64(r.live[1][name])}, growthOf(liveHeap, live))
		}
		if len(samples) < 3 {
			r.fault("%s was sampled %d times only", name, len(samples))
		}
		for quantity, t := range r.Trends[name] {
			if t.Rising {
				r.fault("%s: %s rise from %.0f to %.0f, by more than %.0f", name, quantity, t.First, t.Last, t.Bound)
			}
		}
	}
}

// becoming is how long the control plane takes to be itself again after a start.
func (s settings) becoming() time.Duration { return time.Duration(s.Seconds) * time.Second / 6 }

// write writes the report as text, which it prints, and as JSON.
func (r *report) write(path string) error {
	text := r.text()
	fmt.Print(text)
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(path+".txt", []byte(text), 0o600), os.WriteFile(path+".json", append(b, '\n'), 0o600))
}

func (r *report) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("\nsoak: %v under load, seed %d", r.Took.Round(time.Second), r.Settings.Seed)
	line("\nlarge bodies through two sidecars")
	for _, t := range r.Bulk {
		peak := int64(0)
		for _, p := range t.Peak {
			peak = max(peak, p)
		}
		line("  %-14s %d bytes in %v, at most %.1f MB resident", t.Kind, t.Bytes, t.Took.Round(time.Millisecond), float64(peak)/1e6)
	}
	line("\nwhat happened")
	for _, what := range slices.Sorted(maps.Keys(r.Events)) {
		line("  %4d × %s", r.Events[what], what)
	}
	line("\nwhat clients saw%50s", "well   explained   unexplained")
	for _, t := range r.Done {
		explained := 0
		for _, n := range t.Explained {
			explained += n
		}
		line("  %-44s %7d   %9d   %11d", t.Kind, t.Succeeded, explained, t.Unexplained)
		for _, why := range slices.Sorted(maps.Keys(t.Explained)) {
			line("      %d × %s", t.Explained[why], why)
		}
	}
	line("\nheld: %d idle connections and %d long streams when warm, %d and %d at the end", r.Held.Idle, r.Held.Streams, r.HeldAtEnd.Idle, r.HeldAtEnd.Streams)
	line("\nlines fitted from the first third on        from          to        most    may grow by")
	for _, name := range slices.Sorted(maps.Keys(r.Trends)) {
		for _, quantity := range slices.Sorted(maps.Keys(r.Trends[name])) {
			t := r.Trends[name][quantity]
			unit, format := 1.0, "%.0f"
			if quantity == "resident" || quantity == liveHeap {
				unit, format = 1e6, "%.1f MB"
			}
			n := func(v float64) string { return fmt.Sprintf(format, v/unit) }
			line("  %-14s %-12s %18s %11s %11s %14s", name, quantity, n(t.First), n(t.Last), n(t.Most), n(t.Bound))
		}
	}
	line("\nat rest                  resident          goroutines        descriptors       connections")
	for _, name := range slices.Sorted(maps.Keys(r.Rest)) {
		x := r.Rest[name]
		line("  %-14s %8.1f → %.1f MB %9d → %-6d %9d → %-6d %9d → %d", name, float64(x.Before.Resident)/1e6, float64(x.After.Resident)/1e6,
			x.Before.Goroutines, x.After.Goroutines, x.Before.Descriptors, x.After.Descriptors, x.Before.Connections, x.After.Connections)
	}
	if len(r.Faults) == 0 {
		line("\neverything is as it must be")
		return b.String()
	}
	line("\nnot as it must be")
	for _, f := range r.Faults {
		line("  %s", f)
	}
	return b.String()
}
