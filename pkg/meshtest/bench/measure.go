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

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/certs"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
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

	Load load `json:"load"`
	// Value is the figure, in the unit of the suite.
	Value             float64 `json:"value"`
	CPUMicros         float64 `json:"cpu_us,omitempty"` // of all the proxy's processes while the load lasted
	RequestsPerSecond float64 `json:"requests_per_second"`
	// Busy is the share of its core that the proxy used, 0 to 1 (2 where it has two). Below, the load's
	// core was the limit.
	Busy      float64 `json:"busy"`
	RSS       int64   `json:"rss_bytes"`
	Anonymous int64   `json:"rss_anonymous_bytes"`
	Processes int     `json:"processes"`
}

// running is a proxy that has answered the probe. Without a proxy it is the backend's port.
type running struct {
	suite  suite
	proxy  string // its name
	port   int
	groups []int // the process groups of the chain
	admins []int // its second ports
	// responseBytes is how long the response to the probe was.
	responseBytes int64
}

// usage adds up what the process groups have used.
func (r running) usage() (measure.Usage, error) {
	var sum measure.Usage
	for _, group := range r.groups {
		u, err := measure.GroupUsage(group)
		if err != nil {
			return measure.Usage{}, err
		}
		sum = sum.Plus(u)
	}
	return sum, nil
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
	authority, err := certs.NewAuthority("bench")
	if err != nil {
		return result{}, err
	}
	if err := authority.Write(dir, serverName); err != nil {
		return result{}, err
	}
	r := result{Machine: measure.DescribeMachine(), When: time.Now().UTC().Truncate(time.Second), Rounds: m.rounds,
		Seconds: m.duration.Seconds(), WarmUpSeconds: m.warmUp.Seconds(), Versions: map[string]string{}, Skipped: []skipped{}}
	for _, s := range chosen {
		if err := m.suite(ctx, s, &r); err != nil {
			return result{}, fmt.Errorf("%s: %w", s.title, err)
		}
	}
	r.Verdicts = verdicts(chosen, r.Suites)
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
	_, loadCores := m.cores(s)
	backend, err := m.launch(s.backend, loadCores, setting{Dir: m.dir, Backends: ports})
	if err != nil {
		return err
	}
	defer backend.stop()
	probe := s.probe
	if s.probeBackend != nil {
		probe = s.probeBackend
	}
	for _, port := range ports {
		for _, w := range s.workloads {
			if err := backend.await(ctx, func(ctx context.Context) error { _, err := probe(ctx, port, w); return err }); err != nil {
				return fmt.Errorf("backend: %w", err)
			}
		}
	}
	for round := range m.rounds {
		for _, workloads := range s.together() {
			var these []sample
			for _, p := range rotated(s.proxies, round) {
				some, err := again(errNoResponse, func() ([]sample, error) { return m.samples(ctx, s, p, workloads, ports) })
				if err != nil {
					return fmt.Errorf("%s, %s: %w", p.title, workloads[0].name, err)
				}
				for _, one := range some {
					one.Suite, one.Proxy, one.Round = s.name, p.name, round+1
					these = append(these, one)
					_, _ = fmt.Fprintf(m.progress, "%s  round %d of %d  %-18s %-9s %9.2f %s%s\n",
						s.name, one.Round, m.rounds, one.Workload, p.title, one.Value, s.unit, counted(one.Load.Requests, s.right))
				}
			}
			takeOff(s.baseline, these)
			r.Samples = append(r.Samples, these...)
		}
	}
	r.Suites = append(r.Suites, summarize(s, r.Samples))
	return nil
}

// again calls up to three times, as long as the error is that one: on a machine that has no time for a sample, a run
// need not end with it.
func again[T any](while error, call func() (T, error)) (result T, err error) {
	for range 3 {
		if result, err = call(); !errors.Is(err, while) {
			break
		}
	}
	return result, err
}

// counted is empty for a sample whose responses were counted with another.
func counted(responses int64, right string) string {
	if responses == 0 {
		return ""
	}
	return fmt.Sprintf("; %d responses, all %s", responses, right)
}

// takeOff takes the baseline's values off those of the others, by workload: all are of one round.
func takeOff(baseline string, round []sample) {
	base := map[string]float64{}
	for _, one := range round {
		if one.Proxy == baseline {
			base[one.Workload] = one.Value
		}
	}
	for i := range round {
		if round[i].Proxy != baseline {
			round[i].Value -= base[round[i].Workload]
		}
	}
}

