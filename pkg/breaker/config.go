package breaker

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config says when a Breaker opens and how it closes again. Values are taken
// literally: there is no field whose zero means a default. Start from [Default].
type Config struct {
	// ConsecutiveFailures in a row open the breaker. 0 turns the rule off,
	// at most 1,000,000. Default 5.
	ConsecutiveFailures int
	// FailureRatio opens the breaker when failures ÷ (failures + successes) over
	// Window reaches it. 0 turns the rule off, else in (0, 1]. Default 0.5. It is
	// looked at after each failure.
	FailureRatio float64
	// MinimumRequests in Window, below which FailureRatio is not looked at, so that
	// one failure of one request opens nothing. 1 to 1,000,000,000. Default 20.
	// Remember that one endpoint sees 1/N of its service's traffic.
	MinimumRequests int
	// Window is the span of time FailureRatio looks back over, in ten buckets: the
	// evidence is 90 to 100 % of Window old at most. 100 ms to 1 h. Default 10 s.
	Window time.Duration
	// OpenTime is how long the first opening lasts. Each next one lasts twice as
	// long, up to MaxOpenTime, until the breaker has stayed closed for MaxOpenTime.
	// 1 ms to 1 h. Default 5 s.
	OpenTime time.Duration
	// MaxOpenTime caps the doubling. OpenTime to 24 h. Default 60 s.
	MaxOpenTime time.Duration
	// Jitter is the part of an open time that chance may take away, so that callers
	// that opened together do not come back together, not even at the cap: an open
	// time t lasts between t·(1−Jitter) and t. 0 to 1. Default 0.25.
	Jitter float64
	// HalfOpenProbes may be out at the same time while half-open. 1 to 1,000.
	// Default 1.
	HalfOpenProbes int
	// HalfOpenSuccesses close the breaker; one failed probe opens it again. 1 to
	// 1,000. Default 1.
	HalfOpenSuccesses int
	// ProbeLease is how long a probe may hold its place without reporting. One that
	// takes longer is counted when it reports, but others may be out beside it by
	// then. 1 ms to 1 h. Default 30 s.
	ProbeLease time.Duration
	// FairTime is the least time a call must have been given for its caller's
	// deadline to count as a failure of the endpoint: a caller in a hurry says
	// nothing about the called. Only Execute reads it. 0 holds every deadline against
	// the endpoint, at most 1 h. Default 100 ms.
	FairTime time.Duration
}

// Default returns the defaults that the fields of [Config] name.
func Default() Config {
	return Config{
		ConsecutiveFailures: 5,
		FailureRatio:        0.5,
		MinimumRequests:     20,
		Window:              10 * time.Second,
		OpenTime:            5 * time.Second,
		MaxOpenTime:         60 * time.Second,
		Jitter:              0.25,
		HalfOpenProbes:      1,
		HalfOpenSuccesses:   1,
		ProbeLease:          30 * time.Second,
		FairTime:            100 * time.Millisecond,
	}
}

// Validate returns nil or all faults of c joined, one line each, each beginning
// with the field's name. MinimumRequests and Window are only looked at when
// FailureRatio is on.
func (c Config) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(within(c.ConsecutiveFailures, 0, maxConsecutive), "ConsecutiveFailures is %d, not 0 to %d", c.ConsecutiveFailures, maxConsecutive)
	ratioOK := c.FailureRatio >= 0 && c.FailureRatio <= 1 // false for NaN
	check(ratioOK, "FailureRatio is %v, not 0 to 1", c.FailureRatio)
	if c.FailureRatio != 0 {
		check(within(c.MinimumRequests, 1, maxMinimum), "MinimumRequests is %d, not 1 to %d", c.MinimumRequests, maxMinimum)
		check(within(c.Window, minWindow, time.Hour), "Window is %v, not %v to 1h", c.Window, minWindow)
	}
	check(c.ConsecutiveFailures != 0 || c.FailureRatio != 0, "ConsecutiveFailures and FailureRatio are both 0: nothing would open the breaker")
	check(within(c.OpenTime, time.Millisecond, time.Hour), "OpenTime is %v, not 1ms to 1h", c.OpenTime)
	check(within(c.MaxOpenTime, c.OpenTime, 24*time.Hour), "MaxOpenTime is %v, not OpenTime (%v) to 24h", c.MaxOpenTime, c.OpenTime)
	check(c.Jitter >= 0 && c.Jitter <= 1, "Jitter is %v, not 0 to 1", c.Jitter)
	check(within(c.HalfOpenProbes, 1, maxProbes), "HalfOpenProbes is %d, not 1 to %d", c.HalfOpenProbes, maxProbes)
	check(within(c.HalfOpenSuccesses, 1, maxProbes), "HalfOpenSuccesses is %d, not 1 to %d", c.HalfOpenSuccesses, maxProbes)
	check(within(c.ProbeLease, time.Millisecond, time.Hour), "ProbeLease is %v, not 1ms to 1h", c.ProbeLease)
	check(within(c.FairTime, 0, time.Hour), "FairTime is %v, not 0 to 1h", c.FairTime)
	return errors.Join(faults...)
}

const (
	maxConsecutive = 1_000_000 // far below countMask, so that the count cannot saturate first
	maxMinimum     = 1_000_000_000
	maxProbes      = 1_000
	minWindow      = 100 * time.Millisecond // buckets of 10 ms
)

func within[T int | time.Duration](v, low, high T) bool { return low <= v && v <= high }

// openTime returns how long the trips-th opening in a row lasts, trips ≥ 1, given a
// random number in [0, 1).
func (c *Config) openTime(trips uint32, random float64) int64 {
	t := c.OpenTime
	for ; trips > 1 && t < c.MaxOpenTime; trips-- {
		t *= 2
	}
	t = min(t, c.MaxOpenTime)
	return max(1, int64(math.Round(float64(t)*(1-c.Jitter*random))))
}
