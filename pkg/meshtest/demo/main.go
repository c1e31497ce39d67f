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
	"math"
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
	// Whoever reads the output may go away, as tee does upon the Ctrl-C: what was
	// started is to be ended all the same.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	err := run(ctx, *bin, *smoke)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// endings returns the signals that end the demo. A closed terminal does, too, unless
// nohup or its like says that it is to go on.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// run plays until the play or ctx is over. The latter is no error of the demo, but one
// of the smoke test, which has not asserted everything.
func run(ctx context.Context, bin string, smoke bool) error {
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
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil && smoke:
		return errors.New("interrupted before everything was asserted")
	case ctx.Err() != nil:
		fmt.Println("ended")
	case smoke:
		fmt.Printf("passed in %v\n", time.Since(began).Round(100*time.Millisecond))
	}
	return nil
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
	if err != nil || math.IsNaN(n) || n <= 0 {
		return 0, false, fmt.Errorf("DEMO_SECONDS is %q, not a number of seconds", seconds)
	}
	return min(max(n/playSeconds, fastest), slowest), false, nil
}

// perform starts everything, plays, and ends everything. Once ctx is done, what did
// not start or go on is no fault; what does not end well is.
func perform(ctx context.Context, bin, dir string, pace float64, endless, smoke bool) error {
	fmt.Println("starting a control plane; three instances of orders, inventory, payments, shipping and a client, each beside a sidecar")
	mesh, err := play.NewMesh(bin, dir)
	if err != nil {
		return err
	}
	if err := start(ctx, mesh); err != nil {
		if ctx.Err() != nil {
			err = nil
		}
		return errors.Join(err, mesh.Stop())
	}
	load := play.StartLoad(mesh.Outbound(), "orders", rate)
	stage := &play.Stage{Mesh: mesh, Load: load, Pace: pace}
	ctx, unseen := context.WithCancel(ctx)
	defer unseen()
	view := newView(stage, smoke, unseen)
	stage.Announce, stage.State = view.announce, view.state
	view.start(ctx)
	err = stage.Play(ctx)
	if err == nil && endless && ctx.Err() == nil {
		view.announce("The play is over; the mesh goes on.", "Ctrl-C ends it")
		<-ctx.Done()
	}
	view.stop()
	interrupted := ctx.Err() != nil
	load.Stop()
	endErr := mesh.Stop()
	summary(stage, endErr)
	switch {
	case interrupted:
		return endErr // the play was cut short on purpose
	case err != nil || endErr != nil:
		return errors.Join(err, endErr)
	}
	return verdict(stage, smoke)
}

// start starts what the play begins with.
func start(ctx context.Context, mesh *play.Mesh) error {
	if err := mesh.StartControlPlane(ctx); err != nil {
		return err
	}
	for _, id := range []string{"o1", "o2", "o3"} {
		if err := mesh.StartInstance(ctx, id); err != nil {
			return err
		}
	}
	if err := mesh.StartClient(ctx, traceRatio); err != nil {
		return err
	}
	for _, party := range []struct{ service, step string }{{"inventory", "reserve"}, {"payments", "charge"}, {"shipping", "ship"}} {
		if err := mesh.StartParty(ctx, party.service, party.step); err != nil {
			return err
		}
	}
	return nil
}
