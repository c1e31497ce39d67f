package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

const usageText = `Measure what Fairlead's sidecar costs, in CPU time, memory and latency, beside NGINX, HAProxy and Envoy.

Usage: bench [flags]        (from the top of the repository; make bench builds what it needs first)

It needs Linux, two cores, taskset, and what makes the load and plays the backend: nginx and wrk for
HTTP/1.1, haproxy and h2load for HTTP/2; for gRPC, TCP, handshakes, latency and memory it does so itself. Peers that are not installed are skipped and named; make bench-peers installs all.

Flags:
`

// options are the flags.
type options struct {
	rounds    int           // at least 1
	duration  time.Duration // of one sample, whole seconds: the kernel accounts in steps of 10 ms
	warmUp    time.Duration // load before each sample that is not counted, whole seconds
	suites    string        // names of suites, with commas; "" is all
	only      string        // names of suites, proxies and workloads, with commas; "" is all
	sidecar   string        // the sidecar's binary
	peers     string        // folder of the peers that are not installed system-wide
	json      string        // where all samples go
	docs      string        // the document whose table is renewed; "" is none
	profiles  string        // folder for profiles of the subject's processes; "" is none
	proxyCore int
	loadCore  int
}

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute returns the exit code: 0, 1 for a run that failed or was interrupted, 2 for
// flags that cannot be meant.
func execute(args []string, out, progress io.Writer) int {
	if len(args) > 0 && role(args[0]) != nil {
		return executeRole(args, out, progress)
	}
	o, err := parseFlags(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // and it is written why
	}
	ctx, stop := untilSignal()
	defer stop()
	switch err := run(ctx, o, out, progress); {
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(progress, "bench: interrupted; all processes have ended, nothing was written")
		return 1
	case err != nil:
		_, _ = fmt.Fprintln(progress, "bench:", err)
		return 1
	}
	return 0
}

// untilSignal ends with SIGINT or SIGTERM.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(out)
	set.Usage = func() {
		_, _ = io.WriteString(out, usageText)
		set.PrintDefaults()
		_, _ = fmt.Fprintf(out, "\nSuites: %s.\nProxies: %s.\nWorkloads: %s.\n", strings.Join(suiteNames(suites()), ", "), strings.Join(proxyNames(suites()), ", "), strings.Join(workloadNames(suites()), ", "))
	}
	set.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	set.DurationVar(&o.duration, "duration", 3*time.Second, "load per sample")
	set.DurationVar(&o.warmUp, "warm-up", time.Second, "load before each sample that is not counted")
	set.StringVar(&o.suites, "suites", "", "measure only the suites of this `list`, with commas between. The document is left alone then")
	set.StringVar(&o.only, "only", "", "measure only the suites, proxies and workloads of this `list`, with commas between; if none\nof a kind is in it, all of it. The document is left alone then")
	set.StringVar(&o.sidecar, "sidecar", "bin/sidecar", "the sidecar's `binary`")
	set.StringVar(&o.peers, "peers", "bin/peers", "`folder` looked into before PATH for nginx, haproxy, envoy, wrk, h2load")
	set.StringVar(&o.json, "json", "bin/bench.json", "`file` for all samples and the summary")
	set.StringVar(&o.docs, "docs", "docs/benchmarks.md", "`document` whose table is renewed between its markers; empty for none")
	set.StringVar(&o.profiles, "profiles", "", "`folder` for a CPU profile of each sidecar in each sample; taking them costs, so the document is left alone then")
	set.IntVar(&o.proxyCore, "proxy-core", 0, "core that runs the proxy")
	set.IntVar(&o.loadCore, "load-core", 1, "core that runs the load and the backend")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	if err := o.check(set.Args()); err != nil {
		_, _ = fmt.Fprintf(out, "bench: %v; --help lists the flags\n", err)
		return options{}, err
	}
	return o, nil
}

func (o options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case o.duration < time.Second, o.duration%time.Second != 0:
		return errors.New("-duration must be whole seconds, at least 1s")
	case o.warmUp < time.Second, o.warmUp%time.Second != 0:
		return errors.New("-warm-up must be whole seconds, at least 1s")
	case o.proxyCore == o.loadCore:
		return errors.New("-proxy-core and -load-core must differ")
	}
	_, err := o.chosen()
	return err
}

// chosen is what the flags leave of all suites.
func (o options) chosen() ([]suite, error) {
	if o.suites == "" {
		return choose(suites(), o.only)
	}
	names := suiteNames(suites())
	for name := range strings.SplitSeq(o.suites, ",") {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-suites: there is no %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	picked, err := choose(suites(), o.suites)
	if err != nil {
		return nil, err
	}
	return choose(picked, o.only)
}

// run measures and writes the results. It has ended every process when it returns.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	chosen, err := o.chosen()
	if err != nil {
		return err
	}
	tools, err := findTools(o, chosen)
	if err != nil {
		return err
	}
	m := measurement{options: o, tools: tools, progress: progress}
	result, err := m.all(ctx, chosen)
	if err != nil {
		return err
	}
	if err := writeJSON(o.json, result); err != nil {
		return err
	}
	table := markdown(result)
	if _, err := io.WriteString(out, table); err != nil {
		return err
	}
	if o.docs == "" || o.suites != "" || o.only != "" || o.profiles != "" {
		return nil
	}
	text, err := configurations(chosen)
	if err != nil {
		return err
	}
	return measure.UpdateDocument(o.docs, "make bench", table+"\n"+text)
}
