package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sample is what a process uses at a time.
type sample struct {
	At          time.Time `json:"at"`
	Resident    int64     `json:"resident"` // bytes
	Goroutines  int       `json:"goroutines"`
	Descriptors int       `json:"descriptors"`
	// Connections are those of clients and those that lie idle in pools, of sidecars.
	Connections int `json:"connections"`
	// Under are the requests, attempts and relayed connections under way, as the metrics say.
	Under int `json:"under"`
}

// subject is a process that is sampled.
type subject struct {
	name    string
	pid     func() int
	metrics string // URL
	admin   string // host:port of a sidecar's admin port; "": it is none
}

func subjects(w *world) []subject {
	all := []subject{{name: "controlplane", pid: func() int { return w.controlPlane().ID() }, metrics: "http://" + w.http + "/metrics"}}
	for _, s := range w.watched() {
		all = append(all, subject{name: s.name, pid: s.process.ID, metrics: "http://" + s.admin + "/stats/prometheus", admin: s.admin})
	}
	return all
}

// take takes a sample of a process.
func (s subject) take(ctx context.Context) (sample, error) {
	now, pid := sample{At: time.Now()}, s.pid()
	var err error
	if now.Resident, err = memory(pid, "VmRSS"); err != nil {
		return now, err
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return now, err
	}
	now.Descriptors = len(open)
	text, err := get(ctx, s.metrics)
	if err != nil {
		return now, err
	}
	goroutines, err := metric(string(text), "go_goroutines")
	now.Goroutines, now.Under = int(goroutines), underWay(string(text))
	if err == nil && s.admin != "" {
		now.Connections, err = s.connections(ctx)
	}
	return now, err
}

// live returns how many bytes of a sidecar's heap are in use: the least that collections leave, after
// which pools keep nothing that lies idle. What is under way comes and goes between them.
func (s subject) live(ctx context.Context) (int64, error) {
	least := int64(math.MaxInt64)
	for range 4 {
		for range 2 {
			if _, err := get(ctx, "http://"+s.admin+"/debug/pprof/heap?gc=1"); err != nil {
				return 0, err
			}
		}
		text, err := get(ctx, s.metrics)
		if err != nil {
			return 0, err
		}
		bytes, err := metric(string(text), "go_memstats_heap_alloc_bytes")
		if err != nil {
			return 0, err
		}
		least = min(least, int64(bytes))
	}
	return least, nil
}

// liveOf asks all sidecars for their live heaps.
func liveOf(ctx context.Context, of []subject) (map[string]int64, error) {
	all := map[string]int64{}
	var faults []error
	for _, s := range of {
		if s.admin == "" {
			continue
		}
		n, err := s.live(ctx)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.name, err))
		}
		all[s.name] = n
	}
	return all, errors.Join(faults...)
}

