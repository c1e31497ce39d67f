package meshctl

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	sagas "github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

// The shape of a timeline.
const (
	timelineColumns = 100 // as wide as it is, where the texts leave leastBar for the bars
	leastBar        = 36
	mostBar         = 64
	maxStepShown    = 24
	// Of more than maxBars calls one after the other to the same, those in the middle are one row.
	maxBars, firstBars, lastBars = 8, 2, 4
)

// bar is a row of a timeline: a call, or several to the same.
type bar struct {
	step, call string
	at, end    time.Duration // from the start of the saga
	took       string
	answer     string
	fill       rune // of the bar; 0: there is none
}

// timelineRows returns what was called, in the order of time, as a table whose last column has the calls as bars on one axis. There is none if nothing was called.
func timelineRows(v *sagas.Saga, now time.Time) [][]string {
	var bars []bar
	for i := range v.Steps {
		for _, call := range []string{sagas.CallAction, sagas.CallCompensate} {
			bars = append(bars, barsOf(v, &v.Steps[i], call, now)...)
		}
	}
	if len(bars) == 0 {
		return nil
	}
	slices.SortStableFunc(bars, func(a, b bar) int { return cmp.Compare(a.at, b.at) })
	rows := [][]string{{"STEP", "CALL", "AT", "TOOK", "ANSWER"}}
	for _, b := range bars {
		at := "-"
		if b.fill != 0 {
			at = "+" + b.at.String()
		}
		rows = append(rows, []string{b.step, b.call, at, b.took, b.answer})
	}
	a := newAxis(bars, min(max(timelineColumns-widthOf(rows), leastBar), mostBar))
	rows[0] = append(rows[0], a.labels())
	for i, b := range bars {
		rows[i+1] = append(rows[i+1], a.draw(b))
	}
	return rows
}

// barsOf returns the calls of a step to its action, or to its compensation.
func barsOf(v *sagas.Saga, step *sagas.Step, call string, now time.Time) []bar {
	calls := slices.DeleteFunc(slices.Clone(step.Timeline), func(c sagas.Attempt) bool { return c.Call != call })
	if len(calls) == 0 {
		return nil
	}
	name := step.Name
	if len(name) > maxStepShown {
		name = name[:maxStepShown-3] + "..."
	}
	what := "action"
	if call == sagas.CallCompensate {
		what = "undo"
	}
	named := func(first, last int) string {
		if first == last {
			return what + " " + strconv.Itoa(first)
		}
		return fmt.Sprintf("%s %d-%d", what, first, last)
	}
	all := make([]bar, len(calls))
	for i, c := range calls {
		b := bar{step: name, call: named(c.Attempt, c.Attempt), at: max(0, c.At.Sub(v.Started.Truncate(time.Millisecond)))}
		b.took, b.answer, b.fill = "-", answerText(c.Answer), fillOf(c.Answer)
		took := time.Duration(c.Took)
		if c.Answer == "" {
			took = max(0, now.Sub(c.At))
		}
		if b.end = b.at + max(took, time.Millisecond); took > 0 {
			b.took = brief(took)
		}
		all[i] = b
	}
	if len(all) > maxBars {
		skipped := all[firstBars : len(all)-lastBars]
		one := skipped[0]
		one.call = named(calls[firstBars].Attempt, calls[len(all)-lastBars-1].Attempt)
		one.end, one.took, one.answer, one.fill = skipped[len(skipped)-1].end, "-", answersOf(skipped), '╌'
		all = slices.Concat(all[:firstBars], []bar{one}, all[len(all)-lastBars:])
	}
	if first := calls[0].Attempt; first > 1 {
		all = slices.Insert(all, 0, bar{step: name, call: named(1, first-1), at: all[0].at, end: all[0].at, took: "-", answer: "not kept"})
	}
	return all
}

// answersOf says what was answered to several calls, most often first.
func answersOf(bars []bar) string {
	counts := map[string]int{}
	var answers []string
	for _, b := range bars {
		if counts[b.answer]++; counts[b.answer] == 1 {
			answers = append(answers, b.answer)
		}
	}
	slices.SortStableFunc(answers, func(a, b string) int { return counts[b] - counts[a] })
	for i, a := range answers {
		answers[i] = fmt.Sprintf("%d %s", counts[a], a)
	}
	return strings.Join(answers, ", ")
}

func answerText(a saga.Answer) string {
	switch a {
	case "":
		return "under way"
	case saga.AnswerPending:
		return "not yet"
	case saga.AnswerNotRun:
		return "not run"
	default:
		return string(a)
	}
}

// fillOf is what a bar is made of: the more has surely happened, the darker.
func fillOf(a saga.Answer) rune {
	switch a {
	case saga.AnswerDone:
		return '█'
	case saga.AnswerRefused:
		return 'x'
	case saga.AnswerNotRun:
		return '·'
	case saga.AnswerPending:
		return '░'
	case "":
		return '>'
	default:
		return '▒'
	}
}

// axis maps times to columns. Each stretch between two things that happen is as wide as the 0.3th power of its time: so 3 ms can be seen beside a pause of 10 s, which
// still is the longer one, and the order is kept.
type axis struct {
	times   []time.Duration // when something begins or ends, ascending
	columns []float64       // where that is
	width   int
}

func newAxis(bars []bar, width int) *axis {
	a := &axis{times: []time.Duration{0}, width: width}
	for _, b := range bars {
		a.times = append(a.times, b.at, b.end)
	}
	slices.Sort(a.times)
	a.times = slices.Compact(a.times)
	a.columns = make([]float64, len(a.times))
	for i := 1; i < len(a.times); i++ {
		a.columns[i] = a.columns[i-1] + math.Pow(float64(a.times[i]-a.times[i-1])/float64(time.Millisecond), 0.3)
	}
	if whole := a.columns[len(a.columns)-1]; whole > 0 {
		for i := range a.columns {
			a.columns[i] *= float64(width) / whole
		}
	}
	return a
}

// column returns where a time of the axis is.
func (a *axis) column(t time.Duration) int {
	i := sort.Search(len(a.times)-1, func(i int) bool { return a.times[i] >= t })
	return min(int(math.Round(a.columns[i])), a.width-1)
}

// draw returns a bar: a column at the least.
func (a *axis) draw(b bar) string {
	if b.fill == 0 {
		return ""
	}
	begin := a.column(b.at)
	return strings.Repeat(" ", begin) + strings.Repeat(string(b.fill), max(1, a.column(b.end)-begin))
}

// labels says what times there are, as many as there is room for: each begins at the column of its time.
func (a *axis) labels() string {
	line := ""
	for _, t := range a.times {
		label, at := brief(t), a.column(t)
		if t > 0 && at < len(line)+2 || at+len(label) > a.width {
			continue
		}
		line += strings.Repeat(" ", at-len(line)) + label
	}
	return line
}

// brief is a time with three digits or so: 12ms, 1.25s, 1m5s.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "0s"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < 10*time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

// widthOf is how wide a table is before its last column.
func widthOf(rows [][]string) int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len(cell)+2)
		}
	}
	width := 0
	for _, w := range widths {
		width += w
	}
	return width
}
