package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// verdict is what the evidence shows.
type verdict struct {
	Violations []string
	States     map[saga.State]int // of the sagas that are there
	Lost       int                // not acknowledged, and absent
	Taken      int                // not acknowledged, and there
	Steps      int                // of all that are there
	Calls      int
	Effects    int
	// Cases are situations that a participant has to stand, by name.
	Cases map[string]int
}

// The cases.
const (
	caseDuplicate = "call came again"
	caseNull      = "compensation of what was never done"
	caseHanging   = "action behind its compensation"
	caseOvertaken = "attempt behind a later one"
	caseDeposed   = "call of an owner behind its successor's"
	caseTakenOver = "step called by several owners"
)

// judge goes through all sagas.
func (e *evidence) judge() verdict {
	v := verdict{States: map[saga.State]int{}, Cases: map[string]int{}, Calls: len(e.calls), Effects: len(e.effects)}
	trials := map[string]*trial{}
	for id, a := range e.sagas {
		trials[id] = newTrial(id, a)
	}
	of := func(id string) *trial {
		t := trials[id]
		if t == nil {
			t = newTrial(id, &account{definition: &saga.Definition{ID: id}, absent: true})
			trials[id] = t
			t.fault("nobody started it")
		}
		return t
	}
	for _, c := range e.calls {
		id, step, what := split(c.Key)
		t := of(id)
		t.calls[ref{step, what}] = append(t.calls[ref{step, what}], c)
	}
	for _, f := range e.effects {
		t := of(f.saga)
		t.effects[ref{f.step, f.what}] = append(t.effects[ref{f.step, f.what}], f)
	}
	for _, id := range slices.Sorted(maps.Keys(trials)) {
		t := trials[id]
		t.judge()
		v.Violations = append(v.Violations, t.faults...)
		for name, n := range t.cases {
			v.Cases[name] += n
		}
		switch {
		case t.absent:
			v.Lost++
			continue
		case !t.acknowledged:
			v.Taken++
		}
		v.States[t.last.State]++
		v.Steps += len(t.definition.Steps)
	}
	return v
}

// ref names a step's action or its compensation.
type ref struct{ step, what string }

// trial is one saga's.
type trial struct {
	*account
	id      string
	before  map[string][]string // of each step: all that have to be done before it
	steps   map[string]*saga.Step
	calls   map[ref][]call
	effects map[ref][]effect
	cases   map[string]int
	faults  []string
}

func newTrial(id string, a *account) *trial {
	t := &trial{account: a, id: id, before: ancestors(a.definition), steps: map[string]*saga.Step{}, calls: map[ref][]call{}, effects: map[ref][]effect{}, cases: map[string]int{}}
	for i := range a.definition.Steps {
		t.steps[a.definition.Steps[i].Name] = &a.definition.Steps[i]
	}
	return t
}

// ancestors returns of each step all that have to be done before it. A step comes behind those that it names.
func ancestors(d *saga.Definition) map[string][]string {
	isChain := !slices.ContainsFunc(d.Steps, func(s saga.Step) bool { return s.After != nil })
	all := map[string][]string{}
	for i, s := range d.Steps {
		direct := s.After
		if isChain && i > 0 {
			direct = []string{d.Steps[i-1].Name}
		}
		before := map[string]bool{}
		for _, name := range direct {
			before[name] = true
			for _, more := range all[name] {
				before[more] = true
			}
		}
		all[s.Name] = slices.Sorted(maps.Keys(before))
	}
	return all
}

func (t *trial) fault(format string, args ...any) {
	t.faults = append(t.faults, "saga "+t.id+": "+fmt.Sprintf(format, args...))
}

