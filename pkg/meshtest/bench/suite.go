package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"text/template"
	"time"
)

// suite is one kind of work. Nothing outside of suite.go and what it names knows which.
type suite struct {
	name  string
	title string
	// unit of the figures: what a request costs, unless value or measure says something else.
	unit string
	// rate is the unit of what came per second; "" is requests.
	rate string
	// backend is what all the proxies call. It runs on the load's core.
	backend program
	proxies []proxy
	// generator is the name in tools of what makes the load.
	generator string
	// subject is the name of the proxy that the peers are there for, reference the
	// one by which the table divides.
	subject, reference string
	// baseline, if not "", is the name of the one whose figures are taken off those of all others in
	// the same round.
	baseline  string
	workloads []workload
	// right is what all responses that count are.
	right string
	// shared: proxy, load and backend run on both cores.
	shared bool
	// probe sends one request to the port and returns the bytes of the response, as many
	// as the generator counts. It fails if that is not the response that the workload wants.
	probe func(ctx context.Context, port int, w workload) (int64, error)
	// probeBackend is probe for the backend's ports, if those want another.
	probeBackend func(ctx context.Context, port int, w workload) (int64, error)
	// load sends requests to the port for so long.
	load func(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error)
	// value is the figure of a load, for which the proxy took so many microseconds of CPU time; nil
	// divides them by the requests.
	value func(cpuMicros float64, l load) float64
	// measure, if not nil, measures all workloads at once, on one running proxy and instead of load. It returns
	// the figures by workload, and how many responses it has counted.
	measure func(ctx context.Context, m *measurement, r running) (map[string]float64, int64, error)
}

// program is how something is started.
type program struct {
	binary string   // name in tools
	config string   // file under configs
	env    []string // added to the environment
	args   []string // "{config}" stands for the path of the configuration
}

// file is the name of the configuration without its folder.
func (p program) file() string { return path.Base(p.config) }

// proxy is a candidate.
type proxy struct {
	name, title string
	// chain is what a request passes, in this order: one program, or the two of a mesh.
	// All of them run on the proxy's core, and what they cost is added up. Without any, the
	// load calls the backend.
	chain   []program
	version []string // arguments that make the first of them say its version
	// verify, if not nil, is called after the load with the settings of the chain. It
	// fails if the running proxy does not do what it is said to do while it is measured.
	verify func(ctx context.Context, chain []setting) error
}

// workload is one row of the table for each proxy.
type workload struct {
	name        string
	connections int // at least 1
	streams     int // requests under way on each connection, at least 1
	body        int // bytes in a response
	// streamed: a request brings many such responses. gRPC only.
	streamed bool
	// resumed: connections resume the session of one before. Handshakes only.
	resumed bool
	bars    []bar // what the subject's figure is held to
}

// setting is what configurations are rendered with.
type setting struct {
	Dir      string // for files of the process
	Listen   int    // the program's port
	Admin    int    // the program's second port
	Backends []int  // the ports of what it calls: of the next in the chain, or of the backend
}

// Hundred is a text of a hundred bytes.
func (setting) Hundred() string { return strings.Repeat("0123456789", 10) }

//go:embed configs
var configs embed.FS

func suites() []suite {
	return []suite{
		http1Suite(), http2Suite(), meshSuite(), mtlsSuite(), grpcSuite(), tcpSuite(), handshakeSuite(),
		latencySuite(), memorySuite(), memoryTLSSuite(), gomaxprocsSuite(),
	}
}

// perRequest is the unit of most suites.
const perRequest = "CPU µs/request"

// together are the workloads that are measured on one running proxy: each its own, or all of them.
func (s suite) together() [][]workload {
	if s.measure != nil {
		return [][]workload{s.workloads}
	}
	var each [][]workload
	for _, w := range s.workloads {
		each = append(each, []workload{w})
	}
	return each
}

// path is where the backend has the workload's body.
func (w workload) path() string { return fmt.Sprintf("/%d", w.body) }

// render writes a configuration under configs for the setting.
func render(out io.Writer, config string, with setting) error {
	t, err := template.ParseFS(configs, "configs/"+config)
	if err != nil {
		return err
	}
	return t.Execute(out, with)
}

func proxyNames(all []suite) []string {
	var names []string
	for _, s := range all {
		for _, p := range s.proxies {
			if !slices.Contains(names, p.name) {
				names = append(names, p.name)
			}
		}
	}
	return names
}

func workloadNames(all []suite) []string {
	var names []string
	for _, s := range all {
		for _, w := range s.workloads {
			names = append(names, w.name)
		}
	}
	return names
}

func suiteNames(all []suite) []string {
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	return names
}

// choose leaves of the suites what is named in only: names with commas between. If it names no
// suite, all stay, and the same for proxies and for workloads.
func choose(all []suite, only string) ([]suite, error) {
	if only == "" {
		return all, nil
	}
	names, proxies, workloads := suiteNames(all), proxyNames(all), workloadNames(all)
	var want, wantProxies, wantWorkloads []string
	for name := range strings.SplitSeq(only, ",") {
		switch {
		case slices.Contains(names, name):
			want = append(want, name)
		case slices.Contains(proxies, name):
			wantProxies = append(wantProxies, name)
		case slices.Contains(workloads, name):
			wantWorkloads = append(wantWorkloads, name)
		default:
			return nil, fmt.Errorf("-only: no suite, proxy or workload is called %q: suites are %s; proxies are %s; workloads are %s",
				name, strings.Join(names, ", "), strings.Join(proxies, ", "), strings.Join(workloads, ", "))
		}
	}
	var chosen []suite
	for _, s := range all {
		if want != nil && !slices.Contains(want, s.name) {
			continue
		}
		wanted := func(p proxy) bool { return wantProxies == nil || slices.Contains(wantProxies, p.name) }
		some := slices.ContainsFunc(s.proxies, wanted)
		s.proxies = slices.DeleteFunc(slices.Clone(s.proxies), func(p proxy) bool {
			return !wanted(p) && (!some || p.name != s.baseline) // without that there are no figures of the others
		})
		s.workloads = slices.DeleteFunc(slices.Clone(s.workloads), func(w workload) bool {
			return wantWorkloads != nil && !slices.Contains(wantWorkloads, w.name)
		})
		if len(s.proxies) > 0 && len(s.workloads) > 0 {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}
