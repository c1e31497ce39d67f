package main

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what the machine-readable file has.
type result struct {
	When          time.Time         `json:"when"`
	Machine       machine           `json:"machine"`
	Rounds        int               `json:"rounds"`
	Seconds       float64           `json:"seconds_per_sample"`
	WarmUpSeconds float64           `json:"seconds_of_warm_up"`
	Versions      map[string]string `json:"versions"` // by proxy
	Skipped       []skipped         `json:"skipped"`
	Verdicts      []verdict         `json:"bars"`
	Suites        []summary         `json:"suites"`
	Samples       []sample          `json:"samples"`
}

// machine is where it ran.
type machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	// LoadAverage is that of the minute before the run: near 0 if nobody else was there.
	LoadAverage string `json:"load_average"`
}

// quiet is false if others kept a core busy before the run.
func (m machine) quiet() bool {
	average, err := strconv.ParseFloat(m.LoadAverage, 64)
	return err != nil || average < 1
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
	Workload string `json:"workload"`
	Proxy    string `json:"proxy"`
	Title    string `json:"title"` // of the proxy
	Value    spread `json:"value"`
	// Ratios are the value divided by that of each proxy in the same round, by proxy. There is none where
	// that was never more than 0.
	Ratios            map[string]spread `json:"ratios"`
	RequestsPerSecond spread            `json:"requests_per_second"`
	Busy              spread            `json:"busy"`
	RSS               spread            `json:"rss_bytes"`
	Anonymous         spread            `json:"rss_anonymous_bytes"`
}

// spread is the middle and the ends of a few values.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf takes at least one value. The median of an even number is the mean of the
// middle two.
func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1]}
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
	over := func(value func(sample) float64) spread {
		var values []float64
		for _, one := range mine {
			values = append(values, value(one))
		}
		return spreadOf(values)
	}
	f := figure{
		Workload:          w.name,
		Proxy:             p.name,
		Title:             p.title,
		Value:             over(func(s sample) float64 { return s.Value }),
		Ratios:            map[string]spread{},
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
			f.Ratios[other] = spreadOf(ratios)
		}
	}
	return f
}

// describeMachine leaves empty what the system does not tell.
func describeMachine() machine {
	m := machine{Cores: runtime.NumCPU()}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(kernel))
	}
	if average, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.LoadAverage, _, _ = strings.Cut(string(average), " ")
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(after, "\n")
			m.CPU = strings.TrimLeft(line, "\t :")
		}
	}
	return m
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
