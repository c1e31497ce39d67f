package play

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Saga is where one stands, as the API says.
type Saga struct {
	ID     string
	State  string
	Reason string
	Steps  []SagaStep
}

// SagaStep is one of its steps.
type SagaStep struct {
	Name          string
	State         string
	Attempts      int // of the action
	Compensations int // attempts of the compensation
}

// Calls is how many calls the step took.
func (s SagaStep) Calls() int { return s.Attempts + s.Compensations }

// String says of each step what its state is, and how many calls that took.
func (s Saga) String() string {
	var steps []string
	for _, step := range s.Steps {
		text := step.Name + " " + step.State
		if step.Calls() > 0 {
			text += fmt.Sprintf(" (%d)", step.Calls())
		}
		steps = append(steps, text)
	}
	return strings.Join(steps, ", ")
}

// definition is the saga of an order: whoever starts it again with the same content starts nothing. Its tries come soon, for an act is short.
const definition = `{"id": %q, "deadline": "60s", "labels": {"of": "the play"}, "steps": [
  {"name": "reserve",
   "action":     {"service": "inventory", "path": "/saga/reserve",      "body": {"order": "${saga.id}"}},
   "compensate": {"service": "inventory", "path": "/saga/reserve/undo", "body": {"order": "${saga.id}"}}},
  {"name": "charge", "kind": "pivot", "retry": {"attempts": 20, "max": "500ms"},
   "action": {"service": "payments", "path": "/saga/charge", "body": {"order": "${saga.id}", "card": %q}}},
  {"name": "ship", "kind": "retriable",
   "action": {"service": "shipping", "path": "/saga/ship", "body": {"order": "${steps.charge.result.charged}"}}}]}`

// StartSaga starts the saga of an order, paid by a card, of which the one called "declined" is.
func (m *Mesh) StartSaga(ctx context.Context, order, card string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+"/v1/sagas", strings.NewReader(fmt.Sprintf(definition, order, card)))
	if err != nil {
		return err
	}
	return do(q)
}

// Saga asks the API where one stands.
func (m *Mesh) Saga(ctx context.Context, id string) (Saga, error) {
	var s Saga
	return s, getJSON(ctx, "http://"+m.http+"/v1/sagas/"+id, &s)
}

// Effects is what came of an order at the services that take part.
type Effects struct {
	Done  map[string]int // how often it was "reserved", "released", "charged", "refunded", "shipped"
	Asked map[string]int // how often a call came, such as "charge/action"
}

// Effects asks the services themselves.
func (m *Mesh) Effects(ctx context.Context, order string) (Effects, error) {
	all := Effects{map[string]int{}, map[string]int{}}
	for _, party := range m.allParties() {
		var its Effects
		if err := getJSON(ctx, "http://"+party.appAddr+"/effects?order="+order, &its); err != nil {
			return all, err
		}
		maps.Copy(all.Done, its.Done)
		maps.Copy(all.Asked, its.Asked)
	}
	return all, nil
}

// delayParties makes the services that take part answer late, behind what they do.
func (m *Mesh) delayParties(ctx context.Context, d time.Duration) error {
	var faults []error
	for _, party := range m.allParties() {
		faults = append(faults, m.Fault(ctx, party.ID, "delay="+d.String()))
	}
	return errors.Join(faults...)
}

// counted says what is counted by name, in the order of the names.
func counted(n map[string]int) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(n)) {
		list = append(list, fmt.Sprintf("%s %d", name, n[name]))
	}
	return strings.Join(list, ", ")
}
