package play

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// policy makes breakers heal within the time of an act.
const policy = `{"breaker":{"consecutiveFailures":3,"openTime":"1s","maxOpenTime":"2s"},"requestTimeout":"5s"}`

// patience is how long a statement may take to become true where it says no time.
const patience = 10 * time.Second

// Play plays all acts, or stops with ctx. An error says that the play itself could
// not go on; what the mesh did wrong is in the statements.
func (s *Stage) Play(ctx context.Context) error {
	acts := []func(context.Context) error{
		s.calm, s.slow, s.failing, s.killed, s.joined, s.crashed, s.order, s.declined, s.outage, s.leaves,
	}
	for _, act := range acts {
		if err := act(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) calm(ctx context.Context) error {
	s.announce("calm", "Three instances share the load.", "shares near a third each, no failures, a trace through both sidecars")
	if err := s.Mesh.PutPolicy(ctx, policy); err != nil {
		return err
	}
	s.hold(ctx, 3)
	s.usual = s.Load.Median()
	took, ok := until(ctx, func() bool { return s.Mesh.LastTrace() != nil })
	trace := s.Mesh.LastTrace()
	t := s.Load.Counted()
	var shares []string
	even := true
	for _, id := range s.Mesh.Instances() {
		even = even && t.Share(id) > 0.2 && t.Share(id) < 0.5
		shares = append(shares, fmt.Sprintf("%s %.0f %%", id, 100*t.Share(id)))
	}
	s.state(ctx, even, "the instances share the load", "%s", strings.Join(shares, ", "))
	s.state(ctx, ok, "a trace leads through both sidecars", "%d spans, after %v", len(trace), took.Round(time.Millisecond))
	_, traced := until(ctx, func() bool { return s.Mesh.traced("controlplane", "/mesh.v1.Policies/PutPolicy") })
	s.state(ctx, traced, "the API's calls are traced", "span mesh.v1.Policies/PutPolicy of the control plane: %v", traced)
	s.noFailures(ctx)
	return nil
}

// slowBy is how long the slow instance takes.
const slowBy = 150 * time.Millisecond

func (s *Stage) slow(ctx context.Context) error {
	s.announce("slow", "o2 takes 150 ms for each request.", "its share falls to almost nothing, p50 stays: the less loaded of two is chosen")
	if err := s.Mesh.Fault(ctx, "o2", "delay="+slowBy.String()); err != nil {
		return err
	}
	s.hold(ctx, 3.5)
	t := s.Load.Counted()
	s.state(ctx, t.Share("o2") < 0.15, "the slow instance gets little", "%.1f %% of %d requests", 100*t.Share("o2"), t.Requests)
	p50 := s.Load.Median()
	s.state(ctx, p50 < slowBy/3+2*s.usual, "p50 stays", "%v, %v before", p50.Round(10*time.Microsecond), s.usual.Round(10*time.Microsecond))
	s.noFailures(ctx)
	return s.Mesh.Fault(ctx, "o2", "")
}

func (s *Stage) failing(ctx context.Context) error {
	s.announce("failing", "o3 fails half of its requests.", "its breaker opens and the failures stop; when o3 is well again, a probe closes it")
	if err := s.Mesh.Fault(ctx, "o3", "fail=0.5"); err != nil {
		return err
	}
	took, opened := until(ctx, func() bool { return s.Mesh.Breaker(ctx, "o3") == "open" })
	s.state(ctx, opened, "the breaker opens", "after %v and %d failures", took.Round(10*time.Millisecond), s.Load.Counted().Failed())
	s.Load.Phase()
	s.hold(ctx, 2.5)
	t := s.Load.Counted()
	// Without a breaker it would be one in six. What fails is a probe, or comes after probes that went well.
	s.state(ctx, t.Failed()*12 < t.Requests, "the failures all but stop", "%d of %d, by probes", t.Failed(), t.Requests)
	if err := s.Mesh.Fault(ctx, "o3", ""); err != nil {
		return err
	}
	took, closed := until(ctx, func() bool { return s.Mesh.Breaker(ctx, "o3") == "closed" })
	s.state(ctx, closed, "the breaker closes when the instance is well", "after %v", took.Round(10*time.Millisecond))
	s.hold(ctx, 1) // it gets its share back over one openTime
	s.Load.Phase()
	s.hold(ctx, 1.5)
	t = s.Load.Counted()
	s.state(ctx, t.Share("o3") > 0.1, "the instance has its share again", "%.0f %%", 100*t.Share("o3"))
	s.noFailures(ctx)
	return nil
}

func (s *Stage) killed(ctx context.Context) error {
	s.announce("killed", "o1 and its sidecar are killed (SIGKILL).", "no failure: the request under way is retried elsewhere; o1 is gone within two seconds")
	began := time.Now()
	s.Mesh.KillInstance("o1")
	_, gone := until(ctx, func() bool {
		hosts, err := s.Mesh.Hosts(ctx)
		return err == nil && len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h Host) bool { return h.Instance == "o1" })
	})
	took := time.Since(began)
	s.state(ctx, gone && took <= 2*time.Second, "its peers forget it within 2 s", "after %v", took.Round(time.Millisecond))
	registered, err := s.Mesh.Registered(ctx)
	if err != nil {
		return err
	}
	s.state(ctx, !slices.Contains(registered, "o1"), "it is not registered any more", "registered: %s", strings.Join(registered, ", "))
	s.hold(ctx, 2)
	s.noFailures(ctx)
	return nil
}