func (t *trial) judge() {
	for _, c := range t.complaints {
		t.fault("%s", c)
	}
	if t.absent {
		if t.acknowledged {
			t.fault("it was acknowledged, and is lost")
		}
		if len(t.calls)+len(t.effects) > 0 {
			t.fault("it is absent, and was called")
		}
		return
	}
	t.judgeEnd()
	for name := range t.steps {
		t.judgeStep(name)
		t.judgeOrder(name)
		t.judgeValues(name)
	}
	for r, calls := range t.calls {
		t.judgeCalls(r, calls)
	}
	for r := range t.effects {
		if len(t.calls[r]) == 0 {
			t.fault("step %s: its %s has an effect, and was never called", r.step, r.what)
		}
	}
}

// judgeEnd looks at where it stands.
func (t *trial) judgeEnd() {
	state := t.last.State
	switch {
	case state == saga.Parked && t.last.Reason == "":
		t.fault("it is parked without a reason")
	case !state.Ended() && state != saga.Parked:
		t.fault("it has neither ended nor is it parked: %s, %+v", state, t.last.Steps)
	}
	if t.ended != "" && t.ended != state {
		t.fault("it was %s, and is %s", t.ended, state)
	}
	if t.aborted && state == saga.Completed {
		t.fault("it is completed, and its abortion was acknowledged")
	}
	for _, s := range t.last.Steps {
		switch {
		case t.byHand[s.Name]:
		case s.State == saga.StepSkipped,
			state == saga.Completed && s.State != saga.StepDone,
			state == saga.Compensated && s.State != saga.StepPending && s.State != saga.StepRefused && s.State != saga.StepCompensated:
			t.fault("it is %s, and step %s is %s", state, s.Name, s.State)
		}
	}
}

// judgeStep looks at what a step has changed.
func (t *trial) judgeStep(name string) {
	done, undone := t.effects[ref{name, action}], t.effects[ref{name, compensate}]
	if len(done) > 1 {
		t.fault("step %s was done %d times", name, len(done))
	}
	if len(undone) > 1 {
		t.fault("step %s was undone %d times", name, len(undone))
	}
	if len(undone) > 0 && len(done) == 0 {
		t.fault("step %s was undone, and never done", name)
	}
	if len(undone) > 0 && len(done) > 0 && undone[0].at < done[0].at {
		t.fault("step %s was done behind its compensation", name)
	}
	if kind := t.steps[name].Kind; (kind == saga.Pivot || kind == saga.Retriable) && len(t.calls[ref{name, compensate}]) > 0 {
		t.fault("step %s is %s, and its compensation was called", name, kind)
	}
	if t.byHand[name] {
		return
	}
	net := len(done) - len(undone)
	if t.last.State == saga.Completed && net != 1 || t.last.State == saga.Compensated && net != 0 {
		t.fault("it is %s, and the net effect of step %s is %d", t.last.State, name, net)
	}
	if t.steps[name].Kind == saga.Pivot && net > 0 {
		for r, effects := range t.effects {
			if r.what == compensate && len(effects) > 0 {
				t.fault("its pivot is done, and step %s was undone", r.step)
			}
		}
	}
}

// judgeOrder looks at what a step's effects came behind.
func (t *trial) judgeOrder(name string) {
	done := t.effects[ref{name, action}]
	if len(done) == 0 || t.byHand[name] {
		return
	}
	undone := t.effects[ref{name, compensate}]
	for _, before := range t.before[name] {
		if t.byHand[before] {
			continue
		}
		if first := t.effects[ref{before, action}]; len(first) == 0 || first[0].at >= done[0].at {
			t.fault("step %s was done before step %s, which it comes behind", name, before)
		}
		last := t.effects[ref{before, compensate}]
		if len(last) > 0 && (len(undone) == 0 || undone[0].at >= last[0].at) {
			t.fault("step %s was undone before step %s, which comes behind it", before, name)
		}
	}
}

