package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

const usageText = `Measure what Fairlead's sagas cost beside dtm's, and how they come through a SIGKILL and a flood.

Usage: sagabench [flags]        (from the top of the repository; make bench-sagas builds what it needs first)

It needs Linux, and, to compare, PostgreSQL and dtm: make bench-sagas installs both.

Flags:
`

// The parts of a run.
const (
	partThroughput = "throughput"
	partRecovery   = "recovery"
	partFlood      = "flood"
)

// options are the flags.
type options struct {
	rounds    int           // at least 1
	duration  time.Duration // of one sample
	warmUp    time.Duration // load before each sample that is not counted
	clients   []int         // how many are at it at once, one sample each
	work      time.Duration // how long a participant takes for a step
	open      int           // sagas that are open at the SIGKILL
	submitted int           // sagas of the flood
	parts     []string
	systems   []string // names
	bin       string   // folder of the control plane, and of what makes up the peer
	json      string
	docs      string // "" is none
}

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute returns the exit code: 0, 1 for a run that failed or was interrupted, 2 for
// flags that cannot be meant.
func execute(args []string, out, progress io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) == 2 && args[0] == participantRole {
		if err := participate(ctx, args[1], progress); err != nil {
			_, _ = fmt.Fprintln(progress, "sagabench:", err)
			return 1
		}
		return 0
	}
	o, err := parseFlags(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // and it is written why
	}
	switch err := run(ctx, o, out, progress); {
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(progress, "sagabench: interrupted; all processes have ended, nothing was written")
		return 1
	case err != nil:
		_, _ = fmt.Fprintln(progress, "sagabench:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	set := flag.NewFlagSet("sagabench", flag.ContinueOnError)
	set.SetOutput(out)
	set.Usage = func() {
		_, _ = io.WriteString(out, usageText)
		set.PrintDefaults()
		_, _ = fmt.Fprintf(out, "\nParts: %s.\nSystems: %s.\n", strings.Join(allParts(), ", "), strings.Join(systemNames(), ", "))
	}
	set.IntVar(&o.rounds, "rounds", 3, "how often throughput is measured")
	set.DurationVar(&o.duration, "duration", 4*time.Second, "load per sample")
	set.DurationVar(&o.warmUp, "warm-up", time.Second, "load before each sample that is not counted")
	clients := set.String("clients", "1,32,256", "how many clients are at it at once: a `list`, with commas between")
	set.DurationVar(&o.work, "work", 0, "how long a participant takes for each step")
	set.IntVar(&o.open, "open", 10_000, "sagas that are open when the coordinator is killed")
	set.IntVar(&o.submitted, "flood", 100_000, "sagas of the flood")
	parts := set.String("parts", strings.Join(allParts(), ","), "what to measure: a `list`. The document is left alone if it is not all")
	systems := set.String("systems", strings.Join(systemNames(), ","), "whose throughput to measure: a `list`. The document is left alone if it is not all")
	set.StringVar(&o.bin, "bin", "bin", "`folder` of the control plane; below it, in peers, dtm and dtm.sql")
	set.StringVar(&o.json, "json", "bin/sagabench.json", "`file` for all samples and figures")
	set.StringVar(&o.docs, "docs", "docs/benchmarks.md", "`document` whose tables are renewed between their marks; empty for none")
	if err := set.Parse(args); err != nil {
		return options{}, err
	}
	o.parts, o.systems = strings.Split(*parts, ","), strings.Split(*systems, ",")
	if err := o.check(*clients, set.Args()); err != nil {
		_, _ = fmt.Fprintf(out, "sagabench: %v; --help lists the flags\n", err)
		return options{}, err
	}
	return o, nil
}

func (o *options) check(clients string, rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case o.rounds < 1:
		return errors.New("-rounds must be at least 1")
	case o.duration < time.Second:
		return errors.New("-duration must be at least 1s")
	case o.warmUp < 0, o.work < 0:
		return errors.New("-warm-up and -work must not be negative")
	case o.open < 1, o.submitted < 1:
		return errors.New("-open and -flood must be at least 1")
	}
	for text := range strings.SplitSeq(clients, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is no number of clients", text)
		}
		o.clients = append(o.clients, n)
	}
	if err := known("-parts", o.parts, allParts()); err != nil {
		return err
	}
	return known("-systems", o.systems, systemNames())
}

func known(flag string, chosen, all []string) error {
	for _, name := range chosen {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s: there is no %q; there are %s", flag, name, strings.Join(all, ", "))
		}
	}
	return nil
}

func allParts() []string { return []string{partThroughput, partRecovery, partFlood} }

// isWhole is false for a run that leaves something out, and is no news for the document.
func (o *options) isWhole() bool {
	return len(o.parts) == len(allParts()) && len(o.systems) == len(systems())
}

// run measures and writes the results. It has ended every process when it returns.
func run(ctx context.Context, o options, out, progress io.Writer) error {
	dir, err := os.MkdirTemp("", "sagabench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{options: o, dir: dir, self: self, progress: progress}
	r := result{When: time.Now().UTC().Truncate(time.Second), Machine: measure.DescribeMachine(), Rounds: o.rounds, Seconds: o.duration.Seconds(), WarmUpSeconds: o.warmUp.Seconds(),
		WorkMilliseconds: o.work.Seconds() * 1e3}
	for _, part := range []struct {
		name string
		run  func(context.Context, *result) error
	}{{partThroughput, b.throughput}, {partRecovery, b.recovery}, {partFlood, b.flood}} {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		if err := part.run(ctx, &r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if err := writeJSON(o.json, &r); err != nil {
		return err
	}
	text := markdown(&r)
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if o.docs == "" || !o.isWhole() {
		return nil
	}
	return measure.UpdateDocument(o.docs, "make bench-sagas", text)
}

// bench is a run.
type bench struct {
	options
	dir      string // for what the processes keep, removed at the end
	self     string // this program, which is the participants, too
	progress io.Writer
	started  int // processes, to name their folders
}

func (b *bench) say(format string, args ...any) { _, _ = fmt.Fprintf(b.progress, format+"\n", args...) }

// folder makes a new one.
func (b *bench) folder(name string) (string, error) {
	b.started++
	path := filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, b.started))
	return path, os.Mkdir(path, 0o700)
}
