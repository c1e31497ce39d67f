package upstream_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// roundRobin makes the hosts of a test take turns.
func roundRobin() mesh.Cluster {
	return mesh.Cluster{LB: mesh.LBRoundRobin, ConnectTimeout: time.Second}
}

// bubble runs a test on a clock that stands still while anything can run.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestHostsKeepTheirStateOverChangesOfConfiguration(t *testing.T) {
	better := endpoint(1)
	better.Weight, better.Zone = 7, "b"
	tests := map[string]func(r *rig){
		"the same endpoints again":    func(r *rig) { r.assign(endpoints(2)...) },
		"another order":               func(r *rig) { r.assign(endpoint(2), endpoint(1)) },
		"another weight and zone":     func(r *rig) { r.assign(better, endpoint(2)) },
		"a further host":              func(r *rig) { r.assign(endpoints(3)...) },
		"a host that goes":            func(r *rig) { r.assign(endpoint(1)) },
		"an endpoint that is doubled": func(r *rig) { r.assign(endpoint(1), endpoint(1), endpoint(2)) },
		"another policy": func(r *rig) {
			r.apply(mesh.Cluster{LB: mesh.LBRandom, Breaker: mesh.Breaker{ConsecutiveFailures: 9}, ConnectTimeout: time.Minute})
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := start(t, roundRobin(), endpoints(2)...)
				r.send(4, failing("i1")) // two for each
				attempt := r.begin()
				for attempt.Host.Endpoint().Instance != "i1" {
					attempt.Done(breaker.Success, r.now())
					attempt = r.begin()
				}
				before, requests := r.host("i1"), r.status("i1").Requests
				change(r)
				got := r.status("i1")
				if r.host("i1") != before || got.Requests != requests || got.Failures != 2 || got.Active != 1 {
					t.Errorf("the state is %+v", got)
				}
				if got.Breaker.ConsecutiveFailures != 2 {
					t.Errorf("the breaker has seen %d failures", got.Breaker.ConsecutiveFailures)
				}
				attempt.Done(breaker.Success, r.now())
				if active := r.status("i1").Active; active != 0 {
					t.Errorf("after the attempt, %d are under way", active)
				}
			})
		})
	}
}

func TestAHostIsItsAddressAndItsInstance(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, roundRobin(), endpoint(1))
		before := r.host("i1")
		restarted := endpoint(1)
		restarted.Instance = "i2" // another process on the same address
		r.assign(restarted)
		moved := restarted
		moved.Address = endpoint(9).Address
		if r.host("i2") == before {
			t.Error("another instance has the state of the one before")
		}
		second := r.host("i2")
		r.assign(moved)
		if r.host("i2") == second {
			t.Error("another address has the state of the one before")
		}
	})
}

func TestTheEjectionShareBoundsOpenBreakers(t *testing.T) {
	tests := []struct {
		hosts   byte
		percent uint32
		open    int
	}{
		{1, 0, 0}, {1, 100, 1}, {2, 0, 1}, {3, 0, 1}, {4, 0, 2}, {10, 30, 3}, {10, 1, 1}, {10, 100, 10},
	}
	for _, test := range tests {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: test.percent}
			r := start(t, config, endpoints(test.hosts)...)
			for range 3 * int(test.hosts) {
				attempt, _, refusal := r.cluster.Begin(r.now(), &lb.Tried{})
				if refusal == upstream.Granted {
					attempt.Done(breaker.Failure, r.now())
				}
			}
			open := 0
			for _, h := range r.cluster.Hosts() {
				if h.Status(r.now()).Breaker.State == breaker.Open {
					open++
				}
			}
			if open != test.open {
				t.Errorf("of %d hosts at %d %%, %d are open, not %d", test.hosts, test.percent, open, test.open)
			}
		})
	}
}

func TestAHostThatGoesGivesItsPlaceInTheShareBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 1} // one host at a time
		r := start(t, config, endpoints(3)...)
		r.send(3, failing("i1"))
		r.assign(endpoint(2), endpoint(3))
		r.send(4, failing("i2"))
		if s := r.status("i2").Breaker.State; s != breaker.Open {
			t.Errorf("the breaker of the next failing host is %s", s)
		}
	})
}