// cores are those of the proxies and those of load and backend.
func (m *measurement) cores(s suite) (proxies, load string) {
	proxies, load = strconv.Itoa(m.proxyCore), strconv.Itoa(m.loadCore)
	if s.shared {
		both := proxies + "," + load
		return both, both
	}
	return proxies, load
}

// installed are the proxies that can run. The others are noted as skipped.
func (m *measurement) installed(ctx context.Context, s suite, r *result) ([]proxy, error) {
	var can []proxy
	for _, p := range s.proxies {
		if len(p.chain) == 0 {
			can = append(can, p)
			continue
		}
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

// samples starts the proxy, warms it up, and measures it under the workloads: under one, or under those that are
// measured together. It has ended the proxy when it returns.
func (m *measurement) samples(ctx context.Context, s suite, p proxy, workloads []workload, backends []int) ([]sample, error) {
	with, err := m.settings(len(p.chain), backends)
	if err != nil {
		return nil, err
	}
	proxyCores, loadCores := m.cores(s)
	r := running{suite: s, proxy: p.name, port: backends[0], groups: make([]int, len(p.chain)), admins: make([]int, len(p.chain))}
	for i, one := range slices.Backward(p.chain) { // what is called is there before its caller
		program, err := m.launch(one, proxyCores, with[i])
		if err != nil {
			return nil, err
		}
		defer program.stop()
		if err := program.await(ctx, func(ctx context.Context) error { return listens(ctx, with[i].Listen) }); err != nil {
			return nil, err
		}
		if i == 0 {
			err := program.await(ctx, func(ctx context.Context) error {
				_, err := s.probe(ctx, with[i].Listen, workloads[0])
				return err
			})
			if err != nil {
				return nil, err
			}
			r.port = with[i].Listen
		}
		r.groups[i], r.admins[i] = program.pid(), with[i].Admin
	}
	if r.responseBytes, err = s.probe(ctx, r.port, workloads[0]); err != nil {
		return nil, err
	}
	var some []sample
	if s.measure != nil {
		some, err = m.atOnce(ctx, r, workloads)
	} else {
		some, err = m.underLoad(ctx, r, workloads[0], loadCores)
	}
	if err != nil {
		return nil, err
	}
	if p.verify != nil {
		if err := p.verify(ctx, with); err != nil {
			return nil, err
		}
	}
	return some, nil
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

// underLoad is the load, after one that does not count, and what the process groups used meanwhile. It fails unless
// every response was the right one, of as many bytes as the probe's.
func (m *measurement) underLoad(ctx context.Context, r running, w workload, cores string) ([]sample, error) {
	s, port := r.suite, r.port
	if _, err := s.load(ctx, m.tools, cores, port, w, m.warmUp); err != nil {
		return nil, err
	}
	before, err := r.usage()
	if err != nil {
		return nil, err
	}
	l, err := m.profiled(ctx, r, w, func() (load, error) { return s.load(ctx, m.tools, cores, port, w, m.duration) })
	if err != nil {
		return nil, err
	}
	after, err := r.usage()
	if err != nil {
		return nil, err
	}
	if err := l.check(r.responseBytes, w.connections*w.streams); err != nil {
		return nil, err
	}
	cpu := float64((after.CPU - before.CPU).Microseconds())
	value := cpu / float64(l.Requests)
	if s.value != nil {
		value = s.value(cpu, l)
	}
	return []sample{{
		Workload:          w.name,
		Load:              l,
		Value:             value,
		CPUMicros:         cpu,
		RequestsPerSecond: float64(l.Requests) / (float64(l.Microseconds) / 1e6),
		Busy:              cpu / float64(l.Microseconds),
		RSS:               after.RSS,
		Anonymous:         after.Anonymous,
		Processes:         after.Processes,
	}}, nil
}

// atOnce are the figures of the workloads that are measured together. The responses are counted with the first.
func (m *measurement) atOnce(ctx context.Context, r running, workloads []workload) ([]sample, error) {
	values, responses, err := r.suite.measure(ctx, m, r)
	if err != nil {
		return nil, err
	}
	var some []sample
	for _, w := range workloads {
		value, ok := values[w.name]
		if !ok {
			return nil, fmt.Errorf("%s was not measured", w.name)
		}
		some = append(some, sample{Workload: w.name, Value: value, Load: load{Requests: responses}})
		responses = 0
	}
	return some, nil
}

// launch renders a program's configuration and starts it.
func (m *measurement) launch(p program, cores string, with setting) (*process, error) {
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
	return start(m.dir, p.file(), cores, p.env, argv...)
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
