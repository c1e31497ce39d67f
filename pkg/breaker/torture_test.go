package breaker

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Many goroutines torture the breakers of one cluster with all outcomes, late
// reports, lost permits, reloads, retirement and changes of the cluster's size.
// What must hold all the time: in one half-open phase no more probes are out than
// may be, and no more hosts are ejected than the share allows. And in the end, with
// the endpoints well again, every breaker closes.
func TestTorture(t *testing.T) {
	t.Parallel()
	const hosts, probes, goroutines = 6, 3, 8
	duration := time.Second
	if testing.Short() {
		duration = 200 * time.Millisecond
	}
	share := mustShare(t, 50, hosts)
	c := Config{
		ConsecutiveFailures: 3, FailureRatio: 0.4, MinimumRequests: 10, Window: 100 * time.Millisecond,
		OpenTime: time.Millisecond, MaxOpenTime: 4 * time.Millisecond, Jitter: 0.5,
		HalfOpenProbes: probes, HalfOpenSuccesses: 4, ProbeLease: time.Hour, // leases do not expire here
	}
	cluster := make([]*tortured, hosts)
	for i := range cluster {
		cluster[i] = &tortured{out: map[uint32]int{}}
		cluster[i].b = mustNew(t, c, WithShare(share), OnChange(cluster[i].hear))
	}
	born := time.Now()
	clock := func() int64 { return int64(time.Since(born)) }
	over := func() bool { // not before all have tripped, however little a busy machine gets done
		since := time.Since(born)
		idle := slices.ContainsFunc(cluster, func(h *tortured) bool { return h.trips.Load() == 0 })
		return since >= duration && (!idle || since > 30*time.Second)
	}
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for !over() {
				h := cluster[rand.IntN(hosts)]
				h.request(t, clock, probes)
				if rand.IntN(1000) == 0 {
					_ = h.b.SetConfig(c)
				}
				if got := int64(share.Ejected()); got > hosts/2 {
					t.Errorf("%d of %d hosts ejected", got, hosts)
				}
			}
		})
	}
	wg.Wait()
	for i, h := range cluster {
		if h.trips.Load() == 0 {
			t.Errorf("breaker %d never tripped: the test tests nothing", i)
		}
		for _, p := range h.kept { // a report after the storm frees the last places
			h.b.Done(p, Ignored, clock())
		}
		deadline := time.Now().Add(10 * time.Second)
		for h.b.State(clock()) != Closed && time.Now().Before(deadline) {
			if p, ok := h.b.Acquire(clock()); ok {
				h.b.Done(p, Success, clock())
			}
		}
		mustBe(t, h.b, Closed, clock())
	}
	if got := share.Ejected(); got != 0 {
		t.Errorf("%d places of the share lost", got)
	}
}

// tortured is a breaker with what the test knows of it.
type tortured struct {
	b     *Breaker
	trips atomic.Int64

	mu   sync.Mutex
	out  map[uint32]int // probes out, by generation
	kept []Permit       // probes to be reported late
	last Change
}

func (h *tortured) hear(c Change) {
	if c.Sequence > 1 && (c.From != h.last.To || c.Sequence != h.last.Sequence+1) {
		panic("changes out of order")
	}
	h.last = c
	if c.To == Open {
		h.trips.Add(1)
	}
}

func (h *tortured) request(t *testing.T, clock func() int64, probes int) {
	p, ok := h.b.Acquire(clock())
	if !ok {
		return
	}
	if p.Probe() {
		h.count(t, p, 1, probes)
		if rand.IntN(4) == 0 {
			h.keep(p, clock)
			return
		}
		h.count(t, p, -1, probes)
	}
	h.b.Done(p, Outcome(rand.IntN(3)), clock())
}

// count follows the probes that are out; a probe leaves before it is reported.
func (h *tortured) count(t *testing.T, p Permit, by, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out[p.generation] += by
	if n := h.out[p.generation]; n > most {
		t.Errorf("%d probes out in one half-open phase", n)
	}
}

// keep puts a probe aside and reports one that was put aside before.
func (h *tortured) keep(p Permit, clock func() int64) {
	h.mu.Lock()
	h.kept = append(h.kept, p)
	var late Permit
	if len(h.kept) == 3 {
		late, h.kept = h.kept[0], h.kept[1:]
		h.out[late.generation]--
	}
	h.mu.Unlock()
	h.b.Done(late, Outcome(rand.IntN(3)), clock())
}