func TestAnOpenBreakerTakesItsHostOutUntilItMayBeProbed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 3, OpenTime: 5 * time.Second}
		r := start(t, config, endpoints(2)...)
		r.send(6, failing("i1"))
		if got := r.send(20, succeed); got["i1"] != 0 {
			t.Errorf("at once, the open host gets %d of 20", got["i1"])
		}
		synctest.Wait()
		if got := r.send(20, succeed); got["i1"] != 0 {
			t.Errorf("the open host gets %d of 20", got["i1"])
		}
		// Jitter makes the open time longer, not shorter, than half of it.
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if got := r.send(20, succeed); got["i1"] == 0 {
			t.Error("the host is never probed")
		}
		synctest.Wait()
		if s := r.status("i1").Breaker.State; s != breaker.Closed {
			t.Errorf("after its probe succeeded, the breaker is %s", s)
		}
	})
}

func TestAttemptsSayWhetherTheyProbe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
		r := start(t, config, endpoint(1))
		attempt := r.begin()
		if attempt.Probe() {
			t.Error("an attempt through a closed breaker says that it probes")
		}
		attempt.Done(breaker.Failure, r.now())
		synctest.Wait()
		if got := r.refusal(); got != upstream.NoHealthy {
			t.Errorf("while the only breaker is open: %s", got)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		probe := r.begin()
		if !probe.Probe() {
			t.Error("the probe does not say that it is one")
		}
		if got := r.refusal(); got != upstream.NoHealthy {
			t.Errorf("beside the only probe: %s", got)
		}
		probe.Done(breaker.Success, r.now())
		if got := r.refusal(); got != upstream.Granted {
			t.Errorf("after it: %s", got)
		}
	})
}

func TestARefusedPermitLeadsToAnotherHost(t *testing.T) {
	// Between a breaker's opening and the next picker, the breaker itself refuses: in
	// the bubble, the timer that publishes one waits until the test does.
	open := func(t *testing.T, hosts, failing byte) *rig {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
		r := start(t, config, endpoints(hosts)...)
		var attempts []upstream.Attempt
		for range hosts {
			attempts = append(attempts, r.begin())
		}
		for i := range attempts {
			outcome := breaker.Success
			if attempts[i].Host.Endpoint().Address.Addr().As4()[3] <= failing {
				outcome = breaker.Failure
			}
			attempts[i].Done(outcome, r.now())
		}
		return r
	}
	t.Run("the next host takes it", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := open(t, 4, 3)
			if got := r.send(20, succeed); got["i4"] != 20 {
				t.Errorf("of 20 it got %d", got["i4"])
			}
		})
	})
	t.Run("were it the only one of many", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := open(t, 100, 99)
			if got := r.send(200, succeed); got["i100"] != 200 {
				t.Errorf("of 200 it got %d", got["i100"])
			}
		})
	})
	t.Run("but not one that was tried", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := open(t, 10, 9)
			var tried lb.Tried
			if _, _, refusal := r.cluster.Begin(r.now(), &tried); refusal != upstream.Granted {
				t.Fatalf("it says: %s", refusal)
			}
			if _, _, refusal := r.cluster.Begin(r.now(), &tried); refusal != upstream.AllTried {
				t.Errorf("it says: %s", refusal)
			}
		})
	})
	t.Run("until all refuse", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := open(t, 100, 100)
			var tried lb.Tried
			if _, _, refusal := r.cluster.Begin(r.now(), &tried); refusal != upstream.NoHealthy {
				t.Errorf("it says: %s", refusal)
			}
			if n := r.cluster.Active(); n != 0 {
				t.Errorf("%d are under way", n)
			}
		})
	})
}

