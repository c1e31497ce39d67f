package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// result is what the machine-readable file has.
type result struct {
	When          time.Time         `json:"when"`
	Machine       measure.Machine   `json:"machine"`
	Rounds        int               `json:"rounds"`
	Seconds       float64           `json:"seconds_per_sample"`
	WarmUpSeconds float64           `json:"seconds_of_warm_up"`
	Versions      map[string]string `json:"versions"` // by proxy
	Skipped       []skipped         `json:"skipped"`
	Verdicts      []verdict         `json:"bars"`
	Suites        []summary         `json:"suites"`
	Samples       []sample          `json:"samples"`
}

// skipped is a proxy that was to be measured and was not.
type skipped struct {
	Suite string `json:"suite"`
	Proxy string `json:"proxy"`
	Why   string `json:"why"`
}

// summary is one suite, in the order of its workloads and proxies.
type summary struct {
	Suite     string   `json:"suite"`
	Title     string   `json:"title"`
	Unit      string   `json:"unit"` // of the figures' values
	Rate      string   `json:"rate"` // what came per second; "" where nothing was counted by time
	Subject   string   `json:"subject"`
	Reference string   `json:"reference"`
	Baseline  string   `json:"baseline,omitempty"` // whose values were taken off the others'
	Responses int64    `json:"responses"`          // all counted
	Right     string   `json:"right"`              // what every one of them was
	Figures   []figure `json:"figures"`
}

// figure sums up the rounds of one proxy under one workload.
type figure struct {
	Workload string         `json:"workload"`
	Proxy    string         `json:"proxy"`
	Title    string         `json:"title"` // of the proxy
	Value    measure.Spread `json:"value"`
	// Ratios are the value divided by that of each proxy in the same round, by proxy. There is none where
	// that was never more than 0.
	Ratios            map[string]measure.Spread `json:"ratios"`
	RequestsPerSecond measure.Spread            `json:"requests_per_second"`
	Busy              measure.Spread            `json:"busy"`
	RSS               measure.Spread            `json:"rss_bytes"`
	Anonymous         measure.Spread            `json:"rss_anonymous_bytes"`
}

// summarize takes the samples of one suite, each proxy and workload in every round.
func summarize(s suite, samples []sample) summary {
	sum := summary{Suite: s.name, Title: s.title, Unit: s.unit, Rate: cmp.Or(s.rate, "requests/s"), Subject: s.subject, Reference: s.reference, Baseline: s.baseline, Right: s.right}
	if s.measure != nil {
		sum.Rate = ""
	}
	for _, w := range s.workloads {
		rounds := map[string][]sample{} // by proxy, in the order of rounds
		for _, one := range samples {
			if one.Suite == s.name && one.Workload == w.name {
				rounds[one.Proxy] = append(rounds[one.Proxy], one)
				sum.Responses += one.Load.Requests
			}
		}
		for _, p := range s.proxies {
			sum.Figures = append(sum.Figures, figureOf(s.baseline, p, w, rounds))
		}
	}
	return sum
}

func figureOf(baseline string, p proxy, w workload, rounds map[string][]sample) figure {
	mine := rounds[p.name]
	over := func(value func(sample) float64) measure.Spread {
		var values []float64
		for _, one := range mine {
			values = append(values, value(one))
		}
		return measure.SpreadOf(values)
	}
	f := figure{
		Workload:          w.name,
		Proxy:             p.name,
		Title:             p.title,
		Value:             over(func(s sample) float64 { return s.Value }),
		Ratios:            map[string]measure.Spread{},
		RequestsPerSecond: over(func(s sample) float64 { return s.RequestsPerSecond }),
		Busy:              over(func(s sample) float64 { return s.Busy }),
		RSS:               over(func(s sample) float64 { return float64(s.RSS) }),
		Anonymous:         over(func(s sample) float64 { return float64(s.Anonymous) }),
	}
	for other, theirs := range rounds {
		if baseline != "" && (p.name == baseline || other == baseline) {
			continue // of another kind
		}
		var ratios []float64
		for _, one := range mine {
			if value := theirs[one.Round-1].Value; value > 0 {
				ratios = append(ratios, one.Value/value)
			}
		}
		if ratios != nil {
			f.Ratios[other] = measure.SpreadOf(ratios)
		}
	}
	return f
}

// writeJSON makes the file and its folder.
func writeJSON(path string, r result) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
