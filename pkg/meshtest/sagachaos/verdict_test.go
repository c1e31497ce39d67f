package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// trace writes evidence down: its clock goes on with each effect and call.
type trace struct {
	e  evidence
	at int64
}

// called is a call that has arrived.
func (tr *trace) called(key string, attempt int, fence int64) {
	tr.at++
	id, step, what := split(key)
	b := said{Saga: id, Step: step}
	if what == action {
		b.Giver = giver(&tr.e.sagas[id].definition.Steps[tr.place(id, step)])
	}
	if b.Giver != "" {
		b.Given = id + b.Giver
	}
	tr.e.calls = append(tr.e.calls, call{At: tr.at, Key: key, Attempt: attempt, Fence: fence, Path: pathOf(what), Body: string(text(b))})
}

func (tr *trace) place(id, step string) int {
	return slices.IndexFunc(tr.e.sagas[id].definition.Steps, func(s saga.Step) bool { return s.Name == step })
}

// worked is a call that has arrived, and its effect.
func (tr *trace) worked(key string) {
	tr.called(key, 1, 7)
	tr.at++
	id, step, what := split(key)
	f := effect{saga: id, step: step, what: what, id: id + step, given: none, at: tr.at}
	if from := giver(&tr.e.sagas[id].definition.Steps[tr.place(id, step)]); from != "" && what == action {
		f.given = id + from
	}
	tr.e.effects = append(tr.e.effects, f)
}

// ends says how a saga is shown at the end.
func (tr *trace) ends(id string, state saga.State, steps ...saga.StepState) {
	a := tr.e.sagas[id]
	a.last = view{State: state, Reason: "as it is"}
	for i, s := range steps {
		a.last.Steps = append(a.last.Steps, struct {
			Name   string          `json:"name"`
			State  saga.StepState  `json:"state"`
			Text   string          `json:"text"`
			Result json.RawMessage `json:"result"`
		}{Name: a.definition.Steps[i].Name, State: s, Result: text(map[string]string{"id": id + a.definition.Steps[i].Name})})
	}
}

// honest returns the evidence of four sagas that went as they should: done, a completed chain a, b, p (the pivot), c; undone, where c was refused behind
// a and b; open, which was never acknowledged, and absent; and parked.
func honest() *trace {
	tr := &trace{e: evidence{sagas: map[string]*account{}}}
	step := func(name string, kind saga.Kind, from string) saga.Step {
		return saga.Step{Name: name, Kind: kind, Action: saga.Call{Body: text(said{Step: name, Giver: from})}}
	}
	tr.e.sagas["done"] = &account{acknowledged: true, definition: &saga.Definition{ID: "done", Steps: []saga.Step{
		step("a", "", ""), step("b", "", "a"), step("p", saga.Pivot, ""), step("c", saga.Retriable, "b")}}}
	for _, name := range []string{"undone", "parked", "open"} {
		tr.e.sagas[name] = &account{acknowledged: name != "open", absent: name == "open",
			definition: &saga.Definition{ID: name, Steps: []saga.Step{step("a", "", ""), step("b", "", ""), step("c", "", "")}}}
	}
	for _, key := range []string{"done/a/action", "done/b/action", "done/p/action", "done/c/action", "undone/a/action", "undone/b/action"} {
		tr.worked(key)
	}
	tr.called("undone/b/action", 2, 9)
	tr.called("undone/c/action", 1, 9)
	tr.called("undone/c/compensate", 1, 9)
	for _, key := range []string{"undone/b/compensate", "undone/a/compensate"} {
		tr.worked(key)
		tr.e.calls[len(tr.e.calls)-1].Fence = 9
	}
	tr.called("undone/b/action", 3, 9)
	tr.worked("parked/a/action")
	tr.ends("done", saga.Completed, saga.StepDone, saga.StepDone, saga.StepDone, saga.StepDone)
	tr.ends("undone", saga.Compensated, saga.StepCompensated, saga.StepCompensated, saga.StepCompensated)
	tr.ends("parked", saga.Parked, saga.StepDone, saga.StepRunning, saga.StepPending)
	return tr
}