func TestARetryGoesToAHostThatWasNotTried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, mesh.Cluster{LB: mesh.LBRandom}, endpoints(3)...)
		for range 50 {
			var tried lb.Tried
			got := map[string]bool{}
			for range 3 {
				attempt, _, refusal := r.cluster.Begin(r.now(), &tried)
				if refusal != upstream.Granted {
					t.Fatal(refusal)
				}
				got[attempt.Host.Endpoint().Instance] = true
				attempt.Done(breaker.Ignored, r.now())
			}
			if len(got) != 3 {
				t.Fatalf("three attempts went to %v", slices.Sorted(maps.Keys(got)))
			}
			if _, _, refusal := r.cluster.Begin(r.now(), &tried); refusal != upstream.AllTried {
				t.Fatalf("a fourth: %s", refusal)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	sick, leaving := endpoint(1), endpoint(2)
	sick.Health, leaving.Health = mesh.HealthUnhealthy, mesh.HealthDraining
	tests := map[string]struct {
		endpoints []mesh.Endpoint
		want      upstream.Refusal
	}{
		"known and empty":          {nil, upstream.NoEndpoints},
		"unhealthy or draining":    {[]mesh.Endpoint{sick, leaving}, upstream.NoHealthy},
		"one that can be used":     {[]mesh.Endpoint{sick, leaving, endpoint(3)}, upstream.Granted},
		"nobody checks its health": {[]mesh.Endpoint{endpoint(1)}, upstream.Granted},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := start(t, roundRobin(), test.endpoints...)
			if got := r.refusal(); got != test.want {
				t.Errorf("it says: %s", got)
			}
			if !r.cluster.Known() {
				t.Error("its endpoints are not known")
			}
			if n := r.cluster.Active(); n != 0 {
				t.Errorf("%d are under way", n)
			}
		})
	}
	seen := map[string]bool{}
	for r := upstream.Granted; r <= upstream.AllTried; r++ {
		seen[r.String()] = true
	}
	if len(seen) != 5 {
		t.Errorf("the sentences are %q", slices.Sorted(maps.Keys(seen)))
	}
}

func TestAnUnhealthyHostKeepsItsStateAndComesBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, roundRobin(), endpoints(2)...)
		r.send(4, succeed)
		before := r.host("i1")
		sick := endpoint(1)
		sick.Health = mesh.HealthUnhealthy
		r.assign(sick, endpoint(2))
		if got := r.send(10, succeed); got["i1"] != 0 {
			t.Errorf("the unhealthy host gets %d of 10", got["i1"])
		}
		r.assign(endpoints(2)...)
		if got := r.send(10, succeed); got["i1"] != 5 || r.host("i1") != before {
			t.Errorf("the healthy host gets %d of 10", got["i1"])
		}
	})
}

func TestTheClustersLimitOfAttempts(t *testing.T) {
	tests := map[string]mesh.Cluster{
		"of requests":                           {MaxRequests: 2},
		"of connections, of which each has one": {MaxConnections: 2},
		"the lower of both":                     {MaxRequests: 9, MaxConnections: 2},
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := start(t, config, endpoints(3)...)
				first, second := r.begin(), r.begin()
				if got := r.refusal(); got != upstream.LimitReached {
					t.Errorf("a third: %s", got)
				}
				if n := r.cluster.Active(); n != 2 {
					t.Errorf("%d are under way", n)
				}
				first.Done(breaker.Success, r.now())
				if got := r.refusal(); got != upstream.Granted {
					t.Errorf("when one has ended: %s", got)
				}
				r.apply(mesh.Cluster{})
				for range 10 {
					third := r.begin()
					defer third.Done(breaker.Success, r.now())
				}
				second.Done(breaker.Success, r.now())
			})
		})
	}
}

func TestTheLimitHoldsUnderConcurrency(t *testing.T) {
	const limit = 5
	r := start(t, mesh.Cluster{MaxRequests: limit}, endpoints(3)...)
	var group sync.WaitGroup
	var busy, most atomic.Int64
	for range 8 {
		group.Go(func() {
			for range 2000 {
				attempt, _, refusal := r.cluster.Begin(r.now(), &lb.Tried{})
				if refusal != upstream.Granted {
					continue
				}
				if n := busy.Add(1); n > most.Load() {
					most.Store(n)
				}
				runtime.Gosched()
				busy.Add(-1)
				attempt.Done(breaker.Success, r.now())
			}
		})
	}
	group.Wait()
	if n := r.cluster.Active(); n != 0 || most.Load() > limit {
		t.Errorf("at most %d were under way, and %d are still", most.Load(), n)
	}
}

func TestAnOutcomeIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, roundRobin(), endpoint(1))
		attempt := r.begin()
		attempt.Done(breaker.Failure, r.now())
		attempt.Done(breaker.Failure, r.now())
		var zero upstream.Attempt
		zero.Done(breaker.Failure, r.now())
		got := r.status("i1")
		if got.Failures != 1 || got.Requests != 1 || got.Active != 0 || got.Breaker.ConsecutiveFailures != 1 {
			t.Errorf("the host has %+v, its breaker %+v", got, *got.Breaker)
		}
		if n := r.cluster.Active(); n != 0 {
			t.Errorf("%d are under way", n)
		}
	})
}

func TestOnlyFailuresCountAgainstAHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := start(t, roundRobin(), endpoint(1))
		for outcome, failures := range map[breaker.Outcome]uint64{breaker.Success: 0, breaker.Ignored: 0, breaker.Failure: 1} {
			before := r.status("i1").Failures
			attempt := r.begin()
			attempt.Done(outcome, r.now())
			if got := r.status("i1").Failures - before; got != failures {
				t.Errorf("outcome %v counts %d failures", outcome, got)
			}
		}
	})
}

func TestBreakingCanBeTurnedOffAndOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		on := roundRobin()
		on.Breaker.ConsecutiveFailures = 1
		off := roundRobin()
		off.Breaker.Disabled = true
		r := start(t, on, endpoints(2)...)
		late := r.begin()
		r.send(2, failing("i1"))
		r.apply(off)
		if r.status("i1").Breaker != nil {
			t.Error("there is still a breaker")
		}
		if got := r.send(10, failing("i1")); got["i1"] != 5 {
			t.Errorf("without breakers the failing host gets %d of 10", got["i1"])
		}
		r.apply(on)
		late.Done(breaker.Failure, r.now()) // of a breaker that is gone
		r.send(4, failing("i1"))
		synctest.Wait()
		if got := r.send(10, succeed); got["i1"] != 0 {
			t.Errorf("with breakers the failing host gets %d of 10", got["i1"])
		}
	})
}

func TestWhatIsRefusedChangesNothing(t *testing.T) {
	weightless := endpoint(2)
	weightless.Weight = 0
	bad := map[string]mesh.Cluster{
		"ejection share":   {Name: "c", Breaker: mesh.Breaker{MaxEjectionPercent: 101}},
		"panic threshold":  {Name: "c", Breaker: mesh.Breaker{PanicPercent: 101}},
		"breaker":          {Name: "c", Breaker: mesh.Breaker{FailurePercent: 101}},
		"static endpoints": {Name: "c", Static: &mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{weightless}}},
	}
	for name, config := range bad {
		t.Run(name, func(t *testing.T) {
			r := start(t, roundRobin(), endpoint(1))
			if _, err := r.set.Apply(config); err == nil {
				t.Fatal("it was taken")
			}
			if got, _ := r.cluster.Config(); got.LB != mesh.LBRoundRobin || got.Breaker != (mesh.Breaker{}) {
				t.Errorf("in force is %+v", got)
			}
			config.Name = "new"
			if _, err := r.set.Apply(config); err == nil || len(r.set.Clusters()) != 1 {
				t.Errorf("there are %d clusters: %v", len(r.set.Clusters()), err)
			}
		})
	}
	t.Run("endpoints", func(t *testing.T) {
		r := start(t, roundRobin(), endpoint(1))
		before := r.host("i1")
		if err := r.set.Assign(mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint(3), weightless}}); err == nil {
			t.Fatal("they were taken")
		}
		if _, got := r.cluster.Config(); len(got.Endpoints) != 1 || r.host("i1") != before {
			t.Errorf("in force is %+v", got)
		}
		if got := r.send(3, succeed); got["i1"] != 3 {
			t.Errorf("requests go to %v", got)
		}
	})
	t.Run("endpoints of no cluster", func(t *testing.T) {
		r := start(t, roundRobin())
		if err := r.set.Assign(mesh.LoadAssignment{Cluster: "x"}); !errors.Is(err, upstream.ErrUnknownCluster) {
			t.Errorf("it says: %v", err)
		}
	})
}

func TestStaticEndpointsComeWithTheCluster(t *testing.T) {
	r := start(t, roundRobin())
	static := mesh.Cluster{Name: "static", Protocol: mesh.ProtocolHTTP, Static: &mesh.LoadAssignment{Cluster: "static", Endpoints: endpoints(2)}}
	c, err := r.set.Apply(static)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Known() || len(c.Hosts()) != 2 || c.Name() != "static" || c.Protocol() != mesh.ProtocolHTTP {
		t.Errorf("cluster %s of %d hosts, known %v, speaks %s", c.Name(), len(c.Hosts()), c.Known(), c.Protocol())
	}
	if h := c.Hosts()[1]; h.Cluster() != c || h.Address() != endpoint(2).Address {
		t.Errorf("the second host is at %s", h.Address())
	}
}

func TestARemovedClusterHasNoHosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker.ConsecutiveFailures = 1
		r := start(t, config, endpoints(2)...)
		late := r.begin()
		r.set.Remove("c")
		r.set.Remove("never there")
		if got := r.refusal(); got != upstream.NoEndpoints {
			t.Errorf("it says: %s", got)
		}
		late.Done(breaker.Failure, r.now())
		synctest.Wait()
		if got := r.refusal(); got != upstream.NoEndpoints {
			t.Errorf("after a late report it says: %s", got)
		}
		if n := len(r.set.Clusters()); n != 0 {
			t.Errorf("there are %d clusters", n)
		}
		if again := r.apply(config); again == r.cluster || again.Known() {
			t.Error("what is made anew has the state of what was removed")
		}
	})
}

func TestBeginAndDoneAllocateNothing(t *testing.T) {
	heavy := endpoint(3)
	heavy.Weight = 5
	for _, policy := range []mesh.LBPolicy{mesh.LBLeastRequest, mesh.LBRoundRobin, mesh.LBWeightedRoundRobin, mesh.LBRandom} {
		for _, off := range []bool{false, true} {
			r := start(t, mesh.Cluster{LB: policy, Breaker: mesh.Breaker{Disabled: off}, MaxRequests: 100}, endpoint(1), endpoint(2), heavy)
			now := r.now()
			if n := testing.AllocsPerRun(200, func() {
				var tried lb.Tried
				now += int64(time.Millisecond)
				for range 2 { // the second is a retry
					attempt, _, refusal := r.cluster.Begin(now, &tried)
					if refusal != upstream.Granted {
						t.Fatal(refusal)
					}
					attempt.Done(breaker.Success, now)
				}
			}); n != 0 {
				t.Errorf("%s, breakers off %v: %v allocations", policy, off, n)
			}
		}
	}
}

func BenchmarkBeginDone(b *testing.B) {
	r := start(b, mesh.Cluster{}, endpoints(10)...)
	now := r.now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			attempt, _, _ := r.cluster.Begin(now, &lb.Tried{})
			attempt.Done(breaker.Success, now)
		}
	})
}

func TestClustersAreListedInTheOrderOfTheirMaking(t *testing.T) {
	set := upstream.NewSet(func() int64 { return 0 }, slog.New(slog.DiscardHandler))
	defer set.Close()
	var want, got []string
	for i := range 50 {
		name := fmt.Sprint("c", (i*37)%50)
		want = append(want, name)
		if _, err := set.Apply(mesh.Cluster{Name: name, ConnectTimeout: time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range set.Clusters() {
		got = append(got, c.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestAHostWhoseBreakerClosedGetsItsShareBackByAndBy(t *testing.T) {
	for _, policy := range []mesh.LBPolicy{mesh.LBLeastRequest, mesh.LBRoundRobin, mesh.LBWeightedRoundRobin, mesh.LBRandom} {
		t.Run(policy.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := start(t, mesh.Cluster{LB: policy, ConnectTimeout: time.Second,
					Breaker: mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 10 * time.Second, MaxOpenTime: 10 * time.Second}}, endpoints(4)...)
				for r.send(1, failing("i1"))["i1"] == 0 {
				}
				time.Sleep(10*time.Second + 2*time.Millisecond)
				synctest.Wait()
				for r.send(1, succeed)["i1"] == 0 { // until the probe has closed it
				}
				synctest.Wait()
				const n = 8000 // of which a full share is 2000
				for _, c := range []struct {
					after     time.Duration
					low, high int
				}{{0, 100, 350}, {5 * time.Second, 700, 1400}, {5 * time.Second, 1800, 2200}, {time.Hour, 1800, 2200}} {
					time.Sleep(c.after)
					if got := r.send(n, succeed)["i1"]; got < c.low || got > c.high {
						t.Errorf("%v later it got %d of %d, want %d to %d", c.after, got, n, c.low, c.high)
					}
				}
			})
		})
	}
}

func TestAHostThatComesBackSlowlyIsUsedWhereThereIsNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
		r := start(t, config, endpoints(2)...)
		r.send(2, func(string) breaker.Outcome { return breaker.Failure })
		time.Sleep(6 * time.Second)
		synctest.Wait()
		r.send(2, succeed)
		synctest.Wait()
		if got := r.send(100, succeed); got["i1"]+got["i2"] != 100 {
			t.Errorf("%v", got)
		}
	})
}

