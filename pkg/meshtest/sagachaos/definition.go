package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// said is what the body of a call says.
type said struct {
	Saga string `json:"saga"`
	Step string `json:"step"`
	// Given is the id of what an earlier step made, or of what the compensation undoes.
	Given string `json:"given,omitempty"`
	// Giver is that earlier step.
	Giver string `json:"giver,omitempty"`
}

// none is given where nothing is known to have been made.
const none = "none"

// pathOf is where the participants take calls.
func pathOf(what string) string {
	if what == compensate {
		return "/act/undo"
	}
	return "/act"
}

// giver returns the step whose result goes into the action of another, or nothing.
func giver(s *saga.Step) string {
	var b said
	if json.Unmarshal(s.Action.Body, &b) != nil {
		return ""
	}
	return b.Giver
}

// randomOf returns what is drawn for a name, always the same for the same seed.
func randomOf(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// define makes up a saga of three to seven steps: a chain or not, with a pivot or without.
func define(r *rand.Rand, id string, services []string) *saga.Definition {
	n := 3 + r.IntN(5)
	d := &saga.Definition{ID: id, Labels: map[string]string{"of": "chaos"}}
	if r.IntN(8) == 0 {
		d.Deadline = saga.Duration(time.Duration(500+r.IntN(3000)) * time.Millisecond)
	}
	isChain := r.IntN(2) == 0
	pivot := n // there is none
	if r.IntN(2) == 0 {
		pivot = r.IntN(n)
	}
	for i := range n {
		s := saga.Step{Name: fmt.Sprint("s", i), Timeout: saga.Duration(timeout), Retry: saga.Retry{Backoff: saga.Duration(20 * time.Millisecond), Max: saga.Duration(time.Second)}}
		if !isChain {
			s.After = after(r, i, pivot)
		}
		given := said{Saga: "${saga.id}", Step: s.Name}
		if before := ancestorsOf(append(d.Steps, s), i, isChain); len(before) > 0 {
			given.Giver = before[r.IntN(len(before))]
			given.Given = "${steps." + given.Giver + ".result.id:-" + none + "}"
		}
		s.Action = saga.Call{Service: services[r.IntN(len(services))], Path: pathOf(action), Body: text(given)}
		switch {
		case i == pivot:
			s.Kind = saga.Pivot
		case i > pivot:
			s.Kind = saga.Retriable
		default:
			own := said{Saga: "${saga.id}", Step: s.Name, Given: "${steps." + s.Name + ".result.id:-" + none + "}"}
			s.Compensate = &saga.Call{Service: s.Action.Service, Path: pathOf(compensate), Body: text(own)}
		}
		if r.IntN(10) == 0 {
			s.Retry.Attempts = 2 + r.IntN(3) // of the compensation, too, so that some are parked
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

// timeout is of each attempt.
const timeout = 400 * time.Millisecond

// after draws what comes before a step of a saga that is no chain. All that can be undone come before the pivot, and all that has to succeed comes behind it.
func after(r *rand.Rand, i, pivot int) []string {
	names := []string{}
	for k := range i {
		if i == pivot || k == pivot || (k > pivot) == (i > pivot) && r.IntN(2) == 0 {
			names = append(names, fmt.Sprint("s", k))
		}
	}
	return names
}

// ancestorsOf returns all that comes before the step at a place.
func ancestorsOf(steps []saga.Step, i int, isChain bool) []string {
	d := &saga.Definition{Steps: steps}
	if !isChain && steps[i].After == nil {
		return nil
	}
	return ancestors(d)[steps[i].Name]
}

func text(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is made of texts
	}
	return b
}
