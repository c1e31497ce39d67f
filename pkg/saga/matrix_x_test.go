package saga_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// What the first call of a step's action meets. Later ones work, if nothing was done before that says otherwise.
const (
	works     = iota // and answers so
	refuses          // for good
	isLost           // the call never arrives, and nobody knows
	answers          // it works, and the answer is lost
	unsent           // the call surely never leaves
	overtaken        // nobody knows; the next call is refused, and the first arrives behind it
	moods     = iota
)

// world are the participants of a saga, with barriers: what they have done survives whatever the coordinator does.
type world struct {
	moods   []int
	called  []int
	net     []int  // effects of the action less those of the compensation
	ran     []bool // the action
	undone  []bool // the compensation came, perhaps before the action
	refused []bool
	behind  [][]int // what of a step comes behind each
	slow    []saga.CallRef
	wrong   string // what must not be seen on the way
}

func newWorld(d *saga.Definition, moods []int) *world {
	n := len(moods)
	w := &world{moods: moods, called: make([]int, n), net: make([]int, n),
		ran: make([]bool, n), undone: make([]bool, n), refused: make([]bool, n), behind: make([][]int, n)}
	for i := range d.Steps {
		after := d.Steps[i].After
		if d.ID == "chain" && i > 0 {
			after = []string{d.Steps[i-1].Name}
		}
		for k := range i {
			if slices.Contains(after, d.Steps[k].Name) {
				w.behind[k] = append(w.behind[k], i)
			}
		}
	}
	return w
}

// act is a call that arrives. A barrier lets each of the two happen once, and no action behind its compensation.
func (w *world) act(c saga.CallRef) saga.Answer {
	i := c.Step
	switch {
	case c.Undo:
		if w.ran[i] && !w.undone[i] {
			w.net[i]--
		}
		for _, k := range w.behind[i] {
			if w.net[k] != 0 {
				w.wrong = fmt.Sprintf("step %d is undone before step %d, which comes behind it", i, k)
			}
		}
		w.undone[i] = true
		return saga.AnswerDone
	case w.ran[i]:
		return saga.AnswerDone
	case w.undone[i] || w.refused[i]:
		return saga.AnswerRefused
	case w.moods[i] == refuses:
		w.refused[i] = true
		return saga.AnswerRefused
	}
	w.ran[i] = true
	w.net[i]++
	return saga.AnswerDone
}

// call is one as its coordinator sees it.
func (w *world) call(c saga.CallRef) saga.Answer {
	if !c.Undo {
		w.called[c.Step]++
		if w.called[c.Step] == 2 && w.moods[c.Step] == overtaken {
			return saga.AnswerRefused
		}
		if w.called[c.Step] == 1 {
			switch w.moods[c.Step] {
			case unsent:
				return saga.AnswerNotRun
			case isLost:
				return saga.AnswerUnknown
			case overtaken:
				w.slow = append(w.slow, c)
				return saga.AnswerUnknown
			case answers:
				w.act(c)
				return saga.AnswerUnknown
			}
		}
	}
	return w.act(c)
}

// What becomes of the calls that a coordinator had intended when it ended, or was paused.
const (
	ghostsVanish = iota
	ghostsAtOnce // they are made right before its successor goes on
	ghostsAtLast // they are made when all is over
	ghosts       = iota
)

// run drives a saga through a world to its end. At each of the crash points, which are counted from 0, its coordinator ends and
// another one goes on with what was written. It returns the saga, how many points there were, and whether calls were left intended.
func run(t *testing.T, d *saga.Definition, w *world, crashes []int, ghost int) (_ *saga.Saga, points int, haunted bool) {
	t.Helper()
	now, point := int64(0), -1
	crash := func() bool { point++; return slices.Contains(crashes, point) }
	log, steps := saga.Progress{}, make([]saga.StepProgress, len(d.Steps)) // what is durable
	write := func(s *saga.Saga) {
		copy(steps, s.Steps)
		log = s.Progress
		log.Steps = steps
	}
	var late []saga.CallRef
	s := saga.Start(d, now)
	write(s)
	for range 10_000 {
		intended := s.Advance(now, nil)
		dead := crash()
		if !dead {
			write(s)
			dead = crash()
			if dead {
				late = append(late, intended...)
			}
		}
		slices.Reverse(intended) // they go out at the same time, and may arrive in any order
		for i, c := range intended {
			if dead {
				break
			}
			if dead = crash(); dead {
				late = append(late, intended[i:]...)
				break
			}
			answer := w.call(c)
			if dead = crash(); dead {
				late = append(late, intended[i+1:]...)
				break
			}
			if err := s.Settle(c, saga.Outcome{Answer: answer}, now, 0.5); err != nil {
				t.Fatal(err)
			}
		}
		if dead {
			haunted = haunted || len(late) > 0
			next, err := saga.Load(d, log)
			if err != nil {
				t.Fatal(err)
			}
			next.Recover(now)
			s = next
			if ghost == ghostsAtOnce {
				for _, c := range late {
					w.act(c)
				}
				late = nil
			}
			continue
		}
		if s.State.Ended() || s.State == saga.Parked {
			for _, c := range w.slow {
				w.act(c)
			}
			if ghost == ghostsAtLast {
				for _, c := range late {
					w.act(c)
				}
			}
			return s, point + 1, haunted
		}
		if len(intended) == 0 {
			at := s.NextAt(0)
			if at <= now {
				t.Fatalf("it neither ends nor waits: %+v", s.Progress)
			}
			now = at
		}
	}
	t.Fatal("it does not end")
	return nil, 0, false
}

