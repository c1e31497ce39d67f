package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// havoc breaks one thing after the other, and makes each good before the next: so there is always
// an instance that is well, and the one safe retry suffices.
type havoc struct {
	world  *world
	ledger *ledger
	random *rand.Rand
	log    func(format string, args ...any)
}

const (
	// freezeTime is how long a process is stopped (SIGSTOP) at most. Timeouts are longer.
	freezeTime = 6 * time.Second
	// planeFreeze is how long the control plane is, at most.
	planeFreeze = 6 * time.Second
	// rest is how long everything is left alone between two things, at least: as long as instances
	// take to be in use again, their breakers included.
	rest = 2 * time.Second
)

// wreak breaks things until ctx ends, and leaves everything well. An error says that something
// that was broken on purpose did not start again. The control plane ends at first, and once more in the middle.
func (h *havoc) wreak(ctx context.Context, middle time.Time) error {
	for _, killed := range []bool{false, true} {
		h.wait(ctx, rest, 2*rest)
		if err := h.planeEnds(killed); err != nil {
			return err
		}
	}
	h.wait(ctx, rest, 2*rest)
	for again := false; ctx.Err() == nil; h.wait(ctx, rest, 2*rest) {
		if !again && time.Now().After(middle) {
			again = true
			if err := h.planeEnds(true); err != nil {
				return err
			}
			continue
		}
		victims := h.world.of(web, rpc, cache)
		i := victims[h.random.IntN(len(victims))]
		var err error
		switch h.random.IntN(8) {
		case 0:
			err = h.appDies(i)
		case 1:
			err = h.appLeaves(i)
		case 2:
			err = h.sidecarDies(i)
		case 3:
			err = h.bothDie(i)
		case 4:
			err = h.leaves(i)
		case 5:
			h.freezes("application", i, i.app)
		case 6:
			h.freezes("sidecar", i, i.sidecar)
		default:
			h.planeFreezes()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wait lets time pass between the two.
func (h *havoc) wait(ctx context.Context, least, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(least + time.Duration(h.random.Int64N(int64(most-least)))):
	}
}

func (h *havoc) begin(i *instance, e event) (lost, over func()) {
	if i != nil {
		e.service, e.instance = i.service, i.id
	}
	h.log("%s %s", e.what, orNone(e.instance))
	return h.ledger.began(e)
}

// What is broken is made good whether ctx has ended or not.

func (h *havoc) appDies(i *instance) error {
	lost, over := h.begin(i, event{what: "SIGKILL of the application", kills: true, app: true})
	defer over()
	i.app.Kill()
	lost()
	h.wait(context.Background(), 100*time.Millisecond, 3*time.Second)
	return h.again(h.world.startAppOf, i)
}

// appLeaves is an application that ends by itself: it takes no more, and goes on with what it has
// for a moment. Its sidecar finds out.
func (h *havoc) appLeaves(i *instance) error {
	lost, over := h.begin(i, event{what: "SIGTERM of the application", stops: true, app: true})
	defer over()
	if err := i.app.Stop(); err != nil {
		return fmt.Errorf("an application that was told to stop: %w", err)
	}
	lost()
	h.wait(context.Background(), 100*time.Millisecond, 3*time.Second)
	return h.again(h.world.startAppOf, i)
}

func (h *havoc) sidecarDies(i *instance) error {
	lost, over := h.begin(i, event{what: "SIGKILL of the sidecar", kills: true})
	defer over()
	i.sidecar.Kill()
	lost()
	h.wait(context.Background(), 100*time.Millisecond, 3*time.Second)
	return h.again(h.world.startSidecarOf, i)
}

func (h *havoc) bothDie(i *instance) error {
	lost, over := h.begin(i, event{what: "SIGKILL of both", kills: true, app: true})
	defer over()
	i.sidecar.Kill()
	i.app.Kill()
	lost()
	h.wait(context.Background(), 100*time.Millisecond, 3*time.Second)
	if err := h.again(h.world.startAppOf, i); err != nil {
		return err
	}
	return h.again(h.world.startSidecarOf, i)
}

// leaves is a deployment: the sidecar drains, then the application ends, then both come back.
func (h *havoc) leaves(i *instance) error {
	lost, over := h.begin(i, event{what: "SIGTERM of the sidecar", stops: true})
	defer over()
	if err := i.sidecar.Stop(); err != nil {
		return fmt.Errorf("a sidecar that was told to stop: %w", err)
	}
	lost()
	return h.again(h.world.startSidecarOf, i)
}

func (h *havoc) freezes(which string, i *instance, p *play.Process) {
	_, over := h.begin(i, event{what: "SIGSTOP of the " + which})
	defer over()
	p.Signal(syscall.SIGSTOP)
	h.wait(context.Background(), 100*time.Millisecond, freezeTime)
	p.Signal(syscall.SIGCONT)
}

func (h *havoc) planeFreezes() {
	_, over := h.begin(nil, event{what: "SIGSTOP of the control plane"})
	defer over()
	h.world.controlPlane().Signal(syscall.SIGSTOP)
	h.wait(context.Background(), 500*time.Millisecond, planeFreeze)
	h.world.controlPlane().Signal(syscall.SIGCONT)
}

// planeEnds lets the control plane end, by SIGKILL or not, and starts it again.
func (h *havoc) planeEnds(killed bool) error {
	e := event{what: "SIGTERM of the control plane", newLife: true}
	if killed {
		e.what = "SIGKILL of the control plane"
	}
	_, over := h.begin(nil, e)
	defer over()
	if killed {
		h.world.controlPlane().Kill()
	} else if err := h.world.controlPlane().Stop(); err != nil {
		return err
	}
	h.wait(context.Background(), 500*time.Millisecond, 2*time.Second)
	return h.world.startPlane(context.Background())
}

func (h *havoc) again(start func(context.Context, *instance) error, i *instance) error {
	if err := start(context.Background(), i); err != nil {
		return fmt.Errorf("%s does not come back: %w", i.id, err)
	}
	return nil
}
