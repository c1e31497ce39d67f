package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const usageText = `Measure the CPU time per request of Fairlead's sidecar beside NGINX, HAProxy and Envoy.

Usage: bench [flags]        (from the top of the repository; make bench builds what it needs first)

It needs Linux, two cores, nginx (it is the backend too), wrk and taskset. Peers that are not
installed are skipped and named; make bench-peers installs all of them.

Flags:
`

// options are the flags.
type options struct {
	rounds    int           // at least 1
	duration  time.Duration // of one sample, at least 1 s: the kernel accounts in steps of 10 ms
	warmUp    time.Duration // load before each sample that is not counted
	only      string        // names of proxies and workloads, with commas; "" is all
	sidecar   string        // the sidecar's binary
	peers     string        // folder of the peers that are not installed system-wide
	json      string        // where all samples go
	docs      string        // the document whose table is renewed; "" is none
	proxyCore int
	loadCore  int
}

func main() {
	o, err := parseFlags(os.Args[1:], os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(out)
	set.Usage = func() {
		_, _ = io.WriteString(out, usageText)
		set.PrintDefaults()
		_, _ = fmt.Fprintf(out, "\nProxies: %s.\nWorkloads: %s.\n", strings.Join(proxyNames(suites()), ", "), strings.Join(workloadNames(suites()), ", "))
	}
	set.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	set.DurationVar(&o.duration, "duration", 4*time.Second, "load per sample")
	set.DurationVar(&o.warmUp, "warm-up", time.Second, "load before each sample that is not counted")
	set.StringVar(&o.only, "only", "", "measure only the proxies and workloads `named`, with commas between; if none of a\nkind is named, all of it. The document is left alone then")
	set.StringVar(&o.sidecar, "sidecar", "bin/sidecar", "the sidecar's `binary`")
	set.StringVar(&o.peers, "peers", "bin/peers", "`folder` looked into before PATH for nginx, haproxy, envoy, wrk")
	set.StringVar(&o.json, "json", "bin/bench.json", "`file` for all samples and the summary")
	set.StringVar(&o.docs, "docs", "docs/benchmarks.md", "`document` whose table is renewed between its markers; empty for none")
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
	case o.duration < time.Second, o.warmUp < 0:
		return errors.New("-duration must be at least 1s and -warm-up not negative")
	case o.proxyCore == o.loadCore:
		return errors.New("-proxy-core and -load-core must differ")
	}
	_, err := choose(suites(), o.only)
	return err
}

// run measures and writes the results. It has ended every process when it returns.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	chosen, err := choose(suites(), o.only)
	if err != nil {
		return err
	}
	tools, err := findTools(o)
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
	if o.docs == "" || o.only != "" {
		return nil
	}
	text, err := configurations(chosen)
	if err != nil {
		return err
	}
	return updateDocument(o.docs, table+"\n"+text)
}
