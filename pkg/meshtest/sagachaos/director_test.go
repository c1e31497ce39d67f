package main

import (
	"testing"
)

func TestEachStrikeHasAMomentOfItsOwn(t *testing.T) {
	d := newDirector(1)
	struck := map[string]string{}
	await := func(name, at string) func() bool {
		return d.await(alone, at, func(c *call) { struck[name] = c.Key })
	}
	first, second := await("first", atReceived), await("second", atReceived)
	third, fourth := await("third", atReceived), await("fourth", atCommitted)
	if !second() {
		t.Error("the second has come")
	}
	receive := func(key string) order {
		c := call{Key: key, Attempt: 1}
		o, strike := d.receive(c)
		if strike != nil {
			strike(&c)
		}
		return o
	}
	receive("pair-1/s0/action")
	if o := receive("alone-1/s0/action"); o.Fault != tells {
		t.Errorf("of the moment that it is committed, it is to tell: %+v", o)
	}
	receive("alone-2/s0/action")
	receive("alone-3/s0/action")
	if strike := d.committed(call{Key: "alone-1/s0/action"}); strike == nil {
		t.Error("no strike once it is committed")
	} else {
		strike(&call{Key: "alone-1/s0/action"})
	}
	if first() || third() || fourth() {
		t.Error("one that came was called off")
	}
	if len(struck) != 3 || struck["first"] != "alone-1/s0/action" || struck["third"] != "alone-2/s0/action" || struck["fourth"] != "alone-1/s0/action" {
		t.Error(struck)
	}
}

func TestCallsOfAParticipantThatIsGoneAreOver(t *testing.T) {
	d := newDirector(1)
	d.begin(7)
	slowly := func() {
		t.Helper()
		for attempt := 1; ; attempt++ { // until one of them takes longer
			o, _ := d.receive(call{Key: "alone-1/s0/compensate", Process: 7, Attempt: attempt})
			if o.Delay > 0 {
				return
			}
		}
	}
	slowly()
	if d.isQuiet() {
		t.Error("it is quiet, and a call is under way")
	}
	d.forget(7)
	slowly() // it had been under way when the process ended
	if !d.isQuiet() {
		t.Error("it is not quiet, and the one that was called is gone")
	}
}

func TestOnceAllIsHealedNothingFails(t *testing.T) {
	d := newDirector(1)
	d.letDie(7, diesReceived)
	d.heal()
	for attempt := range 200 {
		if o, strike := d.receive(call{Key: "alone-1/s0/action", Process: 7, Attempt: attempt}); o != (order{}) || strike != nil {
			t.Fatal(o)
		}
	}
}
