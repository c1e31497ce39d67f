package client

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// Saga is where a saga stands.
type Saga struct {
	ID    string     `json:"id"`
	State saga.State `json:"state"`
	// Reason says why it is compensating, compensated or parked, for people.
	Reason  string            `json:"reason"`
	Labels  map[string]string `json:"labels"`
	Started time.Time         `json:"started"`
	// Ended is zero as long as it has not.
	Ended time.Time `json:"ended,omitzero"`
	// Steps are in the order of the definition.
	Steps []Step `json:"steps"`
	// Verbs are what people did to it, in order.
	Verbs []Verb `json:"verbs"`
	// Raw is the control plane's answer as it came, digit by digit.
	Raw json.RawMessage `json:"-"`
}

// Settled reports whether nothing happens to the saga by itself any more: it has ended, or is parked.
func (s *Saga) Settled() bool { return s.State.Ended() || s.State == saga.Parked }

// Step returns the step of a name, or nil.
func (s *Saga) Step(name string) *Step {
	for i := range s.Steps {
		if s.Steps[i].Name == name {
			return &s.Steps[i]
		}
	}
	return nil
}

// Step is where a step stands.
type Step struct {
	Name  string         `json:"name"`
	State saga.StepState `json:"state"`
	// Kind is empty if the definition says none, which is saga.Compensatable.
	Kind saga.Kind `json:"kind"`
	// Attempts and Compensations count the calls of the action, and of what undoes it.
	Attempts      int `json:"attempts"`
	Compensations int `json:"compensations"`
	// Next is when the next call is due; zero: none is.
	Next time.Time `json:"next,omitzero"`
	// Text says what came of the last call that was not done, for people.
	Text string `json:"text"`
	// Result is what the action answered, digit by digit; nil: nothing, or nothing that is kept.
	Result json.RawMessage `json:"result"`
	// Timeline are the calls, in the order they were made; of many, the older ones are missing.
	Timeline []Attempt `json:"timeline"`
}

// The calls of an Attempt.
const (
	CallAction     = "action"
	CallCompensate = "compensate"
)

// Attempt is one call of a step.
type Attempt struct {
	// Call is CallAction or CallCompensate.
	Call string `json:"call"`
	// Attempt counts the calls of either, from 1.
	Attempt int `json:"attempt"`
	// At is when it was made.
	At time.Time `json:"at"`
	// Took is how long it took, and Answer what was answered: 0 and empty while it is under way, or if nobody knows since who made it is gone.
	Took   saga.Duration `json:"took"`
	Answer saga.Answer   `json:"answer"`
}

// Verb is what a person did to a saga.
type Verb struct {
	// Name is retry, resume, skip, resolve or abort.
	Name string         `json:"verb"`
	Step string         `json:"step"`
	As   saga.StepState `json:"as"`
	By   string         `json:"by"`
	Note string         `json:"note"`
	At   time.Time      `json:"at"`
}

// Summary is a saga as a list has it.
type Summary struct {
	ID      string            `json:"id"`
	State   saga.State        `json:"state"`
	Reason  string            `json:"reason"`
	Labels  map[string]string `json:"labels"`
	Started time.Time         `json:"started"`
	// Raw is what the control plane answered of it as it came.
	Raw json.RawMessage `json:"-"`
}

// errNoSaga is of an answer that is JSON, but no saga.
var errNoSaga = errors.New("there is no saga in it")

func sagaOf(b []byte) (*Saga, error) {
	s := &Saga{Raw: b}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.ID == "" {
		return nil, errNoSaga
	}
	return s, nil
}

func summaryOf(b []byte) (*Summary, error) {
	s := &Summary{Raw: b}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.ID == "" {
		return nil, errNoSaga
	}
	return s, nil
}
