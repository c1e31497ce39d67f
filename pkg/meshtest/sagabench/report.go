package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// result is what the machine-readable file has.
type result struct {
	When             time.Time       `json:"when"`
	Machine          measure.Machine `json:"machine"`
	Rounds           int             `json:"rounds"`
	Seconds          float64         `json:"seconds_per_sample"`
	WarmUpSeconds    float64         `json:"seconds_of_warm_up"`
	WorkMilliseconds float64         `json:"work_ms_per_step"`
	Figures          []figure        `json:"figures"`
	Recovery         *recovery       `json:"recovery,omitempty"`
	Flood            *flood          `json:"flood,omitempty"`
	Samples          []sample        `json:"samples"`
}

// figure sums up the rounds of a system with so many clients.
type figure struct {
	System      string         `json:"system"`
	Title       string         `json:"title"`
	Clients     int            `json:"clients"`
	Sagas       int            `json:"sagas"`
	Failed      int            `json:"failed"`
	PerSecond   measure.Spread `json:"sagas_per_second"`
	OverheadP50 measure.Spread `json:"step_overhead_p50_ms"`
	OverheadP99 measure.Spread `json:"step_overhead_p99_ms"`
	CPUPerSaga  measure.Spread `json:"cpu_us_per_saga"`
	RSS         measure.Spread `json:"rss_bytes"`
	// Ratios are sagas per second, and the CPU time of a saga, over those of other systems in the same round, by system.
	Ratios    map[string]measure.Spread `json:"ratios"`
	CPURatios map[string]measure.Spread `json:"cpu_ratios"`
}

// The bars, of sagas per second with the most clients over dtm's.
const (
	must       = 2
	aim        = 5
	barClients = 256
)

// summarize takes the samples of each system in every round.
func summarize(samples []sample) (all []figure) {
	of := map[string][]sample{} // by system and clients, in the order of rounds
	var clients []int
	for _, s := range samples {
		key := fmt.Sprint(s.System, s.Clients)
		if s.Round == 1 && s.System == samples[0].System {
			clients = append(clients, s.Clients)
		}
		of[key] = append(of[key], s)
	}
	over := func(samples []sample, value func(sample) float64) measure.Spread {
		var values []float64
		for _, s := range samples {
			values = append(values, value(s))
		}
		return measure.SpreadOf(values)
	}
	for _, n := range clients {
		for _, system := range systems() {
			mine := of[fmt.Sprint(system.name, n)]
			if mine == nil {
				continue
			}
			f := figure{System: system.name, Title: system.title, Clients: n, Ratios: map[string]measure.Spread{}, CPURatios: map[string]measure.Spread{},
				PerSecond:   over(mine, func(s sample) float64 { return s.PerSecond }),
				OverheadP50: over(mine, func(s sample) float64 { return s.OverheadP50 }),
				OverheadP99: over(mine, func(s sample) float64 { return s.OverheadP99 }),
				CPUPerSaga:  over(mine, func(s sample) float64 { return s.CPUPerSaga }),
				RSS:         over(mine, func(s sample) float64 { return float64(s.RSS) }),
			}
			for _, s := range mine {
				f.Sagas, f.Failed = f.Sagas+s.Sagas, f.Failed+s.Failed
			}
			for _, other := range systems() {
				if theirs := of[fmt.Sprint(other.name, n)]; theirs != nil && other.name != system.name {
					f.Ratios[other.name] = over(mine, func(s sample) float64 { return s.PerSecond / theirs[s.Round-1].PerSecond })
					f.CPURatios[other.name] = over(mine, func(s sample) float64 { return s.CPUPerSaga / theirs[s.Round-1].CPUPerSaga })
				}
			}
			all = append(all, f)
		}
	}
	return all
}

// markdown renders the result.
func markdown(r *result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %d cores of %s, Linux %s; load average before the run %s.\n", r.When.Format("2006-01-02"),
		r.Machine.Cores, r.Machine.CPU, r.Machine.Kernel, r.Machine.LoadAverage)
	if !r.Machine.Quiet() {
		b.WriteString("**The machine was not quiet when the run began: do not believe the figures, measure again.**\n")
	}
	if len(r.Figures) > 0 {
		writeFigures(&b, r)
	}
	if r.Recovery != nil {
		r.Recovery.write(&b)
	}
	if r.Flood != nil {
		r.Flood.write(&b)
	}
	return b.String()
}

func writeFigures(b *strings.Builder, r *result) {
	fmt.Fprintf(b, "\nMedian of %d rounds of %g s, each after %g s of warm-up; in parentheses the least and the most of the rounds.", r.Rounds, r.Seconds, r.WarmUpSeconds)
	if r.WorkMilliseconds > 0 {
		fmt.Fprintf(b, " A participant takes %g ms for a step.", r.WorkMilliseconds)
	}
	b.WriteString("\n\n| clients | | sagas/s | step overhead p50, ms | p99, ms | CPU µs per saga | RSS MB | sagas | failed |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, f := range r.Figures {
		fmt.Fprintf(b, "| %d | %s | %s | %s | %s | %s | %.0f | %d | %d |\n", f.Clients, f.Title, f.PerSecond.Render(0), f.OverheadP50.Render(2), f.OverheadP99.Render(2),
			f.CPUPerSaga.Render(0), f.RSS.Median/1e6, f.Sagas, f.Failed)
	}
	b.WriteString("\n| Fairlead ÷ dtm, clients | sagas/s | with `UpdateBranchSync` | CPU per saga | with `UpdateBranchSync` | must | aim |\n|---:|---:|---:|---:|---:|---|---|\n")
	for _, f := range r.Figures {
		if f.System != nameFairlead {
			continue
		}
		fmt.Fprintf(b, "| %d | %s | %s | %s | %s |", f.Clients, ratio(f.Ratios, nameDTM), ratio(f.Ratios, nameDTMSync), ratio(f.CPURatios, nameDTM), ratio(f.CPURatios, nameDTMSync))
		if got, ok := f.Ratios[nameDTM]; ok && f.Clients == barClients {
			fmt.Fprintf(b, " ≥ %d: %s | ≥ %d: %s |\n", must, verdict(got.Median >= must), aim, verdict(got.Median >= aim))
		} else {
			b.WriteString(" | |\n")
		}
	}
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

// ratio is a dash if the other was not measured.
func ratio(ratios map[string]measure.Spread, name string) string {
	r, ok := ratios[name]
	if !ok {
		return "–"
	}
	return r.Render(2)
}

// writeJSON makes the file and its folder.
func writeJSON(path string, r *result) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