func (s *Stage) joined(ctx context.Context) error {
	s.announce("joined", "o4 joins.", "it gets its share as soon as its health check has passed")
	if err := s.Mesh.StartInstance(ctx, "o4"); err != nil {
		return err
	}
	took, serves := until(ctx, func() bool { return s.Load.Counted().ByInstance["o4"] > 0 })
	s.state(ctx, serves, "it serves", "%v after it registered", took.Round(10*time.Millisecond))
	s.hold(ctx, 2)
	s.noFailures(ctx)
	share := s.Load.Counted().Share("o4")
	s.state(ctx, share > 0.1, "it has its share", "%.0f %%", 100*share)
	return nil
}

func (s *Stage) crashed(ctx context.Context) error {
	s.announce("crashed", "The application of o2 crashes (SIGKILL), its sidecar does not.", "no failure: what its sidecar cannot deliver goes to another instance")
	s.Mesh.KillApp("o2")
	s.hold(ctx, 1.5)
	before := s.Load.Counted().ByInstance["o2"]
	s.noFailures(ctx)
	if err := s.Mesh.RestartApp(ctx, "o2"); err != nil {
		return err
	}
	took, serves := until(ctx, func() bool { return s.Load.Counted().ByInstance["o2"] > before })
	s.state(ctx, serves, "it serves again when it is back", "after %v", took.Round(10*time.Millisecond))
	s.noFailures(ctx)
	return nil
}

// OnceOnly is what is said of the effects of a saga. It must hold at any speed.
const OnceOnly = "each effect is there once, and no other"

func (s *Stage) order(ctx context.Context) error {
	s.announce("order", "An order is a saga: reserve at inventory, charge at payments, ship at shipping.", "its steps are done one after the other, and it is completed")
	if err := s.Mesh.delayParties(ctx, time.Duration(0.4*s.Pace*float64(time.Second))); err != nil {
		return err
	}
	if err := s.startSaga(ctx, "order-1", "paid"); err != nil {
		return err
	}
	s.ends(ctx, "order-1", "completed")
	s.hold(ctx, 0.5)
	if err := s.effects(ctx, "order-1", "charged", "reserved", "shipped"); err != nil {
		return err
	}
	s.noFailures(ctx)
	return nil
}

func (s *Stage) declined(ctx context.Context) error {
	s.announce("declined", "Of the next order, the card is declined.", "charge is refused, so what was reserved is released: the saga is compensated")
	if err := s.startSaga(ctx, "order-2", "declined"); err != nil {
		return err
	}
	s.ends(ctx, "order-2", "compensated")
	s.hold(ctx, 0.5)
	if err := s.effects(ctx, "order-2", "released", "reserved"); err != nil {
		return err
	}
	s.noFailures(ctx)
	return s.Mesh.delayParties(ctx, 0)
}

// stalled is how late payments answers so that the control plane is killed before it does.
const stalled = time.Minute

