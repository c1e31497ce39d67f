package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The defaults of [Config]. A target that stops answering is reported within
// 3 × (2 s × 1.1 + 1 s) = 9.6 s, one that refuses connections within
// 3 × 2.2 s = 6.6 s; one that recovers within 2 × 2.2 s = 4.4 s.
const (
	DefaultInterval           = 2 * time.Second
	DefaultStartInterval      = 250 * time.Millisecond
	DefaultTimeout            = time.Second
	DefaultJitter             = 0.1
	DefaultHealthyThreshold   = 2
	DefaultUnhealthyThreshold = 3
)

// The ranges of [Config].
const (
	minInterval  = 10 * time.Millisecond // below, checking is the target's main load
	maxInterval  = time.Hour
	maxThreshold = 1000
)

// maxDetail bounds, in bytes, what is said of a failure.
const maxDetail = 512

// Config says how often a target is checked and how many answers make a state.
// Zero fields mean the default.
type Config struct {
	// Interval from the end of one check to the start of the next, before
	// jitter. 10 ms to 1 h. Default 2 s.
	Interval time.Duration
	// StartInterval takes the place of Interval until the target was well for the
	// first time, so that it gets its first request soon after it can take one. 10 ms
	// to 1 h. Default 250 ms, or Interval if that is shorter.
	StartInterval time.Duration
	// Timeout of one check; a check that takes longer has failed. 1 ms to 1 h.
	// Default 1 s.
	Timeout time.Duration
	// Jitter is the part of Interval that chance may add to each wait, so that
	// checks that began together spread out (Envoy's interval_jitter_percent
	// ÷ 100). Up to 1; negative means none. Default 0.1.
	Jitter float64
	// InitialJitter bounds a random wait before the first check (Envoy's
	// initial_jitter). Up to 1 h. Default none, as the first check decides when
	// an app gets its first request.
	InitialJitter time.Duration
	// HealthyThreshold is how many successes in a row make an unhealthy target
	// healthy again. Up to 1,000. Default 2.
	HealthyThreshold int
	// UnhealthyThreshold is how many failures in a row make a healthy target
	// unhealthy. Up to 1,000. Default 3. It counts for every kind of failure:
	// that an unexpected HTTP status is enough at once, as in Envoy, would let
	// one overloaded moment take an instance away.
	UnhealthyThreshold int
}

func (c Config) withDefaults() Config {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.StartInterval == 0 {
		c.StartInterval = min(DefaultStartInterval, c.Interval)
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Jitter == 0 {
		c.Jitter = DefaultJitter
	}
	c.Jitter = max(c.Jitter, 0)
	if c.HealthyThreshold == 0 {
		c.HealthyThreshold = DefaultHealthyThreshold
	}
	if c.UnhealthyThreshold == 0 {
		c.UnhealthyThreshold = DefaultUnhealthyThreshold
	}
	return c
}

// validate returns all that is wrong with c, whose defaults are set.
func (c Config) validate() error {
	var faults []error
	check := func(ok bool, format string, a ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, a...))
		}
	}
	check(c.Interval >= minInterval && c.Interval <= maxInterval,
		"interval %v: want %v to %v", c.Interval, minInterval, maxInterval)
	check(c.StartInterval >= minInterval && c.StartInterval <= maxInterval,
		"start interval %v: want %v to %v", c.StartInterval, minInterval, maxInterval)
	check(c.Timeout >= time.Millisecond && c.Timeout <= maxInterval,
		"timeout %v: want 1ms to %v", c.Timeout, maxInterval)
	check(c.Jitter <= 1, // also false for NaN
		"jitter %v: want a share of the interval, 0 to 1", c.Jitter)
	check(c.InitialJitter >= 0 && c.InitialJitter <= maxInterval,
		"initial jitter %v: want 0 to %v", c.InitialJitter, maxInterval)
	check(c.HealthyThreshold >= 1 && c.HealthyThreshold <= maxThreshold,
		"healthy threshold %d: want 1 to %d", c.HealthyThreshold, maxThreshold)
	check(c.UnhealthyThreshold >= 1 && c.UnhealthyThreshold <= maxThreshold,
		"unhealthy threshold %d: want 1 to %d", c.UnhealthyThreshold, maxThreshold)
	return errors.Join(faults...)
}

// Probe asks the target once: nil says that it is well, an error why not, in
// words for people. It must return soon after its context ends, which is when
// the check times out. It is never called twice at once.
type Probe func(context.Context) error

// Report hears of each change of state, the first one included: healthy with an
// empty detail, or unhealthy with why the last check failed: one printable line
// of about 512 bytes at most. It is called between checks, so it delays them for
// as long as it takes.
type Report func(state mesh.Health, detail string)

// Checker checks one target. It is not for use by several goroutines.
type Checker struct {
	config Config
	probe  Probe
	report Report

	state   mesh.Health
	wasWell bool // has been healthy before
	against int  // answers in a row that contradict state
}

// New returns a checker that begins with [Checker.Run]. An error names every
// field of config that is out of its range.
func New(config Config, probe Probe, report Report) (*Checker, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("health check: %w", err)
	}
	return &Checker{config: config, probe: probe, report: report}, nil
}

// Run checks until ctx ends, and then returns nil without a report. Call it
// once.
//
// The first answer decides at once: before it, nothing is known that could
// flap. Until the target has been healthy for the first time, a single success
// is enough too, so that an app that starts after its sidecar is not kept
// waiting. From then on the thresholds hold.
func (c *Checker) Run(ctx context.Context) error {
	timer := time.NewTimer(share(c.config.InitialJitter, 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		err := c.ask(ctx)
		if ctx.Err() != nil {
			return nil // the answer is about the cancelling, not about the target
		}
		if c.count(err == nil) {
			c.report(c.state, detail(err))
		}
		interval := c.config.Interval
		if !c.wasWell {
			interval = c.config.StartInterval
		}
		timer.Reset(interval + share(interval, c.config.Jitter))
	}
}

func (c *Checker) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	err := c.probe(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v: %w", c.config.Timeout, err)
	}
	return err
}

// count takes an answer into account and reports whether it changed the state.
func (c *Checker) count(well bool) bool {
	want := mesh.HealthUnhealthy
	if well {
		want = mesh.HealthHealthy
	}
	if c.state == want {
		c.against = 0
		return false
	}
	c.against++
	if c.against < c.threshold(well) {
		return false
	}
	c.state, c.against = want, 0
	c.wasWell = c.wasWell || well
	return true
}

// threshold is how many answers in a row change the state to well, or to not
// well.
func (c *Checker) threshold(well bool) int {
	switch {
	case c.state == mesh.HealthUnknown:
		return 1
	case !well:
		return c.config.UnhealthyThreshold
	case !c.wasWell:
		// "Note that during startup, only a single successful health check is
		// required to mark a host healthy." (core.v3.HealthCheck.healthy_threshold)
		return 1
	default:
		return c.config.HealthyThreshold
	}
}

// detail returns the words of err on one line of bounded length: they may carry
// what the target sent, as net/http's about malformed answers do.
func detail(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if len(text) > maxDetail {
		end := maxDetail
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "…"
	}
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return '?' // no longer than what it stands for
		}
		return r
	}, text)
}

// share returns a random part, up to part, of d.
func share(d time.Duration, part float64) time.Duration {
	return time.Duration(rand.Float64() * part * float64(d))
}