// judgeValues looks at what went from one step to another.
func (t *trial) judgeValues(name string) {
	made := func(step string) string {
		if done := t.effects[ref{step, action}]; len(done) > 0 {
			return done[0].id
		}
		return none
	}
	for _, f := range t.effects[ref{name, action}] {
		if from := giver(t.steps[name]); from != "" && f.given != made(from) && (f.given != none || !t.byHand[from]) {
			t.fault("step %s was given %q, and step %s had made %q", name, f.given, from, made(from))
		}
	}
	for _, f := range t.effects[ref{name, compensate}] {
		if f.given != none && f.given != made(name) {
			t.fault("the compensation of step %s was given %q, and its action had made %q", name, f.given, made(name))
		}
	}
	for _, s := range t.last.Steps {
		if s.Name != name || s.State != saga.StepDone || t.byHand[name] {
			continue
		}
		var result struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(s.Result, &result); err != nil || result.ID != made(name) {
			t.fault("the result of step %s is %s, and it had made %q", name, s.Result, made(name))
		}
	}
}

// judgeCalls looks at the calls of a step's action, or of its compensation.
func (t *trial) judgeCalls(r ref, calls []call) {
	if t.steps[r.step] == nil || r.what != action && r.what != compensate {
		t.fault("it was called with the key of step %q, %q, which it does not have", r.step, r.what)
		return
	}
	t.count(r, calls)
	sorted := slices.Clone(calls)
	slices.SortFunc(sorted, func(a, b call) int { return cmp.Compare(a.Attempt, b.Attempt) })
	for i, c := range sorted {
		var said said
		if err := json.Unmarshal([]byte(c.Body), &said); err != nil || said.Saga != t.id || said.Step != r.step || c.Path != pathOf(r.what) {
			t.fault("step %s: the %s went to %s with %s", r.step, r.what, c.Path, c.Body)
		}
		if i == 0 {
			continue
		}
		last := sorted[i-1]
		if c.Attempt == last.Attempt {
			t.fault("step %s: attempt %d at the %s came twice", r.step, c.Attempt, r.what)
		}
		if c.Body != last.Body {
			t.fault("step %s: attempt %d at the %s says %s, the one before said %s", r.step, c.Attempt, r.what, c.Body, last.Body)
		}
		if c.Fence < last.Fence {
			t.fault("step %s: attempt %d at the %s has the fence %d, the one before had %d", r.step, c.Attempt, r.what, c.Fence, last.Fence)
		}
	}
	// Whoever goes on has a fence that is not below those of all it goes on from.
	behind := t.before[r.step]
	if r.what == compensate {
		behind = []string{r.step}
	}
	for _, step := range behind {
		for _, c := range t.calls[ref{step, action}] {
			if c.Fence > sorted[0].Fence {
				t.fault("step %s: its %s has the fence %d, and what comes before, of step %s, %d", r.step, r.what, sorted[0].Fence, step, c.Fence)
			}
		}
	}
}

// count counts the cases among the calls.
func (t *trial) count(r ref, calls []call) {
	arrived := slices.Clone(calls)
	slices.SortFunc(arrived, func(a, b call) int { return cmp.Compare(a.At, b.At) })
	t.cases[caseDuplicate] += len(calls) - 1
	deposed, overtaken, several := false, false, false
	for i := 1; i < len(arrived); i++ {
		overtaken = overtaken || arrived[i].Attempt < arrived[i-1].Attempt
		deposed = deposed || arrived[i].Fence < arrived[i-1].Fence
		several = several || arrived[i].Fence != arrived[i-1].Fence
	}
	for name, is := range map[string]bool{caseOvertaken: overtaken, caseDeposed: deposed, caseTakenOver: several} {
		if is {
			t.cases[name]++
		}
	}
	if r.what != compensate {
		return
	}
	if len(t.effects[ref{r.step, action}]) == 0 {
		t.cases[caseNull]++
	}
	for _, c := range t.calls[ref{r.step, action}] {
		if c.At > arrived[0].At {
			t.cases[caseHanging]++
			break
		}
	}
}
