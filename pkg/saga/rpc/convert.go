package rpc

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// pair is a word of the model and the value of the schema for it.
type pair[M ~string, P comparable] struct {
	model  M
	schema P
}

// names are the words of a closed set. What is not among them is nothing: "" and 0.
type names[M ~string, P ~int32] []pair[M, P]

func (n names[M, P]) schema(m M) (p P) {
	for _, x := range n {
		if x.model == m {
			return x.schema
		}
	}
	return p
}

// model returns the word, "" for what is not given, and for a value of a newer schema its number, which the model then complains of.
func (n names[M, P]) model(p P) M {
	for _, x := range n {
		if x.schema == p {
			return x.model
		}
	}
	if p == 0 {
		return ""
	}
	return M(strconv.Itoa(int(p)))
}

func kinds() names[saga.Kind, sagav1.Kind] {
	return names[saga.Kind, sagav1.Kind]{
		{saga.Compensatable, sagav1.Kind_COMPENSATABLE}, {saga.Pivot, sagav1.Kind_PIVOT}, {saga.Retriable, sagav1.Kind_RETRIABLE},
	}
}

func answers() names[saga.Answer, sagav1.Answer] {
	return names[saga.Answer, sagav1.Answer]{
		{saga.AnswerDone, sagav1.Answer_DONE}, {saga.AnswerRefused, sagav1.Answer_REFUSED}, {saga.AnswerUnknown, sagav1.Answer_UNKNOWN},
		{saga.AnswerPending, sagav1.Answer_PENDING}, {saga.AnswerNotRun, sagav1.Answer_NOT_RUN},
	}
}

func states() names[saga.State, sagav1.State] {
	return names[saga.State, sagav1.State]{
		{saga.Running, sagav1.State_RUNNING}, {saga.Compensating, sagav1.State_COMPENSATING}, {saga.Completed, sagav1.State_COMPLETED},
		{saga.Compensated, sagav1.State_COMPENSATED}, {saga.Parked, sagav1.State_PARKED},
	}
}

func stepStates() names[saga.StepState, sagav1.Step_State] {
	return names[saga.StepState, sagav1.Step_State]{
		{saga.StepPending, sagav1.Step_PENDING}, {saga.StepRunning, sagav1.Step_RUNNING}, {saga.StepDone, sagav1.Step_DONE},
		{saga.StepRefused, sagav1.Step_REFUSED}, {saga.StepCompensating, sagav1.Step_COMPENSATING},
		{saga.StepCompensated, sagav1.Step_COMPENSATED}, {saga.StepSkipped, sagav1.Step_SKIPPED},
	}
}

func verbs() names[string, sagav1.Verb_Name] {
	return names[string, sagav1.Verb_Name]{
		{coordinator.Retry, sagav1.Verb_RETRY}, {coordinator.Skip, sagav1.Verb_SKIP}, {coordinator.Resolve, sagav1.Verb_RESOLVE},
		{coordinator.Resume, sagav1.Verb_RESUME}, {coordinator.Abort, sagav1.Verb_ABORT},
	}
}

// definitionOf reads a definition, which Check has yet to look at: what the schema lets through and the model does not, it complains of.
func definitionOf(p *sagav1.Definition) *saga.Definition {
	d := &saga.Definition{ID: p.GetId(), Deadline: durationOf(p.GetDeadline()), Labels: p.GetLabels()}
	for _, s := range p.GetSteps() {
		step := saga.Step{
			Name: s.GetName(), Kind: kinds().model(s.GetKind()), Timeout: durationOf(s.GetTimeout()),
			Retry: saga.Retry{Attempts: int(s.GetRetry().GetAttempts()), Backoff: durationOf(s.GetRetry().GetBackoff()), Max: durationOf(s.GetRetry().GetMax())},
		}
		if s.GetAfter() != nil {
			step.After = append([]string{}, s.GetAfter().GetSteps()...) // not nil though it be empty
		}
		step.Action = callOf(s.GetAction())
		if s.GetCompensate() != nil {
			undo := callOf(s.GetCompensate())
			step.Compensate = &undo
		}
		d.Steps = append(d.Steps, step)
	}
	return d
}

func callOf(p *sagav1.Call) saga.Call {
	c := saga.Call{Service: p.GetService(), Method: p.GetMethod(), Path: p.GetPath(), GRPC: p.GetGrpc(), Headers: p.GetHeaders(), Body: p.GetBody()}
	for status, answer := range p.GetStatuses() {
		if c.Statuses == nil {
			c.Statuses = map[string]saga.Answer{}
		}
		c.Statuses[status] = answers().model(answer)
	}
	return c
}

// durationOf returns the longest duration there is for one that is longer.
func durationOf(p *durationpb.Duration) saga.Duration { return saga.Duration(p.AsDuration()) }