func TestAPolicyThatIsLaxerLetsAnOpenHostBackInItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: time.Hour, MaxOpenTime: time.Hour}
		r := start(t, config, endpoints(2)...)
		r.send(2, failing("i1"))
		time.Sleep(time.Minute)
		if got := r.send(10, succeed)["i1"]; got != 0 {
			t.Errorf("open, it got %d", got)
		}
		config.Breaker = mesh.Breaker{}
		r.apply(config)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := r.send(10, succeed)["i1"]; got == 0 {
			t.Error("after the default open time it gets nothing")
		}
	})
}

func TestTheShareIsOneOfTheHealthyHosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		all := endpoints(8)
		for i := range 4 {
			all[i].Health = mesh.HealthUnhealthy
		}
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 50}
		r := start(t, config, all...)
		r.send(40, func(string) breaker.Outcome { return breaker.Failure })
		synctest.Wait()
		if open := ejected(r); open != 2 {
			t.Errorf("of 4 healthy hosts of 8, %d are ejected, want 2", open)
		}
		r.assign(endpoints(8)...) // the others get well
		r.send(40, func(string) breaker.Outcome { return breaker.Failure })
		synctest.Wait()
		if open := ejected(r); open != 4 {
			t.Errorf("of 8 healthy hosts %d are ejected, want 4", open)
		}
	})
}

func ejected(r *rig) int {
	open := 0
	for _, h := range r.cluster.Hosts() {
		if h.Status(r.now()).Breaker.State == breaker.Open {
			open++
		}
	}
	return open
}

func TestAHostThatBecomesUnusableGivesItsPlaceInTheShareBack(t *testing.T) {
	for _, health := range []mesh.Health{mesh.HealthUnhealthy, mesh.HealthDraining} {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1}
			r := start(t, config, endpoints(4)...)
			late := r.attempt("i2")
			r.send(8, failing("i1"))
			if open := ejected(r); open != 1 {
				t.Fatalf("%d are ejected", open)
			}
			sick := endpoints(4)
			sick[0].Health, sick[1].Health = health, health
			r.assign(sick...)
			late.Done(breaker.Failure, r.now()) // takes no place either
			synctest.Wait()
			if got := r.send(20, failing("i3")); got["i3"] != 1 || got["i1"]+got["i2"] != 0 {
				t.Errorf("%s: of 20 requests the hosts got %v", health, got)
			}
			// All are back, one of four is open: there is a place for one more, and only one.
			r.assign(endpoints(4)...)
			r.send(100, failing("i2"))
			synctest.Wait()
			if open := ejected(r); open != 2 {
				t.Errorf("%s: i3 and one that is back fail, %d are ejected", health, open)
			}
			r.send(100, func(string) breaker.Outcome { return breaker.Failure })
			synctest.Wait()
			if open := ejected(r); open != 2 {
				t.Errorf("%s: of four that fail %d are ejected", health, open)
			}
		})
	}
}

func TestAHostThatIsWellAgainAndWasEjectedGetsItsShareBackByAndBy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 10 * time.Second}
		r := start(t, config, endpoints(2)...)
		r.send(2, failing("i1"))
		sick := endpoints(2)
		sick[0].Health = mesh.HealthUnhealthy
		r.assign(sick...)
		time.Sleep(time.Hour)
		r.assign(endpoints(2)...)
		const n = 4000 // of which a full share is 2000
		if got := r.send(n, succeed)["i1"]; got < 100 || got > 600 {
			t.Errorf("at once it got %d of %d", got, n)
		}
		time.Sleep(10 * time.Second)
		if got := r.send(n, succeed)["i1"]; got != n/2 {
			t.Errorf("later it got %d of %d", got, n)
		}
	})
}

func TestAHostThatIsUnhealthyFromTheStartTakesNoPlaceInTheShare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		all := endpoints(5) // of 4 that are well one may be ejected
		all[4].Health = mesh.HealthUnhealthy
		off, on := roundRobin(), roundRobin()
		off.Breaker.Disabled = true
		on.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 40}
		r := start(t, off, all...)
		r.apply(on)
		r.send(40, func(string) breaker.Outcome { return breaker.Failure })
		synctest.Wait()
		if open := ejected(r); open != 1 { // 40 % of 4, not of 5
			t.Errorf("%d are ejected", open)
		}
	})
}

