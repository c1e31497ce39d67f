package saga

import "math/bits"

// set is a set of a saga's steps, by their places in the definition.
type set uint64

func (s set) has(i int) bool { return s&(1<<i) != 0 }

// graph says what comes before what.
type graph struct {
	before []set // of each step: all that have to be done before it
	behind []set // of each step: all that come behind it
	order  []int // the steps so that each comes behind those before it; those of a cycle are missing
}

// newGraph reads what comes after what. Unknown names are left out, which Check complains of.
func newGraph(steps []Step) *graph {
	n := len(steps)
	g := &graph{before: make([]set, n), behind: make([]set, n)}
	place := make(map[string]int, n)
	for i := range steps {
		place[steps[i].Name] = i
	}
	direct := make([]set, n)
	chain := true
	for i := range steps {
		chain = chain && steps[i].After == nil
		for _, name := range steps[i].After {
			if p, ok := place[name]; ok {
				direct[i] |= 1 << p
			}
		}
	}
	for i := 1; chain && i < n; i++ {
		direct[i] = 1 << (i - 1)
	}
	var placed set
	for progress := true; progress; {
		progress = false
		for i := range steps {
			if placed.has(i) || direct[i]&^placed != 0 {
				continue
			}
			progress = true
			placed |= 1 << i
			g.order = append(g.order, i)
			g.before[i] = direct[i]
			for rest := direct[i]; rest != 0; rest &= rest - 1 {
				g.before[i] |= g.before[bits.TrailingZeros64(uint64(rest))]
			}
		}
	}
	for i, before := range g.before {
		for ; before != 0; before &= before - 1 {
			g.behind[bits.TrailingZeros64(uint64(before))] |= 1 << i
		}
	}
	return g
}

// cycle returns the steps that wait for themselves, and those that wait for them.
func (g *graph) cycle() set {
	missing := set(1<<len(g.before) - 1)
	for _, i := range g.order {
		missing &^= 1 << i
	}
	return missing
}
