package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// shown is how many violations are told one by one.
const shown = 50

// text says what a run has shown.
func (c *chaos) text(v verdict) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	table := func(title string, counts map[string]int) {
		line("\n%s", title)
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			line("  %7d  %s", counts[name], name)
		}
	}
	sum := func(counts map[string]int) (n int) {
		for _, m := range counts {
			n += m
		}
		return n
	}
	_, faults := c.world.director.received()
	faulty := 0
	named := map[string]int{}
	for name, n := range faults {
		if name == works {
			continue
		}
		named[name] = n
		faulty += n
	}
	total := 0
	for _, n := range v.States {
		total += n
	}
	line("\nsagachaos: %v of havoc, %v to end what was open, seed %d", c.broke.Round(time.Second), c.healed.Round(time.Second), c.seed)
	line("\n%d violations", len(v.Violations))
	line("%d sagas, %d of them not acknowledged but there; %d not acknowledged and absent", total, v.Taken, v.Lost)
	line("%d completed, %d compensated, %d parked", v.States[saga.Completed], v.States[saga.Compensated], v.States[saga.Parked])
	line("%d steps, %d calls received, %d effects; %d faults of calls, %d strikes", v.Steps, v.Calls, v.Effects, faulty, sum(c.havoc.done))
	table("strikes", c.havoc.done)
	table("faults of calls", named)
	table("what participants had to stand", v.Cases)
	table("parked when all was healed, and what was done then", c.parked)
	starts := map[string]int{}
	for _, k := range c.world.all() {
		n, itself := k.counted()
		name := k.name
		if len(itself) > 0 {
			name = fmt.Sprintf("%s, which ended %d times by itself, first so: %s", name, len(itself), itself[0])
		}
		starts[name] = n
	}
	table("starts of processes", starts)
	table("answers to clients", c.ledger.asked)
	if len(v.Violations) > 0 {
		line("\nviolations")
		for _, f := range v.Violations[:min(len(v.Violations), shown)] {
			line("  %s", f)
		}
		if len(v.Violations) > shown {
			line("  and %d more", len(v.Violations)-shown)
		}
	}
	return b.String()
}
