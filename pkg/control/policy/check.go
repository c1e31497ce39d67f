package policy

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Check returns all that is wrong with a policy, as a *mesh.InvalidError, or nil.
func Check(p *meshv1.Policy) error {
	var c checker
	c.label("service", p.GetService())
	c.label("namespace", p.GetNamespace())
	if _, known := meshv1.LoadBalancing_name[int32(p.GetLoadBalancing())]; !known {
		c.fault("loadBalancing", "must be LEAST_REQUEST, ROUND_ROBIN, WEIGHTED_ROUND_ROBIN or RANDOM")
	}
	// 0s says none.
	if t := p.GetRequestTimeout(); t != nil && (t.GetSeconds() != 0 || t.GetNanos() != 0) {
		c.duration("requestTimeout", t, time.Millisecond, time.Hour)
	}
	if b := p.GetBreaker(); b != nil {
		c.breaker(b)
	}
	if p.GetRevision() < 0 {
		c.fault("revision", "must not be negative")
	}
	if len(c.faults) > 0 {
		return &mesh.InvalidError{What: "the policy", Faults: c.faults}
	}
	return nil
}

type checker struct{ faults []mesh.Fault }

func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, mesh.Fault{Field: field, Reason: fmt.Sprintf(format, args...)})
}

func (c *checker) label(field, value string) {
	if err := mesh.CheckLabel(value); err != nil {
		c.fault(field, "%v", err)
	}
}

// duration reports whether one is given and within its bounds.
func (c *checker) duration(field string, d *durationpb.Duration, low, high time.Duration) bool {
	if d == nil {
		return false
	}
	v := d.AsDuration()
	within := d.CheckValid() == nil && v >= low && v <= high
	if !within {
		c.fault(field, "must be from %v to %v", low, high)
	}
	return within
}

// number checks one whose 0 means the default.
func (c *checker) number(field string, value, high uint32) {
	if value > high {
		c.fault(field, "must be from 1 to %d", high)
	}
}

func (c *checker) breaker(b *meshv1.Breaker) {
	c.number("breaker.consecutiveFailures", b.GetConsecutiveFailures(), 1000)
	c.number("breaker.failurePercent", b.GetFailurePercent(), 100)
	c.number("breaker.minimumRequests", b.GetMinimumRequests(), 1_000_000)
	c.duration("breaker.window", b.GetWindow(), time.Second, 10*time.Minute)
	low := mesh.DefaultOpenTime
	if c.duration("breaker.openTime", b.GetOpenTime(), 100*time.Millisecond, time.Hour) {
		low = b.GetOpenTime().AsDuration()
	}
	c.duration("breaker.maxOpenTime", b.GetMaxOpenTime(), low, 24*time.Hour)
	c.number("breaker.halfOpenRequests", b.GetHalfOpenRequests(), 100)
	c.number("breaker.maxEjectionPercent", b.GetMaxEjectionPercent(), 100)
	if b.GetPanicThresholdPercent() > 100 {
		c.fault("breaker.panicThresholdPercent", "must be from 0 to 100")
	}
}
