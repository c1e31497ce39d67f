package call

import (
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxPicks bounds how often the picker is asked for an instance whose breaker lets a call through; then all are asked in turn.
const maxPicks = 4

// cluster is the instances of one port of a service, and how they share its calls. It is guarded by Direct.mu.
type cluster struct {
	log    *slog.Logger
	http2  bool
	hosts  map[hostKey]*host
	usable []*host // by their health
	picker lb.Picker
	cursor *lb.Cursor
	share  *breaker.Share
	panic  uint32 // percent of the usable below which breakers are not heeded; 0: never
	fault  error  // why its policy cannot be applied, which the registry would not have taken
}

type hostKey struct{ address, instance string }

// host is an instance that is registered.
type host struct {
	key      hostKey
	endpoint mesh.Endpoint
	load     lb.Host
	breaker  *breaker.Breaker // nil: its policy wants none
}

func newCluster(log *slog.Logger) *cluster {
	return &cluster{log: log, hosts: map[hostKey]*host{}, cursor: lb.NewCursor()}
}

// set makes endpoints those of the cluster. What stays keeps its load and its breaker.
func (c *cluster) set(endpoints []mesh.Endpoint, policy translate.Policy, now int64) {
	before := c.hosts
	c.hosts, c.usable = make(map[hostKey]*host, len(endpoints)), nil
	for _, e := range endpoints {
		key := hostKey{e.Address.String(), e.Instance}
		h := before[key]
		if h == nil {
			h = &host{key: key}
		}
		delete(before, key)
		h.endpoint = e
		c.hosts[key] = h
		if e.Health.Usable() {
			c.usable = append(c.usable, h)
		}
	}
	// Those that leave give their places in the share back before it shrinks.
	for _, h := range before {
		h.retire()
	}
	for _, h := range c.hosts {
		if h.breaker != nil && !h.endpoint.Health.Usable() {
			h.breaker.Suspend(now)
		}
	}
	if c.fault = c.setBreakers(policy.Breaker); c.fault != nil {
		return
	}
	loads, weights := make([]*lb.Host, len(c.usable)), make([]uint32, len(c.usable))
	for i, h := range c.usable {
		loads[i], weights[i] = &h.load, max(h.endpoint.Weight, 1)
	}
	c.picker, c.fault = lb.New(pickerPolicy(policy.LB), loads, weights, c.cursor)
}

// setBreakers gives each host a breaker by the policy, or none.
func (c *cluster) setBreakers(policy mesh.Breaker) error {
	c.panic = policy.PanicPercent
	if policy.Disabled {
		for _, h := range c.hosts {
			h.retire()
		}
		c.share = nil
		return nil
	}
	policy = policy.WithDefaults()
	percent := int(policy.MaxEjectionPercent)
	if c.share == nil {
		share, err := breaker.NewShare(percent, 0)
		if err != nil {
			return err
		}
		c.share = share
	}
	if err := c.share.SetPercent(percent); err != nil {
		return err
	}
	c.share.SetHosts(len(c.usable))
	for _, h := range c.hosts {
		if err := h.configure(breakerConfig(policy), c.share, c.log); err != nil {
			return err
		}
	}
	return nil
}

// breakerConfig turns the words of a policy that is complete into the breaker's.
func breakerConfig(policy mesh.Breaker) breaker.Config {
	config := breaker.Default()
	config.ConsecutiveFailures = int(policy.ConsecutiveFailures)
	config.FailureRatio = float64(policy.FailurePercent) / 100
	config.MinimumRequests = int(policy.MinimumRequests)
	config.Window = policy.Window
	config.OpenTime = policy.OpenTime
	config.MaxOpenTime = policy.MaxOpenTime
	config.HalfOpenProbes = int(policy.HalfOpenRequests)
	return config
}

// configure applies a policy to the host's breaker, which it has from then on.
func (h *host) configure(config breaker.Config, share *breaker.Share, log *slog.Logger) (err error) {
	if h.breaker == nil {
		h.breaker, err = breaker.New(config, breaker.WithShare(share), breaker.OnChange(func(change breaker.Change) {
			if change.Reason != breaker.Retired && change.Reason != breaker.Suspended {
				log.Info("breaker changed", "instance", h.key.instance, "host", h.key.address, "from", change.From, "to", change.To, "reason", change.Reason)
			}
		}))
		return err
	}
	if h.endpoint.Health.Usable() {
		h.breaker.Resume()
	}
	return h.breaker.SetConfig(config)
}

func (h *host) retire() {
	if h.breaker != nil {
		h.breaker.Retire()
		h.breaker = nil
	}
}

func pickerPolicy(p mesh.LBPolicy) lb.Policy {
	switch p {
	case mesh.LBRoundRobin:
		return lb.RoundRobin
	case mesh.LBWeightedRoundRobin:
		return lb.WeightedRoundRobin
	case mesh.LBRandom:
		return lb.Random
	default:
		return lb.LeastRequest
	}
}

// begin takes an instance whose breaker lets a call through. Its error says why there is none.
func (c *cluster) begin(name mesh.ServiceName, clock func() int64) (target, error) {
	if len(c.hosts) == 0 {
		return target{}, fmt.Errorf("service %s has no instances", name)
	}
	if c.fault != nil {
		return target{}, fmt.Errorf("service %s: %w", name, c.fault)
	}
	now := clock()
	panicking := c.panicking(now)
	var tried lb.Tried
	for range maxPicks {
		i := c.picker.PickExcept(tried)
		if i < 0 {
			break
		}
		if t, ok := c.grant(c.usable[i], panicking, now, clock); ok {
			return t, nil
		}
		tried.Add(&c.usable[i].load)
	}
	for i, start := 0, rand.IntN(max(len(c.usable), 1)); i < len(c.usable); i++ {
		h := c.usable[(start+i)%len(c.usable)]
		if tried.Has(&h.load) {
			continue
		}
		if t, ok := c.grant(h, panicking, now, clock); ok {
			return t, nil
		}
	}
	return target{}, fmt.Errorf("service %s: no instance is healthy and has its breaker closed", name)
}

// panicking reports whether breakers let so few instances through that they are not heeded.
func (c *cluster) panicking(now int64) bool {
	if c.panic == 0 {
		return false
	}
	through := 0
	for _, h := range c.usable {
		if h.breaker == nil || h.breaker.State(now) != breaker.Open {
			through++
		}
	}
	return 100*through < int(c.panic)*len(c.usable)
}

// grant takes what is needed to call a host, if its breaker lets it.
func (c *cluster) grant(h *host, panicking bool, now int64, clock func() int64) (target, bool) {
	b := h.breaker
	var permit breaker.Permit
	if b != nil {
		var ok bool
		if permit, ok = b.Acquire(now); !ok && !panicking {
			return target{}, false
		}
	}
	lease := h.load.Lease()
	return target{address: h.endpoint.Address.String(), http2: c.http2, sidecar: h.endpoint.Sidecar, done: func(o breaker.Outcome) {
		lease.Done()
		if b != nil {
			b.Done(permit, o, clock())
		}
	}}, true
}
