package main

import (
	"context"
	"embed"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"
	"time"
)

// suite is one kind of work. Nothing outside of suite.go and what it names knows which.
type suite struct {
	name  string // folder under configs
	title string
	// backend is what all the proxies call. It runs on the load's core.
	backend program
	proxies []proxy
	// subject is the name of the proxy that the peers are there for, reference the
	// one by which the table divides.
	subject, reference string
	workloads          []workload
	// probe sends one request to the port and returns the bytes of the response. It
	// fails if that is not the response that the workload wants.
	probe func(ctx context.Context, port int, w workload) (int64, error)
	// load sends requests to the port for so long.
	load func(ctx context.Context, t tools, core, port int, w workload, d time.Duration) (load, error)
}

// program is how something is started.
type program struct {
	binary string   // name in tools
	config string   // file in the suite's folder
	env    []string // added to the environment
	args   []string // "{config}" stands for the path of the configuration
}

// proxy is a candidate.
type proxy struct {
	name, title string
	program     program
	version     []string // arguments that make it say its version
	// verify, if not nil, is called after the load. It fails if the running proxy does
	// not do what it is said to do while it is measured.
	verify func(ctx context.Context, s setting) error
}

// workload is one row of the table for each proxy.
type workload struct {
	name        string
	connections int // at least 1
	body        int // bytes in a response
}

// setting is what configurations are rendered with.
type setting struct {
	Dir      string // for files of the process
	Listen   int    // the proxy's port
	Admin    int    // the proxy's second port
	Backends []int  // the backend's ports
}

// Hundred is a text of a hundred bytes.
func (setting) Hundred() string { return strings.Repeat("0123456789", 10) }

//go:embed configs
var configs embed.FS

func suites() []suite { return []suite{http1Suite()} }

// http1Suite is HTTP/1.1 in and out, connections kept on both sides.
func http1Suite() suite {
	return suite{
		name:      "http1",
		title:     "HTTP/1.1",
		backend:   program{binary: "nginx", config: "backend.conf", args: []string{"-e", "stderr", "-c", "{config}"}},
		subject:   "fairlead",
		reference: "nginx",
		proxies: []proxy{
			{
				name: "fairlead", title: "Fairlead",
				program: program{
					binary: "sidecar", config: "fairlead.yaml",
					env: []string{"GOMAXPROCS=1"},
					// Ratio 0 samples nothing but what a caller has sampled: each request
					// gets a trace context, none a span. So no collector is called.
					args: []string{"--bootstrap", "{config}", "--access-log", "off", "--log-level", "error",
						"--otlp-endpoint", "grpc://127.0.0.1:4317", "--trace-ratio", "0", "--drain-timeout", "1s"},
				},
				version: []string{"--version"},
				verify:  verifyFairlead,
			},
			{
				name: "nginx", title: "NGINX",
				program: program{binary: "nginx", config: "nginx.conf", args: []string{"-e", "stderr", "-c", "{config}"}},
				version: []string{"-v"},
			},
			{
				name: "haproxy", title: "HAProxy",
				program: program{binary: "haproxy", config: "haproxy.cfg", args: []string{"-db", "-f", "{config}"}},
				version: []string{"-v"},
			},
			{
				name: "envoy", title: "Envoy",
				program: program{binary: "envoy", config: "envoy.yaml",
					args: []string{"--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c", "{config}"}},
				version: []string{"--version"},
			},
		},
		workloads: []workload{
			{name: "32c-100B", connections: 32, body: 100},
			{name: "32c-10kB", connections: 32, body: 10_000},
			{name: "256c-100B", connections: 256, body: 100},
			{name: "256c-10kB", connections: 256, body: 10_000},
		},
		probe: probeHTTP1,
		load:  runWrk,
	}
}

// path is where the backend has the workload's body.
func (w workload) path() string { return fmt.Sprintf("/%d", w.body) }

// render writes a program's configuration for the setting.
func (s suite) render(out io.Writer, config string, with setting) error {
	t, err := template.ParseFS(configs, "configs/"+s.name+"/"+config)
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

// choose leaves of the suites what is named in only: names with commas between. If it names no
// proxy, all stay, and the same for workloads.
func choose(all []suite, only string) ([]suite, error) {
	if only == "" {
		return all, nil
	}
	proxies, workloads := proxyNames(all), workloadNames(all)
	var wantProxies, wantWorkloads []string
	for name := range strings.SplitSeq(only, ",") {
		switch {
		case slices.Contains(proxies, name):
			wantProxies = append(wantProxies, name)
		case slices.Contains(workloads, name):
			wantWorkloads = append(wantWorkloads, name)
		default:
			return nil, fmt.Errorf("-only: no proxy or workload is called %q: proxies are %s; workloads are %s",
				name, strings.Join(proxies, ", "), strings.Join(workloads, ", "))
		}
	}
	var chosen []suite
	for _, s := range all {
		s.proxies = slices.DeleteFunc(slices.Clone(s.proxies), func(p proxy) bool {
			return wantProxies != nil && !slices.Contains(wantProxies, p.name)
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
