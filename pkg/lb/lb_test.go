package lb

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

func policies() []Policy { return []Policy{LeastRequest, RoundRobin, WeightedRoundRobin, Random} }

func newHosts(n int) []*Host {
	hosts := make([]*Host, n)
	for i := range hosts {
		hosts[i] = new(Host)
	}
	return hosts
}

func mustNew(t testing.TB, policy Policy, hosts []*Host, weights []uint32, cursor *Cursor) Picker {
	t.Helper()
	p, err := New(policy, hosts, weights, cursor)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tally counts n picks.
func tally(p Picker, n int) []int {
	counts := make([]int, p.Len())
	for range n {
		counts[p.Pick()]++
	}
	return counts
}

// mustBeDistributed compares counts with weights by Pearson's chi-square. The bound
// is the mean of the distribution plus eight standard deviations, which a right
// picker misses less than once in a billion runs.
func mustBeDistributed(t *testing.T, counts []int, weights []uint32) {
	t.Helper()
	var picks, sum float64
	for i, c := range counts {
		picks += float64(c)
		sum += float64(weights[i])
	}
	var chi float64
	for i, c := range counts {
		want := picks * float64(weights[i]) / sum
		chi += (float64(c) - want) * (float64(c) - want) / want
	}
	freedom := float64(len(counts) - 1)
	if bound := freedom + 8*math.Sqrt(2*freedom) + 16; chi > bound {
		t.Errorf("chi-square %.0f, bound %.0f: %v for weights %v", chi, bound, counts, weights)
	}
}

func ones(n int) []uint32 { return slices.Repeat([]uint32{1}, n) }

func TestPolicyNamesGoBothWays(t *testing.T) {
	t.Parallel()
	for _, p := range policies() {
		if got, err := ParsePolicy(p.String()); got != p || err != nil {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, s := range []string{"", "round_robin", "MAGLEV"} {
		if _, err := ParsePolicy(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
	if got := Policy(9).String(); got != "Policy(9)" {
		t.Error(got)
	}
}

func TestNewRefusesWhatIsWrongAndSaysWhat(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]func() (Picker, error){
		"unknown balancing policy": func() (Picker, error) { return New(99, newHosts(2), nil, nil) },
		"1 weights for 2 hosts":    func() (Picker, error) { return New(Random, newHosts(2), ones(1), nil) },
		"weight of host 1 is 0":    func() (Picker, error) { return New(Random, newHosts(2), []uint32{1, 0}, nil) },
		"host 1 is nil":            func() (Picker, error) { return New(Random, []*Host{{}, nil}, nil, nil) },
	} {
		if _, err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestNoHostAndOneHost(t *testing.T) {
	t.Parallel()
	for _, policy := range policies() {
		none := mustNew(t, policy, nil, nil, nil)
		if i, j := none.Pick(), none.PickExcept(Tried{}); i != -1 || j != -1 || none.Len() != 0 {
			t.Errorf("%v of none: %d, %d", policy, i, j)
		}
		hosts := newHosts(1)
		one := mustNew(t, policy, hosts, []uint32{7}, nil)
		var tried Tried
		if i, j := one.Pick(), one.PickExcept(tried); i != 0 || j != 0 {
			t.Errorf("%v of one: %d, %d", policy, i, j)
		}
		tried.Add(hosts[0])
		if j := one.PickExcept(tried); j != -1 {
			t.Errorf("%v of one that was tried: %d", policy, j)
		}
	}
}

func TestIdleHostsAreChosenAsOftenAsTheyWeigh(t *testing.T) {
	t.Parallel()
	many := make([]uint32, 200)
	for i := range many {
		many[i] = uint32(1 + i%10)
	}
	for _, weights := range [][]uint32{ones(2), ones(7), {1, 2}, {5, 1, 1}, {100, 1, 50, 3, 3}, many, {math.MaxUint32, math.MaxUint32 - 1, math.MaxUint32 / 2}} {
		for _, policy := range policies() {
			t.Run(fmt.Sprintf("%v of %d", policy, len(weights)), func(t *testing.T) {
				t.Parallel()
				want := weights
				if policy == RoundRobin {
					want = ones(len(weights))
				}
				mustBeDistributed(t, tally(mustNew(t, policy, newHosts(len(weights)), weights, nil), 200_000), want)
			})
		}
	}
}

func TestRoundRobinTakesOneAfterTheOther(t *testing.T) {
	t.Parallel()
	for _, policy := range []Policy{RoundRobin, WeightedRoundRobin} { // the latter with even weights
		p := mustNew(t, policy, newHosts(5), []uint32{3, 3, 3, 3, 3}, nil)
		last := p.Pick()
		for range 100 {
			i := p.Pick()
			if i != (last+1)%5 {
				t.Fatalf("%v: %d after %d", policy, i, last)
			}
			last = i
		}
	}
}

func TestRotationGoesOnAfterARebuild(t *testing.T) {
	t.Parallel()
	hosts := newHosts(10)
	for policy, weights := range map[Policy][]uint32{RoundRobin: nil, WeightedRoundRobin: {1, 1, 1, 1, 1, 2, 2, 2, 2, 2}} {
		cursor := NewCursor()
		counts := make([]int, len(hosts))
		// A rebuild after each third request: without the cursor only the first hosts,
		// or a few random ones, would get any.
		const rebuilds = 5000
		for range rebuilds {
			p := mustNew(t, policy, hosts, weights, cursor)
			for range 3 {
				counts[p.Pick()]++
			}
		}
		if weights == nil {
			weights = ones(len(hosts))
		}
		total := 0
		for _, w := range weights {
			total += int(w)
		}
		for i, c := range counts {
			if want := 3 * rebuilds * int(weights[i]) / total; c < want-2 || c > want+2 {
				t.Errorf("%v: host %d got %d, want %d", policy, i, c, want)
			}
		}
	}
}

func TestCursorsStartApart(t *testing.T) {
	t.Parallel()
	counts := make([]int, 10)
	hosts := newHosts(10)
	for range 2000 { // sidecars, each with its first request
		counts[mustNew(t, RoundRobin, hosts, nil, nil).Pick()]++
	}
	mustBeDistributed(t, counts, ones(10))
}

// Smooth means that a host is never far ahead of or behind its due, so that a heavy
// host gets no bursts and a light one no droughts.
func TestWeightedRoundRobinIsSmooth(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]uint32{{5, 1, 1}, {1, 2, 3, 4}, {100, 1}, {10, 10, 10, 1}, {7, 5, 3, 2, 1, 1}} {
		var sum float64
		for _, w := range weights {
			sum += float64(w)
		}
		p := mustNew(t, WeightedRoundRobin, newHosts(len(weights)), weights, nil)
		got := make([]float64, len(weights))
		low, high := make([]float64, len(weights)), make([]float64, len(weights))
		for n := 1; n <= 20_000; n++ {
			got[p.Pick()]++
			for i, w := range weights {
				ahead := got[i] - float64(n)*float64(w)/sum
				low[i], high[i] = min(low[i], ahead), max(high[i], ahead)
			}
		}
		for i := range weights {
			// Any stretch of picks differs from the due by at most this much.
			if spread := high[i] - low[i]; spread > 3 {
				t.Errorf("weights %v: host %d strays by %.2f requests", weights, i, spread)
			}
		}
	}
}

func TestWeightedRoundRobinTakesLightHostsApart(t *testing.T) {
	t.Parallel()
	const light = 20 // beside one that weighs ten times as much as each
	weights := []uint32{10}
	for range light {
		weights = append(weights, 1)
	}
	p := mustNew(t, WeightedRoundRobin, newHosts(len(weights)), weights, nil)
	row, longest := 0, 0
	for range 3000 {
		if row++; p.Pick() == 0 {
			row = 0
		}
		longest = max(longest, row)
	}
	// All in the same round would be 20 in a row; half a cycle apart, there are two such rounds.
	if longest > light/2 {
		t.Errorf("%d light hosts in a row", longest)
	}
}

func TestLeastRequestPrefersTheLessBusy(t *testing.T) {
	t.Parallel()
	hosts := newHosts(10)
	for range 50 {
		hosts[3].Lease() // a host that does not answer
	}
	counts := tally(mustNew(t, LeastRequest, hosts, nil, nil), 10_000)
	if counts[3] != 0 {
		t.Errorf("the busiest of all got %d of 10000", counts[3])
	}
	// With weights it gets what chance alone decides: drawn three times in a row.
	weights := []uint32{1, 2, 1, 2, 1, 2, 1, 2, 1, 2}
	counts = tally(mustNew(t, LeastRequest, hosts, weights, nil), 10_000)
	if counts[3] > 60 { // (2/15)^3 of 10000 is 24
		t.Errorf("the busiest of all got %d of 10000", counts[3])
	}
}

func TestLeastRequestKeepsActiveRequestsInProportionToWeights(t *testing.T) {
	t.Parallel()
	hosts := newHosts(4)
	weights := []uint32{1, 1, 2, 4}
	p := mustNew(t, LeastRequest, hosts, weights, nil)
	for range 8000 {
		hosts[p.Pick()].Lease()
	}
	for i, h := range hosts {
		if want := 1000 * int(weights[i]); h.Active() < want*9/10 || h.Active() > want*11/10 {
			t.Errorf("host %d of weight %d has %d active", i, weights[i], h.Active())
		}
	}
}

func TestPickExceptFindsTheLastUntriedHost(t *testing.T) {
	t.Parallel()
	hosts := newHosts(MaxTried)
	for _, policy := range policies() {
		for _, weights := range [][]uint32{nil, {1000, 1, 1, 1, 1, 1, 1, 1}} {
			for left := range hosts {
				var tried Tried
				for i, h := range hosts {
					if i != left {
						tried.Add(h)
					}
				}
				p := mustNew(t, policy, hosts, weights, nil)
				if got := p.PickExcept(tried); got != left {
					t.Errorf("%v: picked %d, only %d is left", policy, got, left)
				}
				tried.Add(hosts[left])
				if got := p.PickExcept(tried); got != -1 {
					t.Errorf("%v: picked %d, none is left", policy, got)
				}
			}
		}
	}
}

func TestPickExceptFollowsThePolicy(t *testing.T) {
	t.Parallel()
	hosts := newHosts(4)
	for range 50 {
		hosts[1].Lease() // a host that does not answer
	}
	var tried Tried
	tried.Add(hosts[0])
	const n = 10_000
	for _, c := range []struct {
		policy    Policy
		weights   []uint32
		low, high int // how many of n host 1 gets, of the three that are left
	}{
		{LeastRequest, nil, 0, n / 10}, // only where host 0 is drawn time and again
		{LeastRequest, []uint32{1, 1, 2, 3}, 0, n / 10},
		{WeightedRoundRobin, []uint32{1, 8, 1, 1}, n * 6 / 10, n},
		{Random, []uint32{1, 8, 1, 1}, n * 6 / 10, n},
	} {
		p := mustNew(t, c.policy, hosts, c.weights, nil)
		got := 0
		for range n {
			if p.PickExcept(tried) == 1 {
				got++
			}
		}
		if got < c.low || got > c.high {
			t.Errorf("%v, weights %v: it got %d of %d", c.policy, c.weights, got, n)
		}
	}
}

func TestPickExceptSpreadsOverTheOthers(t *testing.T) {
	t.Parallel()
	hosts := newHosts(5)
	var tried Tried
	tried.Add(hosts[2])
	for _, policy := range policies() {
		p := mustNew(t, policy, hosts, nil, nil)
		counts := make([]int, 5)
		for range 10_000 {
			counts[p.PickExcept(tried)]++
		}
		for i, c := range counts {
			if i == 2 && c != 0 || i != 2 && (c < 1500 || c > 6000) {
				t.Errorf("%v: %v", policy, counts)
				break
			}
		}
	}
}

func TestTriedRemembersHostsAcrossPickersAndIsBounded(t *testing.T) {
	t.Parallel()
	hosts := newHosts(MaxTried + 1)
	var tried Tried
	for i, h := range hosts {
		if got, want := tried.Add(h), i < MaxTried; got != want {
			t.Errorf("adding host %d: %v", i, got)
		}
	}
	if !tried.Add(hosts[0]) || tried.Len() != MaxTried || tried.Has(hosts[MaxTried]) {
		t.Errorf("%d remembered", tried.Len())
	}
	slices.Reverse(hosts) // a newer picker, with another order
	if got := mustNew(t, Random, hosts, nil, nil).PickExcept(tried); got != 0 {
		t.Errorf("picked %d, which was tried", got)
	}
}

func TestPickerKeepsItsOwnList(t *testing.T) {
	t.Parallel()
	hosts, weights := newHosts(2), []uint32{1, 3}
	p := mustNew(t, LeastRequest, hosts, weights, nil)
	hosts[0], hosts[1] = nil, nil
	weights[0], weights[1] = 0, 0
	mustBeDistributed(t, tally(p, 40_000), []uint32{1, 3})
}

func TestLeaseIsGivenBackOnce(t *testing.T) {
	t.Parallel()
	var h Host
	a, b := h.Lease(), h.Lease()
	if a.Host() != &h || h.Active() != 2 || h.Requests() != 2 {
		t.Errorf("active %d, requests %d", h.Active(), h.Requests())
	}
	a.Done()
	a.Done()
	if a.Host() != nil || h.Active() != 1 || h.Requests() != 2 {
		t.Errorf("active %d, requests %d", h.Active(), h.Requests())
	}
	b.Done()
	var zero Lease
	zero.Done()
	if h.Active() != 0 || h.Requests() != 2 {
		t.Errorf("active %d, requests %d", h.Active(), h.Requests())
	}
}

func TestHostAndCursorFillTheirCacheLines(t *testing.T) {
	t.Parallel()
	if a, b := unsafe.Sizeof(Host{}), unsafe.Sizeof(Cursor{}); a != 128 || b != 128 {
		t.Errorf("host %d bytes, cursor %d", a, b)
	}
}

func TestConcurrentPicksLoseNothing(t *testing.T) {
	t.Parallel()
	const goroutines, each = 8, 5000
	for _, policy := range policies() {
		hosts := newHosts(7)
		p := mustNew(t, policy, hosts, []uint32{1, 2, 3, 4, 5, 6, 7}, nil)
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					i := p.Pick()
					lease := hosts[i].Lease()
					var tried Tried
					tried.Add(hosts[i])
					if other := p.PickExcept(tried); other == i {
						t.Errorf("%v: picked the tried host", policy)
					}
					lease.Done()
				}
			})
		}
		wg.Wait()
		var total uint64
		for i, h := range hosts {
			total += h.Requests()
			if h.Active() != 0 {
				t.Errorf("%v: host %d has %d active at the end", policy, i, h.Active())
			}
		}
		if total != goroutines*each {
			t.Errorf("%v: %d requests counted", policy, total)
		}
	}
}

func TestPicksDoNotAllocate(t *testing.T) {
	hosts := newHosts(3)
	for _, policy := range policies() {
		for _, weights := range [][]uint32{nil, {1, 2, 3}} {
			p := mustNew(t, policy, hosts, weights, nil)
			n := testing.AllocsPerRun(100, func() {
				var tried Tried
				for range 3 {
					i := p.PickExcept(tried)
					tried.Add(hosts[i])
					lease := hosts[p.Pick()].Lease()
					lease.Done()
				}
			})
			if n != 0 {
				t.Errorf("%v, weights %v: %v allocations", policy, weights, n)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range policies() {
		for _, n := range []int{1, 10, 1000} {
			weights := make([]uint32, n)
			for i := range weights {
				weights[i] = uint32(1 + i%4)
			}
			for name, w := range map[string][]uint32{"even": nil, "weighted": weights} {
				p := mustNew(b, policy, newHosts(n), w, nil)
				b.Run(fmt.Sprintf("%v/%s/%d hosts/1 goroutine", policy, name, n), func(b *testing.B) {
					for b.Loop() {
						p.Pick()
					}
				})
				b.Run(fmt.Sprintf("%v/%s/%d hosts/64 goroutines", policy, name, n), func(b *testing.B) {
					b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							p.Pick()
						}
					})
				})
			}
		}
	}
}
