package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

const (
	// maxBar is how many columns the bar of a share takes, if there are so many.
	maxBar = 28
	// minBar is how few it takes.
	minBar = 8
	// wrapped is how many lines the announcement and what to look at may take, each.
	wrapped = 2
	// roomy is how many rows must be left for statements before empty lines are put
	// between the parts.
	roomy = 4
)

// scene is what the screen shows.
type scene struct {
	title, lookAt string
	now           play.Now
	failed        int         // requests, since the start
	hosts         []play.Host // in the order shown
	sagas         []play.Saga // in the order in which they were started
	trace         []string    // a line per span
	statements    []play.Statement
}

// draw fits the scene on a screen: at most height lines of at most width columns,
// escape sequences not counted. What is going on comes first; the statements, newest
// last, get the rows that are left, and the empty lines go before those do.
func draw(s scene, width, height int) []string {
	parts := [][]string{
		{"\x1b[1mFairlead\x1b[0m   client → sidecar → sidecar → orders"},
		s.announcement(width),
		{s.numbers(width)},
		s.instances(width),
	}
	if len(s.sagas) > 0 {
		parts = append(parts, s.orders(width))
	}
	parts = append(parts, append([]string{"  last trace"}, indent(s.trace)...))
	rows := 0
	for _, part := range parts {
		rows += len(part)
	}
	gap := 0
	if rows+len(parts)+roomy <= height {
		gap = 1
	}
	var lines []string
	for _, part := range parts {
		lines = append(lines, part...)
		lines = append(lines, make([]string, gap)...)
	}
	left := min(max(0, height-len(lines)), len(s.statements))
	for _, st := range s.statements[len(s.statements)-left:] {
		lines = append(lines, "  "+line(st))
	}
	lines = lines[:min(len(lines), max(0, height))]
	for i, l := range lines {
		lines[i] = clip(l, width)
	}
	return lines
}

func (s scene) announcement(width int) []string {
	var lines []string
	for _, l := range wrap(s.title, width) {
		lines = append(lines, "\x1b[1;33m"+l+"\x1b[0m")
	}
	const lead = "  look at: "
	for i, l := range wrap(s.lookAt, width-len(lead)) {
		if i == 0 {
			lines = append(lines, lead+l)
		} else {
			lines = append(lines, strings.Repeat(" ", len(lead))+l)
		}
	}
	return lines
}

func (s scene) numbers(width int) string {
	n := s.now
	if width < 80 {
		return fmt.Sprintf("  %.0f/s  ok %.1f %%  p50 %s  p99 %s  failed %d",
			n.PerSecond, success(n.Tally), short(n.P50), short(n.P99), s.failed)
	}
	return fmt.Sprintf("  requests/s %4.0f  success %5.1f %%  p50 %7s  p99 %7s  failures %d",
		n.PerSecond, success(n.Tally), short(n.P50), short(n.P99), s.failed)
}

func (s scene) instances(width int) []string {
	columns := min(max(width-45, minBar), maxBar)
	lines := []string{fmt.Sprintf("  %-9s  %-*s  %-9s  health", "instance", columns+6, "share", "breaker")}
	for _, h := range s.hosts {
		share := s.now.Share(h.Instance)
		lines = append(lines, fmt.Sprintf("  %-9s  %-*s %3.0f %%  %s%-9s\x1b[0m  %s",
			h.Instance, columns, bar(share, columns), 100*share, colour(h.Breaker), h.Breaker, strings.ToLower(h.Health)))
	}
	return lines
}

// orders shows each saga with the state of its steps, and the calls that each took. Few columns have marks for the states.
func (s scene) orders(width int) []string {
	lines := []string{"  sagas, each with its steps (and their calls)"}
	for _, saga := range s.sagas {
		steps := saga.String()
		if width < 80 {
			steps = marks(saga)
		}
		lines = append(lines, fmt.Sprintf("  %s %s%s\x1b[0m: %s", saga.ID, sagaColour(saga.State), saga.State, steps))
	}
	return lines
}

func marks(s play.Saga) string {
	var steps []string
	for _, step := range s.Steps {
		mark := "…"
		switch step.State {
		case "pending":
			mark = "·"
		case "done":
			mark = "✓"
		case "refused":
			mark = "✗"
		case "compensated":
			mark = "↶"
		}
		if step.Calls() > 0 {
			mark += fmt.Sprintf(" (%d)", step.Calls())
		}
		steps = append(steps, step.Name+" "+mark)
	}
	return strings.Join(steps, ", ")
}

func indent(lines []string) []string {
	indented := make([]string, 0, len(lines))
	for _, l := range lines {
		indented = append(indented, "  "+l)
	}
	return indented
}

// wrap breaks a sentence between words; what does not fit on the last line allowed is
// left for clip.
func wrap(sentence string, width int) []string {
	var lines []string
	l := ""
	for _, word := range strings.Fields(sentence) {
		switch {
		case l == "":
			l = word
		case len(lines) == wrapped-1 || utf8.RuneCountInString(l+" "+word) <= width:
			l += " " + word
		default:
			lines = append(lines, l)
			l = word
		}
	}
	return append(lines, l)
}

// clip cuts a line to a width. An escape sequence, ESC to the next letter, has no
// width, and is kept behind the cut too, so that no colour runs on. Other control
// characters, as in an error of several lines, become spaces.
func clip(line string, width int) string {
	var b strings.Builder
	column := 0
	escape := false
	for _, r := range line {
		switch {
		case escape || r == '\x1b':
			b.WriteRune(r)
			escape = r < 'A' || r == '['
		case column >= width:
		case r < ' ':
			b.WriteRune(' ')
			column++
		default:
			b.WriteRune(r)
			column++
		}
	}
	return b.String()
}
