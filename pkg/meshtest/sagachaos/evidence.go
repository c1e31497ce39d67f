package main

import (
	"encoding/json"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// What a call asks for, as its Idempotency-Key says.
const (
	action     = "action"
	compensate = "compensate"
)

// now reads the clock that all processes of a machine share and nobody sets, in nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every Linux has it
	}
	return t.Nano()
}

// call is one that a participant has received, as it tells the director at once.
type call struct {
	At      int64  `json:"at"`
	Service string `json:"service"`
	Process int    `json:"process"` // its number
	Key     string `json:"key"`
	Attempt int    `json:"attempt"`
	Fence   int64  `json:"fence"`
	Path    string `json:"path"`
	Body    string `json:"body"`

	fault string // what the participant was told to do with it
}

// split returns the saga, the step, and what is asked for.
func split(key string) (id, step, what string) {
	id, rest, _ := strings.Cut(key, "/")
	step, what, _ = strings.Cut(rest, "/")
	return id, step, what
}

// effect is what a call has changed in a participant's database, written in the transaction of its barrier.
type effect struct {
	service          string
	saga, step, what string
	id               string // of what the action made
	given            string // the id of what an earlier step made, or the compensation's own action, as the call says
	at               int64  // before the commit
}

// view is a saga as the API shows it.
type view struct {
	State  saga.State `json:"state"`
	Reason string     `json:"reason"`
	Steps  []struct {
		Name   string          `json:"name"`
		State  saga.StepState  `json:"state"`
		Text   string          `json:"text"`
		Result json.RawMessage `json:"result"`
	} `json:"steps"`
}

// account is what the clients know of a saga.
type account struct {
	definition   *saga.Definition
	acknowledged bool
	aborted      bool            // and told that it is
	byHand       map[string]bool // steps that somebody asked to skip or to resolve
	ended        saga.State      // as somebody saw it once
	parked       bool            // as somebody saw it once
	complaints   []string        // what was answered that must not be

	absent bool // at the end
	last   view
}

// evidence is all that is known at the end.
type evidence struct {
	sagas   map[string]*account
	calls   []call
	effects []effect
}