func TestAHostThatRefusedMayHaveTheRetry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: time.Second, MaxOpenTime: time.Second}
		r := start(t, config, endpoints(2)...)
		r.send(2, failing("i1"))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		probe := r.attempt("i1")
		var tried lb.Tried
		refused := 0
		for refused == 0 { // until the half-open host is asked first
			tried = lb.Tried{}
			first, n, refusal := r.cluster.Begin(r.now(), &tried)
			if refusal != upstream.Granted || first.Host.Endpoint().Instance != "i2" {
				t.Fatalf("%v, %s", first.Host, refusal)
			}
			refused = n
			first.Done(breaker.Ignored, r.now())
		}
		if refused != 1 {
			t.Errorf("%d hosts refused", refused)
		}
		probe.Done(breaker.Success, r.now())
		if retry, _, refusal := r.cluster.Begin(r.now(), &tried); refusal != upstream.Granted || retry.Host.Endpoint().Instance != "i1" {
			t.Errorf("the retry is told: %s", refusal)
		} else {
			retry.Done(breaker.Ignored, r.now())
		}
	})
}

func TestBeginSaysHowManyHostsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
		r := start(t, config, endpoints(20)...)
		var all []upstream.Attempt
		for range 20 {
			all = append(all, r.begin())
		}
		for i := range all { // nothing is published before the test waits
			all[i].Done(breaker.Failure, r.now())
		}
		for range 10 {
			if _, refused, refusal := r.cluster.Begin(r.now(), &lb.Tried{}); refused != 20 || refusal != upstream.NoHealthy {
				t.Fatalf("%d hosts refused: %s", refused, refusal)
			}
		}
	})
}

func TestBelowThePanicThresholdBreakersAreNotHeeded(t *testing.T) {
	tests := []struct {
		hosts, sick, open byte
		percent           uint32
		panic             bool
	}{
		{1, 0, 1, 0, false}, {1, 0, 1, 1, true}, {2, 0, 1, 50, false}, {2, 0, 1, 51, true}, {2, 0, 2, 100, true},
		{10, 0, 6, 40, false}, {10, 0, 7, 40, true}, {10, 0, 1, 100, true}, {10, 0, 0, 100, false}, {10, 0, 10, 0, false},
		{10, 5, 2, 60, false}, {10, 5, 3, 60, true}, {3, 3, 0, 100, false},
	}
	for _, test := range tests {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100, OpenTime: time.Minute}
			r := start(t, config, endpoints(test.hosts)...)
			var fail []string
			for i := range test.open {
				fail = append(fail, fmt.Sprintf("i%d", i+1))
			}
			r.send(int(test.hosts), failing(fail...))
			synctest.Wait()
			all := endpoints(test.hosts)
			for i := range test.sick {
				all[int(test.hosts)-1-int(i)].Health = mesh.HealthUnhealthy
			}
			r.assign(all...)
			config.Breaker.PanicPercent = test.percent
			r.apply(config)
			well, got := int(test.hosts-test.sick), map[string]int{}
			for range 10 * well {
				if attempt, _, refusal := r.cluster.Begin(r.now(), &lb.Tried{}); refusal == upstream.Granted {
					got[attempt.Host.Endpoint().Instance]++
					attempt.Done(breaker.Success, r.now()) // which no breaker that is open may hear
				}
			}
			want := well - int(test.open)
			if test.panic {
				want = well
			}
			if len(got) != want {
				t.Errorf("%+v: requests go to %v", test, got)
			}
			if open := ejected(r); open != int(test.open) {
				t.Errorf("%+v: %d are open", test, open)
			}
		})
	}
}

func TestPanicEndsWhenBreakersClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100, PanicPercent: 50, OpenTime: time.Second, MaxOpenTime: time.Hour}
		r := start(t, config, endpoints(4)...)
		r.send(4, failing("i1", "i2", "i3"))
		synctest.Wait()
		if got := r.send(8, failing("i1", "i2", "i3")); len(got) != 4 {
			t.Errorf("in panic requests go to %v", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		r.send(20, failing("i1")) // the probes of two succeed
		synctest.Wait()
		if got := r.send(40, succeed); got["i1"] != 0 {
			t.Errorf("afterwards they go to %v", got)
		}
	})
}
