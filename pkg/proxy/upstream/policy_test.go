package upstream_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestThePolicyDecidesWhoIsPicked(t *testing.T) {
	// Of two hosts, of which the first weighs three times as much and has many requests
	// under way, the first gets so many of 400.
	const n = 400
	for policy, share := range map[mesh.LBPolicy]struct{ low, high int }{
		mesh.LBRoundRobin:         {n / 2, n / 2},
		mesh.LBWeightedRoundRobin: {n*3/4 - 2, n*3/4 + 2},
		mesh.LBRandom:             {n * 65 / 100, n * 85 / 100},
		mesh.LBLeastRequest:       {n * 25 / 100, n * 58 / 100},
	} {
		t.Run(policy.String(), func(t *testing.T) {
			all := endpoints(2)
			all[0].Weight = 3
			r := start(t, mesh.Cluster{LB: policy}, all...)
			for range 100 {
				busy := r.attempt("i1")
				defer func() { busy.Done(breaker.Ignored, r.now()) }()
			}
			if got := r.send(n, succeed)["i1"]; got < share.low || got > share.high {
				t.Errorf("it got %d of %d, want %d to %d", got, n, share.low, share.high)
			}
		})
	}
}

func TestThePolicysBreakerIsTheHosts(t *testing.T) {
	all := func(string) breaker.Outcome { return breaker.Failure }
	t.Run("as many requests as the ratio needs", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1000, FailurePercent: 50, MinimumRequests: 7, MaxEjectionPercent: 100}
			r := start(t, config, endpoint(1))
			r.send(6, all)
			if s := r.status("i1").Breaker.State; s != breaker.Closed {
				t.Errorf("after 6 failures it is %s", s)
			}
			r.send(1, all)
			if s := r.status("i1").Breaker.State; s != breaker.Open {
				t.Errorf("after 7 failures it is %s", s)
			}
		})
	})
	t.Run("as many probes", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100, HalfOpenRequests: 3, OpenTime: time.Second, MaxOpenTime: time.Second}
			r := start(t, config, endpoint(1))
			r.send(1, all)
			time.Sleep(2 * time.Second)
			synctest.Wait()
			for range 3 {
				probe := r.begin()
				defer probe.Done(breaker.Ignored, r.now())
				if !probe.Probe() {
					t.Error("it is no probe")
				}
			}
			if got := r.refusal(); got != upstream.NoHealthy {
				t.Errorf("a fourth: %s", got)
			}
		})
	})
	t.Run("another share, from then on", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			config := roundRobin()
			config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 25, OpenTime: time.Hour, MaxOpenTime: time.Hour}
			r := start(t, config, endpoints(4)...)
			r.send(20, all)
			synctest.Wait()
			if open := ejected(r); open != 1 {
				t.Errorf("of 4 at 25 %%, %d are ejected", open)
			}
			config.Breaker.MaxEjectionPercent = 75
			r.apply(config)
			r.send(20, all)
			synctest.Wait()
			if open := ejected(r); open != 3 {
				t.Errorf("of 4 at 75 %%, %d are ejected", open)
			}
		})
	})
}

func TestOfTwoOpenBreakersTheOneThatWasFirstIsProbedFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 10 * time.Second, MaxOpenTime: 10 * time.Second}
		r := start(t, config, endpoints(4)...)
		r.send(4, failing("i2")) // not the first of the list
		time.Sleep(8 * time.Second)
		r.send(4, failing("i1"))
		synctest.Wait()
		time.Sleep(2*time.Second + 2*time.Millisecond)
		synctest.Wait()
		if got := r.send(20, succeed); got["i2"] == 0 || got["i1"] != 0 {
			t.Errorf("when the open time of i2 is over: %v", got)
		}
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if got := r.send(20, succeed); got["i1"] == 0 {
			t.Errorf("when that of i1 is over: %v", got)
		}
	})
}

func TestAHostThatComesBackSlowlyBesideManyThatRefuse(t *testing.T) {
	const n = 300
	for name, test := range map[string]struct {
		well      byte // beside 19 half-open hosts that refuse, and the one that comes back
		low, high int  // how many of n it gets
	}{
		"and one that is well gets a part of its share": {1, 1, n / 5},
		"only gets all": {0, n, n},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				config := roundRobin()
				config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100, OpenTime: time.Second, MaxOpenTime: time.Second}
				r := start(t, config, endpoints(20+test.well)...)
				r.send(20+int(test.well), func(instance string) breaker.Outcome {
					if instance == "i21" {
						return breaker.Success
					}
					return breaker.Failure
				})
				time.Sleep(2 * time.Second)
				synctest.Wait()
				for out := 0; out < 20; { // all are probed; i20 is back, of the others nothing is heard
					attempt := r.begin()
					if attempt.Probe() {
						out++
					}
					if instance := attempt.Host.Endpoint().Instance; instance == "i20" || instance == "i21" {
						attempt.Done(breaker.Success, r.now())
					}
				}
				synctest.Wait()
				if got := r.send(n, succeed)["i20"]; got < test.low || got > test.high {
					t.Errorf("it got %d of %d, want %d to %d", got, n, test.low, test.high)
				}
			})
		})
	}
}

func TestTheClustersLimitIsAskedBeforeThePermitOfAHost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		config := roundRobin()
		config.MaxRequests = 1
		config.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100, OpenTime: time.Second, MaxOpenTime: time.Second}
		r := start(t, config, endpoint(1))
		late := r.begin()
		config.MaxRequests = 2
		r.apply(config)
		r.send(1, failing("i1"))
		config.MaxRequests = 1
		r.apply(config)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := r.refusal(); got != upstream.LimitReached {
			t.Errorf("at the limit: %s", got)
		}
		late.Done(breaker.Ignored, r.now())
		probe := r.begin() // which nobody took
		if !probe.Probe() {
			t.Error("it is no probe")
		}
		probe.Done(breaker.Success, r.now())
	})
}