// connections counts a sidecar's connections.
func (s subject) connections(ctx context.Context) (int, error) {
	n := 0
	var clients struct {
		Listeners []struct {
			Connections int `json:"connections"`
		} `json:"listener_statuses"`
	}
	var hosts struct {
		Clusters []struct {
			Hosts []struct {
				Idle int `json:"cx_idle"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	for path, into := range map[string]any{"/listeners": &clients, "/clusters": &hosts} {
		text, err := get(ctx, "http://"+s.admin+path+"?format=json")
		if err != nil {
			return 0, err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	for _, l := range clients.Listeners {
		n += l.Connections
	}
	for _, c := range hosts.Clusters {
		for _, h := range c.Hosts {
			n += h.Idle
		}
	}
	return n, nil
}

// memory reads a line such as VmRSS or VmHWM of a process's status, in bytes.
func memory(pid int, name string) (int64, error) {
	path := filepath.Join("/proc", strconv.Itoa(pid), "status")
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			kB, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kB << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}

// metric reads a metric without labels.
func metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s", name)
}

// underWay adds up the gauges of what is under way.
func underWay(text string) int {
	n := 0.0
	for line := range strings.Lines(text) {
		family, _, _ := strings.Cut(line, "{")
		switch family {
		case "fairlead_requests_in_flight", "fairlead_upstream_active", "fairlead_tcp_connections_active":
			value, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			n += value
		}
	}
	return int(n)
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(a.Body, 16<<20))
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, a.Status)
	}
	return body, err
}

// takeAll takes one sample of each.
func takeAll(ctx context.Context, of []subject) (map[string]sample, error) {
	all := map[string]sample{}
	var faults []error
	for _, s := range of {
		one, err := s.take(ctx)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.name, err))
			continue
		}
		all[s.name] = one
	}
	return all, errors.Join(faults...)
}

// sampleEvery is how often processes are sampled. To be asked makes more garbage than most of what
// they do.
const sampleEvery = 2 * time.Second

// watch samples processes until ctx ends. Those that do not answer (the control plane may be
// frozen) have no sample then.
type watch struct {
	since   time.Time // when everything was warm
	mu      sync.Mutex
	samples map[string][]sample // guarded by mu
}

func (w *watch) run(ctx context.Context, of []subject) {
	w.samples = map[string][]sample{}
	var sampling sync.WaitGroup
	for _, s := range of {
		sampling.Go(func() {
			ticker := time.NewTicker(sampleEvery)
			defer ticker.Stop()
			for ctx.Err() == nil {
				if one, err := s.take(ctx); err == nil {
					w.mu.Lock()
					w.samples[s.name] = append(w.samples[s.name], one)
					w.mu.Unlock()
				}
				select {
				case <-ctx.Done():
				case <-ticker.C:
				}
			}
		})
	}
	sampling.Wait()
}

// trend is how a quantity went over time.
type trend struct {
	First  float64 `json:"first"` // by the line that fits best, at the first sample
	Last   float64 `json:"last"`
	Most   float64 `json:"most"` // of all samples
	Bound  float64 `json:"bound"`
	Rising bool    `json:"rising"`
}

// growth of a quantity that is allowed over the whole time that is looked at: a share of what it
// was, or so much, whichever is more.
type growth struct {
	share, floor float64
}

// liveHeap is the quantity that is measured twice only, for that takes collections.
const liveHeap = "live heap"

// growthOf returns what each quantity may grow by. A collection comes once in a minute or so, for
// there is little garbage, and leaves as much room for the next as the live heap has: resident
// memory goes up by that. What does not grow where nothing leaks is the live heap itself. The other
// quantities move with what is under way.
func growthOf(quantity string, live int64) growth {
	switch quantity {
	case "resident":
		return growth{0.10, float64(live) + 8<<20}
	case liveHeap:
		return growth{0.10, 3 << 20}
	case "goroutines":
		return growth{0.05, 150}
	default: // descriptors
		return growth{0.05, 150}
	}
}

// fit fits a line by least squares. at are seconds.
func fit(at, values []float64, g growth) trend {
	t := trend{}
	if len(at) == 0 {
		return t
	}
	var meanAt, mean float64
	for n := range at {
		meanAt += at[n] / float64(len(at))
		mean += values[n] / float64(len(at))
		t.Most = math.Max(t.Most, values[n])
	}
	var covariance, variance float64
	for n := range at {
		covariance += (at[n] - meanAt) * (values[n] - mean)
		variance += (at[n] - meanAt) * (at[n] - meanAt)
	}
	slope := 0.0
	if variance > 0 {
		slope = covariance / variance
	}
	t.First, t.Last = mean+slope*(at[0]-meanAt), mean+slope*(at[len(at)-1]-meanAt)
	t.Bound = math.Max(g.share*t.First, g.floor)
	t.Rising = t.Last-t.First > t.Bound
	return t
}

// trends fits lines to what was sampled of a process since then, when so much of its heap was live.
func trends(samples []sample, since time.Time, live int64) map[string]trend {
	var at []float64
	values := map[string][]float64{}
	for _, s := range samples {
		if s.At.Before(since) {
			continue
		}
		at = append(at, s.At.Sub(since).Seconds())
		values["resident"] = append(values["resident"], float64(s.Resident))
		values["goroutines"] = append(values["goroutines"], float64(s.Goroutines))
		values["descriptors"] = append(values["descriptors"], float64(s.Descriptors))
	}
	all := map[string]trend{}
	for name, v := range values {
		all[name] = fit(at, v, growthOf(name, live))
	}
	return all
}

// left returns what a process has too much of, compared with before the load: nothing is under way; each connection
// that is still there, such as one that lies idle in a pool, is a descriptor, and up to two
// goroutines; and each of a sidecar's two listeners keeps 32 goroutines for HTTP/2 requests to come.
func left(before, after sample) (faults []string) {
	const some, workers = 12, 2 * 32 // some: what is being looked at, the connection of who asks
	more := max(0, after.Connections-before.Connections)
	if d := after.Descriptors - before.Descriptors - more; d > some {
		faults = append(faults, fmt.Sprintf("%d descriptors more than before, and %d connections", after.Descriptors-before.Descriptors, more))
	}
	if g := after.Goroutines - before.Goroutines - 2*more; g > some+workers {
		faults = append(faults, fmt.Sprintf("%d goroutines more than before, and %d connections", after.Goroutines-before.Goroutines, more))
	}
	if after.Under > before.Under {
		faults = append(faults, fmt.Sprintf("%d requests, attempts and connections are still under way, say the metrics", after.Under))
	}
	return faults
}