// definition writes a definition that has been checked.
func definition(d *saga.Definition) *sagav1.Definition {
	p := &sagav1.Definition{Id: d.ID, Deadline: duration(d.Deadline), Labels: d.Labels}
	for i := range d.Steps {
		s := &d.Steps[i]
		step := &sagav1.StepDefinition{Name: s.Name, Kind: kinds().schema(s.Kind), Action: call(&s.Action), Timeout: duration(s.Timeout)}
		if s.After != nil {
			step.After = &sagav1.After{Steps: s.After}
		}
		if s.Compensate != nil {
			step.Compensate = call(s.Compensate)
		}
		if s.Retry != (saga.Retry{}) {
			step.Retry = &sagav1.Retry{Attempts: int32(s.Retry.Attempts), Backoff: duration(s.Retry.Backoff), Max: duration(s.Retry.Max)} //nolint:gosec // 1000 at the most
		}
		p.Steps = append(p.Steps, step)
	}
	return p
}

func call(c *saga.Call) *sagav1.Call {
	p := &sagav1.Call{Service: c.Service, Method: c.Method, Path: c.Path, Grpc: c.GRPC, Headers: c.Headers, Body: c.Body}
	for status, answer := range c.Statuses {
		if p.Statuses == nil {
			p.Statuses = map[string]sagav1.Answer{}
		}
		p.Statuses[status] = answers().schema(answer)
	}
	return p
}

func duration(d saga.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(time.Duration(d))
}

// timestamp returns nil for 0.
func timestamp(ns int64) *timestamppb.Timestamp {
	if ns == 0 {
		return nil
	}
	return timestamppb.New(time.Unix(0, ns))
}

// shown returns a saga as it is shown.
func shown(v *coordinator.View, done []coordinator.Verb) *sagav1.Saga {
	p := &sagav1.Saga{
		Id: v.Definition.ID, State: states().schema(v.State), Reason: v.Reason, Labels: v.Definition.Labels,
		Started: timestamp(v.Started), Ended: timestamp(v.Ended),
	}
	for i := range v.Steps {
		s, d := &v.Steps[i], &v.Definition.Steps[i]
		step := &sagav1.Step{
			Name: d.Name, State: stepStates().schema(s.State), Kind: kinds().schema(d.Kind), Text: s.Text, Result: v.Results[d.Name],
			Attempts: int32(s.Attempts), Compensations: int32(s.Compensations), //nolint:gosec // they were made one by one
			Timeline: timeline(s.Timeline, v.Started),
		}
		if s.State == saga.StepRunning || s.State == saga.StepCompensating {
			step.Next = timestamp(s.Next)
		}
		p.Steps = append(p.Steps, step)
	}
	for _, v := range done {
		p.Verbs = append(p.Verbs, &sagav1.Verb{
			Verb: verbs().schema(v.Name), Step: v.Step, As: stepStates().schema(v.As), By: v.By, Note: v.Note, At: timestamppb.New(v.At),
		})
	}
	return p
}

// timeline returns the calls of a step of a saga that was started at a time.
func timeline(t saga.Timeline, started int64) (out []*sagav1.Attempt) {
	calls, _ := t.Attempts() // what cannot be read of it is missing, and nothing else
	for _, c := range calls {
		a := &sagav1.Attempt{Undo: c.Undo, Attempt: int32(c.Attempt), At: timestamp(started + int64(c.At)), Answer: answers().schema(c.Answer)} //nolint:gosec // they were made one by one
		if c.Took > 0 {
			a.Took = durationpb.New(c.Took)
		}
		out = append(out, a)
	}
	return out
}

func summary(s *coordinator.Summary) *sagav1.Summary {
	return &sagav1.Summary{Id: s.ID, State: states().schema(s.State), Reason: s.Reason, Labels: s.Labels, Started: timestamppb.New(s.Start)}
}

func summaryOf(p *sagav1.Summary) coordinator.Summary {
	return coordinator.Summary{ID: p.GetId(), State: states().model(p.GetState()), Reason: p.GetReason(), Labels: maps.Clone(p.GetLabels()), Start: p.GetStarted().AsTime()}
}

// merge returns the first sagas of pages, by id, and whether there are others behind them. Each page has the first of some shards; of one that says that it has
// others, nothing is known behind its last.
func merge(pages []page, limit int) (all []coordinator.Summary, more bool) {
	known := "" // up to where; empty: to the end
	for _, p := range pages {
		all = append(all, p.sagas...)
		if p.more {
			if last := p.sagas[len(p.sagas)-1].ID; !more || last < known {
				known = last
			}
			more = true
		}
	}
	slices.SortFunc(all, func(a, b coordinator.Summary) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	n := min(limit, len(all))
	for more && all[n-1].ID > known {
		n--
	}
	return all[:n], more || n < len(all)
}

// page is what some shards have.
type page struct {
	sagas []coordinator.Summary
	more  bool
}
