package lb

import "slices"

// roundRobin takes the hosts in the order of the list.
type roundRobin struct {
	hostList
	cursor *Cursor
}

func (p *roundRobin) Pick() int {
	return int((p.cursor.next.Add(1) - 1) % uint64(len(p.hosts)))
}

func (p *roundRobin) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// stride is the static stride scheduler of gRFC A58. It walks the hosts in rounds,
// and in each round skips the lighter ones in proportion: a host of weight w, of
// heaviest 65,535, is taken in w of 65,535 rounds, evenly spread. Hosts start half a
// cycle apart so that equal ones are not taken in the same rounds.
//
// The heaviest host is taken in every round, so a pick walks at most one round. On
// average it walks heaviest weight ÷ mean weight steps.
type stride struct {
	hostList
	cursor  *Cursor
	weights []uint16 // the heaviest is maxStride
}

const (
	maxStride = 1<<16 - 1
	// "Offset ... such that backends with the same weight do not get picked in the
	// same generations" - the constant of grpc-go's scheduler, which follows A58.
	strideOffset = maxStride / 2
)

func (p *stride) Pick() int {
	n := uint64(len(p.weights))
	for {
		step := p.cursor.next.Add(1) - 1
		at, round := step%n, step/n
		weight := uint64(p.weights[at])
		if (weight*round+at*strideOffset)%maxStride >= maxStride-weight {
			return int(at)
		}
	}
}

func (p *stride) PickExcept(tried Tried) int { return p.pickExcept(tried, p.Pick) }

// scale maps weights so that the heaviest is maxStride and none is 0.
func scale(weights []uint32) []uint16 {
	heaviest := uint64(slices.Max(weights))
	scaled := make([]uint16, len(weights))
	for i, w := range weights {
		scaled[i] = uint16(max(1, (uint64(w)*maxStride+heaviest/2)/heaviest))
	}
	return scaled
}