func (s *Stage) outage(ctx context.Context) error {
	s.announce("outage", "The control plane is killed (SIGKILL), while it waits for the answer of a charge.", "nothing: the sidecars go on with what they know, and the saga waits")
	before, err := s.Mesh.Registered(ctx)
	if err != nil {
		return err
	}
	if err := s.Mesh.Fault(ctx, "charge", "delay="+stalled.String()); err != nil {
		return err
	}
	if err := s.startSaga(ctx, "order-3", "paid"); err != nil {
		return err
	}
	_, charged := until(ctx, func() bool {
		e, err := s.Mesh.Effects(ctx, "order-3")
		return err == nil && e.Done["charged"] > 0
	})
	s.hold(ctx, 0.5) // for those who watch
	s.Mesh.KillControlPlane()
	s.state(ctx, charged, "it was charged, and the coordinator does not know", "killed before the answer: %v", charged)
	if err := s.Mesh.Fault(ctx, "charge", ""); err != nil {
		return err
	}
	s.hold(ctx, 3)
	gone := s.Mesh.Metric(ctx, "fairlead_xds_disconnected_seconds")
	s.state(ctx, gone > 0, "the sidecars say since when it is gone", "for %.1f s", gone)
	s.noFailures(ctx)
	return s.back(ctx, before)
}

// back brings the control plane back, to whom the instances before were registered.
func (s *Stage) back(ctx context.Context, before []string) error {
	s.announce("return", "The control plane comes back.", "the sidecars find it; everybody is still registered; the saga goes on, and is charged once")
	if err := s.Mesh.StartControlPlane(ctx); err != nil {
		return err
	}
	began := time.Now()
	s.ends(ctx, "order-3", "completed")
	_, connected := until(ctx, func() bool { return s.Mesh.Metric(ctx, "fairlead_xds_connected") == 1 })
	s.state(ctx, connected, "the sidecars are connected again", "%v after it listens", time.Since(began).Round(10*time.Millisecond))
	e, err := s.Mesh.Effects(ctx, "order-3")
	if err != nil {
		return err
	}
	s.state(ctx, e.Asked["charge/action"] > 1, "it is asked again for the charge whose answer was lost", "%s", counted(e.Asked))
	s.hold(ctx, 2)
	if err := s.effects(ctx, "order-3", "charged", "reserved", "shipped"); err != nil {
		return err
	}
	after, err := s.Mesh.Registered(ctx)
	if err != nil {
		return err
	}
	s.state(ctx, slices.Equal(before, after), "everybody is still registered", "before: %s; after: %s", strings.Join(before, ", "), strings.Join(after, ", "))
	s.noFailures(ctx)
	return nil
}

// ends states how a saga ends.
func (s *Stage) ends(ctx context.Context, id, state string) {
	var saga Saga
	took, ended := until(ctx, func() bool {
		var err error
		saga, err = s.Mesh.Saga(ctx, id)
		return err == nil && saga.State == state
	})
	s.state(ctx, ended, "the saga is "+state, "%s %s after %v: %s", id, saga.State, took.Round(10*time.Millisecond), saga)
}

// effects states what came of an order at the services, by their own count: each of what is named, once, and nothing else.
func (s *Stage) effects(ctx context.Context, order string, once ...string) error {
	e, err := s.Mesh.Effects(ctx, order)
	if err != nil {
		return err
	}
	want := map[string]int{}
	for _, name := range once {
		want[name] = 1
	}
	s.state(ctx, maps.Equal(e.Done, want), OnceOnly, "%s", counted(e.Done))
	return nil
}

func (s *Stage) leaves(ctx context.Context) error {
	s.announce("leaves", "o4 is told to stop (SIGTERM).", "it drains first: no failure, not even a retry")
	before, err := s.Mesh.Retries()
	if err != nil {
		return err
	}
	if err := s.Mesh.StopInstance("o4"); err != nil {
		s.state(ctx, false, "it ends well", "%v", err)
	}
	s.hold(ctx, 1)
	after, err := s.Mesh.Retries()
	if err != nil {
		return err
	}
	registered, err := s.Mesh.Registered(ctx)
	if err != nil {
		return err
	}
	s.state(ctx, !slices.Contains(registered, "o4"), "it is not registered any more", "registered: %s", strings.Join(registered, ", "))
	s.noFailures(ctx)
	s.state(ctx, after == before, "nothing is sent twice", "%d retries, %d in all the acts before", after-before, before)
	return nil
}