// of returns the effect of a call.
func (tr *trace) of(key string) *effect {
	for i := range tr.e.effects {
		if f := &tr.e.effects[i]; f.saga+"/"+f.step+"/"+f.what == key {
			return f
		}
	}
	panic("no effect of " + key)
}

// drop takes an effect away.
func (tr *trace) drop(key string) {
	f := *tr.of(key)
	tr.e.effects = slices.DeleteFunc(tr.e.effects, func(g effect) bool { return f == g })
}

func TestSagasThatWentAsTheyShouldAreNoViolations(t *testing.T) {
	v := honest().e.judge()
	if len(v.Violations) > 0 {
		t.Error(v.Violations)
	}
	got := fmt.Sprint(v.States, v.Lost, v.Taken, v.Steps, v.Calls, v.Effects, v.Cases)
	want := fmt.Sprint(map[saga.State]int{saga.Completed: 1, saga.Compensated: 1, saga.Parked: 1}, 1, 0, 10, 13, 9,
		map[string]int{caseDuplicate: 2, caseNull: 1, caseHanging: 1, caseOvertaken: 0, caseDeposed: 0, caseTakenOver: 1})
	for _, name := range []string{caseOvertaken, caseDeposed} {
		want = strings.Replace(want, name+":0 ", "", 1)
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPlantedViolationsAreFound(t *testing.T) {
	for what, plant := range map[string]func(tr *trace){
		"it was acknowledged, and is lost":                     func(tr *trace) { tr.e.sagas["open"].acknowledged = true },
		"it is absent, and was called":                         func(tr *trace) { tr.called("open/a/action", 1, 1) },
		"nobody started it":                                    func(tr *trace) { tr.e.calls[0].Key = "another/a/action" },
		"it is parked without a reason":                        func(tr *trace) { tr.e.sagas["parked"].last.Reason = "" },
		"it has neither ended nor is it parked":                func(tr *trace) { tr.ends("parked", saga.Running, saga.StepDone) },
		"it was completed, and is compensated":                 func(tr *trace) { tr.e.sagas["undone"].ended = saga.Completed },
		"its abortion was acknowledged":                        func(tr *trace) { tr.e.sagas["done"].aborted = true },
		"it is completed, and step c is running":               func(tr *trace) { tr.ends("done", saga.Completed, "done", "done", "done", "running") },
		"it is completed, and step c is skipped":               func(tr *trace) { tr.ends("done", saga.Completed, "done", "done", "done", "skipped") },
		"it is compensated, and step a is done":                func(tr *trace) { tr.ends("undone", saga.Compensated, "done") },
		"something that was answered":                          func(tr *trace) { tr.e.sagas["done"].complaints = []string{"something that was answered"} },
		"it is completed, and the net effect of step c is 0":   func(tr *trace) { tr.drop("done/c/action") },
		"it is compensated, and the net effect of step a is 1": func(tr *trace) { tr.drop("undone/a/compensate") },
		"step b was done 2 times":                              func(tr *trace) { tr.e.effects = append(tr.e.effects, *tr.of("done/b/action")) },
		"step a was undone 2 times":                            func(tr *trace) { tr.e.effects = append(tr.e.effects, *tr.of("undone/a/compensate")) },
		"step a was undone, and never done":                    func(tr *trace) { tr.drop("undone/a/action") },
		"step b was done behind its compensation":              func(tr *trace) { tr.of("undone/b/action").at = 1000 },
		"step p is pivot, and its compensation was called":     func(tr *trace) { tr.called("done/p/compensate", 1, 9) },
		"step c is retriable, and its compensation was called": func(tr *trace) { tr.called("done/c/compensate", 1, 9) },
		"its pivot is done, and step a was undone":             func(tr *trace) { tr.worked("done/a/compensate") },
		"step c was done before step b, which it comes behind": func(tr *trace) { tr.of("done/b/action").at = tr.of("done/c/action").at + 1 },
		"step a was undone before step b, which comes behind it": func(tr *trace) {
			tr.of("undone/b/compensate").at = tr.of("undone/a/compensate").at + 1
		},
		"its action has an effect, and was never called": func(tr *trace) {
			tr.e.calls = slices.DeleteFunc(tr.e.calls, func(c call) bool { return c.Key == "done/a/action" })
		},
		`step b was given "other", and step a had made "donea"`:           func(tr *trace) { tr.of("done/b/action").given = "other" },
		`the compensation of step a was given "other"`:                    func(tr *trace) { tr.of("undone/a/compensate").given = "other" },
		`the result of step c is {"id":"donec"}, and it had made "other"`: func(tr *trace) { tr.of("done/c/action").id = "other" },
		`it was called with the key of step "z", "action"`:                func(tr *trace) { tr.e.calls[0].Key = "done/z/action" },
		`it was called with the key of step "a", "undo"`:                  func(tr *trace) { tr.e.calls[0].Key = "done/a/undo" },
		"step a: the action went to /act with":                            func(tr *trace) { tr.e.calls[0].Body = `{"saga":"done","step":"b"}` },
		"step a: the action went to /act/undo":                            func(tr *trace) { tr.e.calls[0].Path = pathOf(compensate) },
		"step a: attempt 1 at the action came twice":                      func(tr *trace) { tr.called("done/a/action", 1, 7) },
		"step b: attempt 2 at the action says": func(tr *trace) {
			tr.called("done/b/action", 2, 7)
			tr.e.calls[len(tr.e.calls)-1].Body = `{"saga":"done","step":"b"}`
		},
		"step b: attempt 4 at the action has the fence 8, the one before had 9":   func(tr *trace) { tr.called("undone/b/action", 4, 8) },
		"step b: its action has the fence 7, and what comes before, of step a, 8": func(tr *trace) { tr.called("done/a/action", 2, 8) },
		"step c: its compensate has the fence 9, and what comes before, of step c, 10": func(tr *trace) {
			tr.called("undone/c/action", 2, 10)
		},
	} {
		tr := honest()
		plant(tr)
		if v := tr.e.judge(); !slices.ContainsFunc(v.Violations, func(f string) bool { return strings.Contains(f, what) }) {
			t.Errorf("%s: found are %q", what, v.Violations)
		}
	}
}

func TestWhatSomebodyDidByHandIsNoViolationOfItsStep(t *testing.T) {
	tr := honest()
	tr.drop("done/b/action")
	tr.of("done/c/action").given = none
	tr.ends("done", saga.Completed, saga.StepDone, saga.StepSkipped, saga.StepDone, saga.StepDone)
	tr.e.sagas["done"].byHand = map[string]bool{"b": true}
	if v := tr.e.judge(); len(v.Violations) > 0 {
		t.Error(v.Violations)
	}
}

func TestSagasThatAreMadeUpAreTakenAndComeInAllShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pivots, chains, deadlines := 0, 0, 0
	const n = 500
	for i := range n {
		d := define(r, fmt.Sprint("x-", i), []string{"one", "other"})
		if err := d.Check(); err != nil {
			t.Fatalf("%v: %s", err, text(d))
		}
		isChain := true
		for _, s := range d.Steps {
			if s.Kind == saga.Pivot {
				pivots++
			}
			isChain = isChain && s.After == nil
		}
		if isChain {
			chains++
		}
		if d.Deadline > 0 {
			deadlines++
		}
	}
	for what, m := range map[string]int{"pivots": pivots, "chains": chains, "deadlines": deadlines} {
		if m < n/20 || m > n-n/20 {
			t.Errorf("%d of %d have %s", m, n, what)
		}
	}
}

func TestACallMeetsTheSameFaultWithTheSameSeed(t *testing.T) {
	met := map[string]int{}
	for i := range 2000 {
		key, attempt := fmt.Sprintf("x-%d/s0/action", i/4), 1+i%4
		o := orderFor(3, key, attempt, true, timeout)
		if again := orderFor(3, key, attempt, true, timeout); again != o {
			t.Fatalf("%s, attempt %d: %v, and then %v", key, attempt, o, again)
		}
		met[o.Fault]++
	}
	for _, fault := range []string{works, refuses, fails, failsBehind, late, slow, breaks, breaksBehind, halfway, later, behind} {
		if met[fault] == 0 {
			t.Errorf("no call meets %q", fault)
		}
	}
}
