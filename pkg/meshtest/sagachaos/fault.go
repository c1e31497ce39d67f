package main

import (
	"math/rand/v2"
	"strings"
	"time"
)

// What a participant is told to do with a call.
const (
	works         = ""                // and answers
	refuses       = "refuses"         // does not work, for good or this time
	fails         = "fails"           // answers 5xx, 408 or 429, and does not work
	failsBehind   = "fails behind"    // works, and answers so all the same
	late          = "late"            // works when the coordinator has given up
	slow          = "slow"            // works at once, and answers when the coordinator has given up
	breaks        = "breaks"          // ends the connection, and does not work
	breaksBehind  = "breaks behind"   // works, and ends the connection
	halfway       = "halfway"         // works, and ends the connection in the middle of the answer
	later         = "later"           // answers 202 or 425, and does not work
	behind        = "behind"          // answers 202 or 425, and works then
	tells         = "tells"           // works, tells the director, and then answers
	diesReceived  = "dies, received"  // SIGKILL of itself before it works
	diesUndecided = "dies, undecided" // in the middle of its transaction
	diesCommitted = "dies, committed" // behind its transaction, before it answers
)

// order is what a participant is to do with a call.
type order struct {
	Fault string `json:"fault"`
	// Delay is how long it waits where it is late, slow or behind, in milliseconds.
	Delay int `json:"delay,omitempty"`
	// Status is what it answers where it fails, or is not ready.
	Status int `json:"status,omitempty"`
	// Over is the number by which the director is to be told that the call is over, 0: it need not be.
	Over int `json:"over,omitempty"`
}

// orderFor draws what is done with an attempt: the same for the same seed. Some actions are refused at each attempt; otherwise the first attempts at a
// call meet more than those behind them, so that most come to an end.
func orderFor(seed uint64, key string, attempt int, mayRefuse bool, timeout time.Duration) order {
	if mayRefuse && randomOf(seed, key).IntN(100) < 4 {
		return order{Fault: refuses}
	}
	r := randomOf(seed, key+"/"+strings.Repeat("+", attempt))
	share := 40
	if attempt > 3 {
		share = 15
	}
	if r.IntN(100) >= share {
		return order{}
	}
	faults := []string{refuses, fails, failsBehind, late, late, slow, slow, breaks, breaksBehind, breaksBehind, halfway, later, behind}
	o := order{Fault: faults[r.IntN(len(faults))]}
	switch o.Fault {
	case fails, failsBehind:
		o.Status = []int{500, 503, 408, 429}[r.IntN(4)]
	case later, behind:
		o.Status = []int{202, 425}[r.IntN(2)]
	}
	switch o.Fault {
	case late, slow:
		o.Delay = int(timeout/time.Millisecond) + delay(r)
	case behind:
		o.Delay = delay(r)
	}
	return o
}

// delay is short in most cases, and some are there long after the next attempts.
func delay(r *rand.Rand) int {
	if r.IntN(4) == 0 {
		return 500 + r.IntN(2500)
	}
	return 10 + r.IntN(200)
}
