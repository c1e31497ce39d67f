package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// steps is how many a saga has.
const steps = 3

// coordinator is what is measured.
type coordinator interface {
	// carry starts a saga of three steps and returns when it has ended. An error is of one that did not end well.
	carry(ctx context.Context, client *http.Client, id string) error
	// usage is what it and its store have used.
	usage() (measure.Usage, error)
	stop() error
}

// system is a way to carry sagas out.
type system struct {
	name, title string
	start       func(context.Context, *bench, *services) (coordinator, error)
}

// The names of the systems.
const (
	nameFairlead = "fairlead"
	nameDTM      = "dtm"
	nameDTMSync  = "dtm-sync"
)

func systems() []system {
	return []system{{nameFairlead, "Fairlead", startFairlead}, {nameDTM, "dtm", startDTM}, {nameDTMSync, "dtm, `UpdateBranchSync`", startDTMSync}}
}

func systemNames() []string {
	var names []string
	for _, s := range systems() {
		names = append(names, s.name)
	}
	return names
}

// sample is what was measured once.
type sample struct {
	System         string  `json:"system"`
	Clients        int     `json:"clients"`
	Round          int     `json:"round"`
	Sagas          int     `json:"sagas"`
	Failed         int     `json:"failed"`
	PerSecond      float64 `json:"sagas_per_second"`
	OverheadP50    float64 `json:"step_overhead_p50_ms"`
	OverheadP99    float64 `json:"step_overhead_p99_ms"`
	CPUPerSaga     float64 `json:"cpu_us_per_saga"`
	ParticipantsUS float64 `json:"participant_us_per_step"`
	RSS            int64   `json:"rss_bytes"`
}

// throughput measures all systems in turn, each with a store that is new.
func (b *bench) throughput(ctx context.Context, r *result) error {
	s, err := b.startServices(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.process.Stop() }()
	for round := 1; round <= b.rounds; round++ {
		for _, one := range systems() {
			if !slices.Contains(b.systems, one.name) {
				continue
			}
			samples, err := b.samples(ctx, one, s, round)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			r.Samples = append(r.Samples, samples...)
		}
	}
	r.Figures = summarize(r.Samples)
	return nil
}

// samples takes those of a system in a round: fewest clients first.
func (b *bench) samples(ctx context.Context, s system, with *services, round int) (all []sample, err error) {
	c, err := s.start(ctx, b, with)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	for _, clients := range b.clients {
		one, err := b.sample(ctx, c, with, clients)
		if err != nil {
			return nil, err
		}
		one.System, one.Round = s.name, round
		b.say("round %d: %-8s %3d clients: %8.1f sagas/s, step overhead %.2f ms (p99 %.2f), CPU %.0f us per saga, %d failed", round, s.name, clients, one.PerSecond, one.OverheadP50, one.OverheadP99, one.CPUPerSaga, one.Failed)
		all = append(all, one)
	}
	return all, nil
}

// carried is a saga that has ended.
type carried struct {
	at   time.Time
	took time.Duration
	err  error
}

// sample has clients carry one saga after the other. Those count that end between the warm-up and the end.
func (b *bench) sample(ctx context.Context, c coordinator, with *services, clients int) (sample, error) {
	loadCtx, stop := context.WithCancel(ctx)
	defer stop()
	client := newClient(clients)
	defer client.CloseIdleConnections()
	all := make([][]carried, clients)
	b.started++
	var load sync.WaitGroup
	for n := range clients {
		prefix := fmt.Sprintf("s%d-%d-", b.started, n)
		load.Go(func() {
			for i := 0; loadCtx.Err() == nil; i++ {
				begun := time.Now()
				err := c.carry(ctx, client, fmt.Sprint(prefix, i))
				now := time.Now()
				all[n] = append(all[n], carried{now, now.Sub(begun), err})
			}
		})
	}
	begin, err := b.reading(ctx, c, with, b.warmUp)
	if err != nil {
		return sample{}, err
	}
	end, err := b.reading(ctx, c, with, b.duration)
	if err != nil {
		return sample{}, err
	}
	stop()
	load.Wait()
	return sampleOf(begin, end, clients, slices.Concat(all...))
}

// reading is what counters say at a time.
type reading struct {
	at    time.Time
	usage measure.Usage
	stats stats
}

// reading waits and reads the counters.
func (b *bench) reading(ctx context.Context, c coordinator, with *services, after time.Duration) (r reading, err error) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	r.at = time.Now()
	if r.usage, err = c.usage(); err != nil {
		return r, err
	}
	r.stats, err = with.stats(ctx)
	return r, err
}

// sampleOf sums up the sagas that ended between two readings.
func sampleOf(begin, end reading, clients int, all []carried) (sample, error) {
	one := sample{Clients: clients, RSS: end.usage.RSS}
	var took []float64 // ms
	for _, c := range all {
		switch {
		case c.at.Before(begin.at) || c.at.After(end.at):
		case c.err != nil:
			if one.Failed++; one.Failed > clients {
				return sample{}, fmt.Errorf("%d sagas did not end well, the last: %w", one.Failed, c.err)
			}
		default:
			took = append(took, c.took.Seconds()*1e3)
		}
	}
	one.Sagas = len(took)
	if one.Sagas == 0 {
		return sample{}, fmt.Errorf("no saga ended well within %v", end.at.Sub(begin.at))
	}
	calls := end.stats.Calls - begin.stats.Calls
	if 2*calls < int64(steps*one.Sagas) { // the readings are not of one moment
		return sample{}, fmt.Errorf("%d sagas of %d steps ended, with %d calls in all", one.Sagas, steps, calls)
	}
	one.ParticipantsUS = float64((end.stats.Took - begin.stats.Took).Microseconds()) / float64(calls)
	slices.Sort(took)
	overhead := func(share float64) float64 {
		return took[int(share*float64(len(took)-1))]/steps - one.ParticipantsUS/1e3
	}
	one.OverheadP50, one.OverheadP99 = overhead(0.5), overhead(0.99)
	one.PerSecond = float64(one.Sagas) / end.at.Sub(begin.at).Seconds()
	one.CPUPerSaga = float64((end.usage.CPU - begin.usage.CPU).Microseconds()) / float64(one.Sagas)
	return one, nil
}