// violation says what is wrong with an end, or nothing.
func violation(s *saga.Saga, w *world) string {
	if w.wrong != "" {
		return w.wrong
	}
	for i, p := range s.Steps {
		kind := s.Definition.Steps[i].Kind
		switch {
		case w.net[i] < 0 || w.net[i] > 1:
			return fmt.Sprintf("step %d has an effect %d times", i, w.net[i])
		case s.State == saga.Completed && w.net[i] != 1:
			return fmt.Sprintf("it is completed, and step %d has no effect", i)
		case s.State == saga.Compensated && w.net[i] != 0:
			return fmt.Sprintf("it is compensated, and step %d has an effect", i)
		case s.State == saga.Parked && kind == saga.Compensatable && p.State == saga.StepRefused && w.net[i] != 0:
			return fmt.Sprintf("it says that step %d has no effect", i)
		}
	}
	refusable := func(kind saga.Kind) bool {
		for i, step := range s.Definition.Steps {
			if step.Kind == kind && (w.moods[i] == refuses || w.moods[i] == overtaken) {
				return true
			}
		}
		return false
	}
	if s.State == saga.Parked && !refusable(saga.Pivot) && !refusable(saga.Retriable) {
		return "it is parked without need: " + s.Reason
	}
	return ""
}

// steps makes a definition of words such as "b:pivot<a".
func steps(t *testing.T, words string) *saga.Definition {
	t.Helper()
	d := &saga.Definition{ID: "chain"}
	if strings.Contains(words, "<") {
		d.ID = "graph"
	}
	for word := range strings.FieldsSeq(words) {
		word, after, dag := strings.Cut(word, "<")
		name, kind, _ := strings.Cut(word, ":")
		step := saga.Step{Name: name, Kind: saga.Compensatable, Action: saga.Call{Service: "a", Path: "/" + name}, Retry: saga.Retry{Attempts: 3}}
		if kind != "" {
			step.Kind = saga.Kind(kind)
		}
		if step.Kind == saga.Compensatable {
			step.Compensate = &saga.Call{Service: "a", Path: "/undo/" + name}
		}
		if dag {
			step.After = strings.FieldsFunc(after, func(r rune) bool { return r == ',' })
		}
		d.Steps = append(d.Steps, step)
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	return d
}

var shapes = map[string]string{
	"a chain that can be undone":     "a b c d e",
	"a chain with a pivot":           "a b c:pivot d:retriable e:retriable",
	"a graph that can be undone":     "a< b<a c<a d<b,c e<",
	"a graph with a pivot":           "a< b< c:pivot<a,b d:retriable<c e:retriable<c",
	"a chain that ends with a pivot": "a b c d e:pivot",
}

// A coordinator may end at any point: between any two of what it writes and what it calls. All is done at the end, or all that
// ran is undone once, or the saga is parked, and why.
func TestASagaSurvivesACrashAtEveryPoint(t *testing.T) {
	few := testing.Short() || isRace
	for name, words := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := steps(t, words)
			cases, ended := 0, map[saga.State]int{}
			every := make([]int, len(d.Steps))
			for n := range pow(moods, len(d.Steps)) {
				for i := range every {
					every[i] = n % moods
					n /= moods
				}
				if few && rand.IntN(20) > 0 {
					continue
				}
				_, points, _ := run(t, d, newWorld(d, every), nil, ghostsVanish)
				for at := -1; at < points; at++ {
					for ghost := range ghosts {
						w := newWorld(d, every)
						s, _, haunted := run(t, d, w, []int{at}, ghost)
						cases++
						ended[s.State]++
						if wrong := violation(s, w); wrong != "" {
							t.Fatalf("moods %v, crash at point %d of %d, ghosts %d: %s\n%+v\n%+v", every, at, points, ghost, wrong, s.Progress, *w)
						}
						if !haunted {
							break // the others are the same
						}
					}
				}
			}
			t.Logf("%d cases, 0 violations; ended %v", cases, ended)
		})
	}
}

// And so may those who come after it.
func TestASagaSurvivesCrashesDuringRecovery(t *testing.T) {
	n := 20_000
	if testing.Short() || isRace {
		n = 1000
	}
	for name, words := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := steps(t, words)
			for range n {
				every := make([]int, len(d.Steps))
				for i := range every {
					every[i] = rand.IntN(moods)
				}
				crashes := make([]int, 1+rand.IntN(6))
				for i := range crashes {
					crashes[i] = rand.IntN(40)
				}
				ghost := rand.IntN(ghosts)
				w := newWorld(d, every)
				s, _, _ := run(t, d, w, crashes, ghost)
				if wrong := violation(s, w); wrong != "" {
					t.Fatalf("moods %v, crashes at points %v, ghosts %d: %s\n%+v\n%+v", every, crashes, ghost, wrong, s.Progress, *w)
				}
			}
		})
	}
}

func pow(a, b int) int {
	n := 1
	for range b {
		n *= a
	}
	return n
}
