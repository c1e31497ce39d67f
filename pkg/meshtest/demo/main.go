// Command demo plays a mesh on this machine: on a terminal as a live view, else as
// plain lines. With -smoke it asserts what the play says, and reports.
//
// DEMO_SECONDS ends it after about so many seconds; without, it goes on until
// Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

const (
	// playSeconds is how long the play takes at pace 1.
	playSeconds = 34
	// slowest and fastest pace of the play.
	slowest, fastest = 4, 0.4
	// rate of the load, in requests per second.
	rate = 200
	// traceRatio is the share of requests that are traced.
	traceRatio = 0.05
)

func main() {
	smoke := flag.Bool("smoke", false, "assert what the play says; exit code 1 if something is not so")
	bin := flag.String("bin", "bin", "folder of the programs")
	flag.Parse()
	if err := run(*bin, *smoke); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(bin string, smoke bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pace, endless, err := paceOf(os.Getenv("DEMO_SECONDS"), smoke)
	if err != nil {
		return err
	}
	dir, err := play.NewDir()
	if err != nil {
		return err
	}
	began := time.Now()
	err = perform(ctx, bin, dir, pace, endless && !smoke, smoke)
	if err != nil {
		return fmt.Errorf("%w\nthe logs are in %s", err, dir)
	}
	if smoke {
		fmt.Printf("passed in %v\n", time.Since(began).Round(100*time.Millisecond))
	}
	return os.RemoveAll(dir)
}

// paceOf reads DEMO_SECONDS.
func paceOf(seconds string, smoke bool) (pace float64, endless bool, err error) {
	switch {
	case smoke:
		return 0.8, false, nil
	case seconds == "":
		return 2, true, nil
	}
	n, err := strconv.ParseFloat(seconds, 64)
	if err != nil || n <= 0 {
		return 0, false, fmt.Errorf("DEMO_SECONDS is %q, not a number of seconds", seconds)
	}
	return min(max(n/playSeconds, fastest), slowest), false, nil
}

// perform starts everything, plays, and ends everything.
func perform(ctx context.Context, bin, dir string, pace float64, endless, smoke bool) (err error) {
	fmt.Println("starting a control plane, three instances of orders and a client, each beside a sidecar")
	mesh, err := play.NewMesh(ctx, bin, dir)
	if err != nil {
		return err
	}
	var load *play.Load
	stopped := false
	end := func() error {
		if stopped {
			return nil
		}
		stopped = true
		if load != nil {
			load.Stop()
		}
		return mesh.Stop()
	}
	defer func() { err = errors.Join(err, end()) }()
	for _, id := range []string{"o1", "o2", "o3"} {
		if err := mesh.StartInstance(ctx, id); err != nil {
			return err
		}
	}
	if err := mesh.StartClient(ctx, traceRatio); err != nil {
		return err
	}
	load = play.StartLoad(mesh.Outbound(), "orders", rate)
	stage := &play.Stage{Mesh: mesh, Load: load, Pace: pace}
	view := newView(stage, smoke)
	stage.Announce, stage.State = view.announce, view.state
	view.start(ctx)
	err = stage.Play(ctx)
	if err == nil && endless && ctx.Err() == nil {
		view.announce("The play is over; the mesh goes on.", "Ctrl-C ends it")
		<-ctx.Done()
	}
	view.stop()
	interrupted := ctx.Err() != nil
	endErr := end()
	summary(stage, endErr)
	switch {
	case interrupted && endErr == nil:
		return nil // the play was cut short on purpose
	case err != nil || endErr != nil:
		return errors.Join(err, endErr)
	}
	return verdict(stage, smoke)
}
