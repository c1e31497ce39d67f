package lb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// Policy says how a Picker chooses.
type Policy uint8

const (
	// LeastRequest draws two hosts by chance, each as likely as its weight, and takes
	// the one with fewer active requests per weight. It finds slow hosts unasked.
	LeastRequest Policy = iota
	// RoundRobin takes one host after the other, whatever their weights.
	RoundRobin
	// WeightedRoundRobin takes each host as often as its weight, evenly spread.
	WeightedRoundRobin
	// Random takes a host by chance, each as likely as its weight.
	Random
)

// String returns LEAST_REQUEST, ROUND_ROBIN, WEIGHTED_ROUND_ROBIN or RANDOM.
func (p Policy) String() string {
	switch p {
	case LeastRequest:
		return "LEAST_REQUEST"
	case RoundRobin:
		return "ROUND_ROBIN"
	case WeightedRoundRobin:
		return "WEIGHTED_ROUND_ROBIN"
	case Random:
		return "RANDOM"
	default:
		return fmt.Sprintf("Policy(%d)", uint8(p))
	}
}

// ParsePolicy returns the policy with the name s, as [Policy.String] writes it.
func ParsePolicy(s string) (Policy, error) {
	for p := LeastRequest; p <= Random; p++ {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("unknown balancing policy %q", s)
}

// Picker chooses hosts from the list it was made for. Its methods do not lock,
// allocate or block.
//
// Implementations are immutable but for the Cursor, and concurrency safe.
type Picker interface {
	// Pick returns the index of a host, -1 if there is none.
	Pick() int
	// PickExcept returns the index of a host that is not in tried, -1 if there is
	// none. It follows the policy as long as chance allows, and is slower than Pick.
	PickExcept(tried Tried) int
	// Len returns the number of hosts.
	Len() int
}

// Cursor is a place in a rotation, which outlives the pickers that turn it: a change
// of configuration must not send every next request to the first host. It starts at
// a random place, so that many sidecars with the same list do not march in step.
//
// This type is concurrency safe. It must not be copied.
type Cursor struct {
	_    [64]byte // every pick writes to it: keep it off its neighbours' cache line
	next atomic.Uint64
	_    [56]byte
}

// NewCursor returns a Cursor at a random place.
func NewCursor() *Cursor {
	c := new(Cursor)
	c.next.Store(rand.Uint64N(1 << 32)) // leaves room for centuries without wrapping
	return c
}

// New returns a Picker over hosts. weights holds one weight for each host, 1 to
// 4,294,967,295, or is nil if all weigh the same. cursor is where a rotation goes on;
// nil starts a new one. New copies both slices.
//
// It returns an error if policy is unknown, the lengths differ or a weight is 0:
// a host that shall get nothing has no place in the list.
func New(policy Policy, hosts []*Host, weights []uint32, cursor *Cursor) (Picker, error) {
	if err := check(hosts, weights); err != nil {
		return nil, err
	}
	if cursor == nil {
		cursor = NewCursor()
	}
	list := hostList{slices.Clone(hosts)}
	even := len(weights) == 0 || slices.Min(weights) == slices.Max(weights)
	switch {
	case policy > Random:
		return nil, fmt.Errorf("unknown balancing policy %v", policy)
	case len(hosts) < 2:
		return only{list}, nil
	case policy == RoundRobin, policy == WeightedRoundRobin && even:
		return &roundRobin{list, cursor}, nil
	case policy == WeightedRoundRobin:
		return &stride{list, cursor, scale(weights)}, nil
	case policy == Random && even:
		return &random{list}, nil
	case policy == Random:
		return &weightedRandom{list, newAlias(weights)}, nil
	case even:
		return &leastRequest{list}, nil
	default:
		return &weightedLeastRequest{list, newAlias(weights), slices.Clone(weights)}, nil
	}
}

func check(hosts []*Host, weights []uint32) error {
	if len(hosts) > math.MaxInt32 {
		return fmt.Errorf("%d hosts are too many", len(hosts))
	}
	if i := slices.Index(hosts, nil); i >= 0 {
		return fmt.Errorf("host %d is nil", i)
	}
	if weights == nil {
		return nil
	}
	if len(weights) != len(hosts) {
		return fmt.Errorf("%d weights for %d hosts", len(weights), len(hosts))
	}
	if i := slices.Index(weights, 0); i >= 0 {
		return fmt.Errorf("weight of host %d is 0", i)
	}
	return nil
}

// hostList is what all pickers share.
type hostList struct{ hosts []*Host }

// Len implements Picker.
func (l hostList) Len() int { return len(l.hosts) }

// repicks bounds how often PickExcept asks the policy before it takes any host.
const repicks = 4

// pickExcept asks the policy a few times and then takes the first untried host after
// a random one.
func (l hostList) pickExcept(tried Tried, pick func() int) int {
	for range repicks {
		if i := pick(); !tried.Has(l.hosts[i]) {
			return i
		}
	}
	return l.anyExcept(tried)
}

func (l hostList) anyExcept(tried Tried) int {
	n := len(l.hosts)
	for i, at := 0, below(uint32(n)); i < n; i, at = i+1, at+1 {
		if at == n {
			at = 0
		}
		if !tried.Has(l.hosts[at]) {
			return at
		}
	}
	return -1
}

// below returns a random number in [0, n), 0 for n = 0.
func below(n uint32) int { return reduce(rand.Uint32(), n) }

// reduce maps a random x to [0, n) without a division. The bias is below n / 2^32.
// See Lemire, "Fast random integer generation in an interval", 2019.
func reduce(x, n uint32) int { return int(uint64(x) * uint64(n) >> 32) }

// only picks from none or one.
type only struct{ hostList }

func (p only) Pick() int { return len(p.hosts) - 1 }

func (p only) PickExcept(tried Tried) int {
	if len(p.hosts) == 0 || tried.Has(p.hosts[0]) {
		return -1
	}
	return 0
}
