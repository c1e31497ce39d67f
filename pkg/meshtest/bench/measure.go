package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measurement is one run. Not safe for concurrent use.
type measurement struct {
	options
	tools    tools
	dir      string // for configurations and logs, while the run lasts
	progress io.Writer
}

// sample is one proxy under one workload in one round.
type sample struct {
	Suite    string `json:"suite"`
	Workload string `json:"workload"`
	Proxy    string `json:"proxy"`
	Round    int    `json:"round"` // from 1 on

	Load              load    `json:"load"`
	CPUMicros         float64 `json:"cpu_us_per_request"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	// Busy is the share of its core that the proxy used, 0 to 1. Below 1, the load's
	// core was the limit.
	Busy      float64 `json:"busy"`
	RSS       int64   `json:"rss_bytes"`
	Anonymous int64   `json:"rss_anonymous_bytes"`
	Processes int     `json:"processes"`
}

// all measures every suite and summarizes.
func (m *measurement) all(ctx context.Context, chosen []suite) (result, error) {
	dir, err := os.MkdirTemp("", "fairlead-bench-")
	if err != nil {
		return result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	m.dir, m.tools.wrkScript = dir, filepath.Join(dir, "wrk.lua")
	if err := os.WriteFile(m.tools.wrkScript, wrkScript, 0o600); err != nil {
		return result{}, err
	}
	for _, n := range []int{100, 10_000} { // for backends that take a body from a file
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), bytes.Repeat([]byte("0123456789"), n/10), 0o600); err != nil {
			return result{}, err
		}
	}
	r := result{Machine: describeMachine(), When: time.Now().UTC().Truncate(time.Second), Rounds: m.rounds,
		Seconds: m.duration.Seconds(), WarmUpSeconds: m.warmUp.Seconds(), Versions: map[string]string{}, Skipped: []skipped{}}
	for _, s := range chosen {
		if err := m.suite(ctx, s, &r); err != nil {
			return result{}, fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return r, nil
}

// suite runs the rounds of one suite on a backend.
func (m *measurement) suite(ctx context.Context, s suite, r *result) error {
	installed, err := m.installed(ctx, s, r)
	if err != nil {
		return err
	}
	s.proxies = installed
	ports, err := freePorts(2)
	if err != nil {
		return err
	}
	backend, err := m.launch(s.backend, m.loadCore, setting{Dir: m.dir, Backends: ports})
	if err != nil {
		return err
	}
	defer backend.stop()
	for _, port := range ports {
		for _, w := range s.workloads {
			if err := backend.await(ctx, func(ctx context.Context) error { _, err := s.probe(ctx, port, w); return err }); err != nil {
				return fmt.Errorf("backend: %w", err)
			}
		}
	}
	for round := range m.rounds {
		for _, w := range s.workloads {
			for _, p := range rotated(s.proxies, round) {
				one, err := m.sample(ctx, s, p, w, ports)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", p.title, w.name, err)
				}
				one.Round = round + 1
				r.Samples = append(r.Samples, one)
				_, _ = fmt.Fprintf(m.progress, "%s  round %d of %d  %-16s %-9s %7.2f µs CPU/request %8.0f requests/s, all %s\n",
					s.title, one.Round, m.rounds, w.name, p.title, one.CPUMicros, one.RequestsPerSecond, s.right)
			}
		}
	}
	r.Suites = append(r.Suites, summarize(s, r.Samples))
	return nil
}

// installed are the proxies that can run. The others are noted as skipped.
func (m *measurement) installed(ctx context.Context, s suite, r *result) ([]proxy, error) {
	var can []proxy
	for _, p := range s.proxies {
		binary := p.chain[0].binary
		path := m.tools.path(binary)
		if path == "" {
			r.Skipped = append(r.Skipped, skipped{Suite: s.name, Proxy: p.name, Why: binary + " is not installed"})
			_, _ = fmt.Fprintf(m.progress, "%s  %s is SKIPPED: %s is not installed; make bench-peers installs it\n", s.title, p.title, binary)
			continue
		}
		version, err := versionOf(ctx, path, p.version)
		if err != nil {
			return nil, err
		}
		r.Versions[p.name] = version
		can = append(can, p)
	}
	if len(can) == 0 {
		return nil, errors.New("none of the proxies is installed")
	}
	return can, nil
}

// rotated begins with another element in each round.
func rotated[T any](all []T, round int) []T {
	first := round % len(all)
	return append(append([]T(nil), all[first:]...), all[:first]...)
}

// sample starts the proxy, warms it up, and measures it under load. It has ended the
// proxy when it returns.
func (m *measurement) sample(ctx context.Context, s suite, p proxy, w workload, backends []int) (sample, error) {
	with, err := m.settings(len(p.chain), backends)
	if err != nil {
		return sample{}, err
	}
	groups := make([]int, len(p.chain))
	var first *process
	for i, one := range slices.Backward(p.chain) { // what is called is there before its caller
		running, err := m.launch(one, m.proxyCore, with[i])
		if err != nil {
			return sample{}, err
		}
		defer running.stop()
		if err := running.await(ctx, func(ctx context.Context) error { return listens(ctx, with[i].Listen) }); err != nil {
			return sample{}, err
		}
		groups[i], first = running.pid(), running
	}
	port := with[0].Listen
	var responseBytes int64
	err = first.await(ctx, func(ctx context.Context) error {
		responseBytes, err = s.probe(ctx, port, w)
		return err
	})
	if err != nil {
		return sample{}, err
	}
	if _, err := s.load(ctx, m.tools, m.loadCore, port, w, m.warmUp); err != nil {
		return sample{}, err
	}
	one, err := m.underLoad(ctx, s, w, port, groups, responseBytes)
	if err != nil {
		return sample{}, err
	}
	if p.verify != nil {
		if err := p.verify(ctx, with); err != nil {
			return sample{}, err
		}
	}
	one.Suite, one.Workload, one.Proxy = s.name, w.name, p.name
	return one, nil
}

// settings are those of a chain of n programs: each calls the next, the last the backends.
func (m *measurement) settings(n int, backends []int) ([]setting, error) {
	ports, err := freePorts(2 * n)
	if err != nil {
		return nil, err
	}
	chain := make([]setting, n)
	for i := range slices.Backward(chain) {
		chain[i] = setting{Dir: m.dir, Listen: ports[2*i], Admin: ports[2*i+1], Backends: backends}
		backends = []int{chain[i].Listen}
	}
	return chain, nil
}

// listens fails unless the port takes connections.
func listens(ctx context.Context, port int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// underLoad is the load and what the process groups used meanwhile. It fails unless
// every response was the right one, of so many bytes.
func (m *measurement) underLoad(ctx context.Context, s suite, w workload, port int, groups []int, responseBytes int64) (sample, error) {
	before, err := usageOf(groups)
	if err != nil {
		return sample{}, err
	}
	l, err := s.load(ctx, m.tools, m.loadCore, port, w, m.duration)
	if err != nil {
		return sample{}, err
	}
	after, err := usageOf(groups)
	if err != nil {
		return sample{}, err
	}
	if err := l.check(responseBytes, w.connections*w.streams); err != nil {
		return sample{}, err
	}
	cpu := float64((after.cpu - before.cpu).Microseconds())
	return sample{
		Load:              l,
		CPUMicros:         cpu / float64(l.Requests),
		RequestsPerSecond: float64(l.Requests) / (float64(l.Microseconds) / 1e6),
		Busy:              cpu / float64(l.Microseconds),
		RSS:               after.rss,
		Anonymous:         after.anonymous,
		Processes:         after.processes,
	}, nil
}

// usageOf adds up what the process groups have used.
func usageOf(groups []int) (usage, error) {
	var sum usage
	for _, group := range groups {
		u, err := groupUsage("/proc", group)
		if err != nil {
			return usage{}, err
		}
		sum = sum.plus(u)
	}
	return sum, nil
}

// launch renders a program's configuration and starts it.
func (m *measurement) launch(p program, core int, with setting) (*process, error) {
	config := filepath.Join(m.dir, p.file())
	file, err := os.Create(config)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(render(file, p.config, with), file.Close()); err != nil {
		return nil, err
	}
	argv := []string{m.tools.path(p.binary)}
	for _, a := range p.args {
		argv = append(argv, strings.ReplaceAll(a, "{config}", config))
	}
	return start(m.dir, p.file(), core, p.env, argv...)
}

// freePorts are distinct and free now. All the programs bind on their own, so another process
// can be faster: then the run fails and says so.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // after the last was found, so that none comes twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
