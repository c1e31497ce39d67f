package lb

import "math/rand/v2"

// random takes any host.
type random struct{ hostList }

func (p *random) Pick() int { return below(uint32(len(p.hosts))) }

func (p *random) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// weightedRandom takes a host as often as its weight.
type weightedRandom struct {
	hostList
	alias alias
}

func (p *weightedRandom) Pick() int { return p.alias.draw(rand.Uint64()) }

func (p *weightedRandom) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// leastRequest is the power of two choices: of two random hosts the less busy one.
// See Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
type leastRequest struct{ hostList }

func (p *leastRequest) Pick() int {
	n := uint32(len(p.hosts))
	dice := rand.Uint64()
	first := reduce(uint32(dice>>32), n)
	second := reduce(uint32(dice), n-1)
	if second >= first { // any but the first, each as likely
		second++
	}
	if p.hosts[second].Active() < p.hosts[first].Active() {
		return second
	}
	return first
}

func (p *leastRequest) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// weightedLeastRequest gives each host requests in proportion to its weight as long
// as all are idle, and keeps active requests in proportion to the weights under load.
//
// Envoy's LEAST_REQUEST schedules by weight ÷ (active + 1)^bias, bias 1, when weights
// differ. Two choices cannot compare that value as it is: the heavier of two idle
// hosts would always win. So the weight decides who is drawn, and active ÷ weight
// who of the two is taken; a tie goes to the first drawn.
type weightedLeastRequest struct {
	hostList
	alias   alias
	weights []uint32
}

func (p *weightedLeastRequest) Pick() int {
	first := p.alias.draw(rand.Uint64())
	second := p.alias.draw(rand.Uint64())
	if second == first {
		// Once more; a host so heavy that it is drawn thrice may well be taken.
		second = p.alias.draw(rand.Uint64())
	}
	if p.load(second)*uint64(p.weights[first]) < p.load(first)*uint64(p.weights[second]) {
		return second
	}
	return first
}

func (p *weightedLeastRequest) load(i int) uint64 { return uint64(p.hosts[i].Active()) }

func (p *weightedLeastRequest) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// alias draws from a weighted list with one look at a table: see Vose, "A linear
// algorithm for generating random numbers with a given distribution", 1991.
type alias []aliasColumn

// aliasColumn stands for two indices: its own with probability keep / 2^32, else other.
type aliasColumn struct{ keep, other uint32 }

// newAlias returns the table of weights, of which none is 0 and at least one exists.
func newAlias(weights []uint32) alias {
	var sum uint64
	for _, w := range weights {
		sum += uint64(w)
	}
	mean := float64(sum) / float64(len(weights))
	share := make([]float64, len(weights)) // of the mean; what is left to give away
	var small, large []int
	for i, w := range weights {
		share[i] = float64(w) / mean
		if share[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	table := make(alias, len(weights))
	for i := range table {
		table[i] = aliasColumn{keep: 0, other: uint32(i)} // certain, until given an other
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		table[s] = aliasColumn{keep: uint32(max(0, share[s]) * (1 << 32)), other: uint32(l)}
		share[l] -= 1 - share[s]
		if share[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	return table
}

// draw returns an index by the 64 random bits of dice.
func (a alias) draw(dice uint64) int {
	at := reduce(uint32(dice>>32), uint32(len(a)))
	if column := a[at]; uint32(dice) >= column.keep {
		return int(column.other)
	}
	return at
}
