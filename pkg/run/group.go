package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// DefaultStopTimeout bounds the stopping of a group. It is what Kubernetes
// grants a pod by default (terminationGracePeriodSeconds 30) less the time
// that the last members need to flush.
const DefaultStopTimeout = 25 * time.Second

// lastCall is how long the members that are left may take once the stop
// timeout has passed and all of them have been cancelled at once.
const lastCall = time.Second

// signalBuffer holds the signal that begins the stop and the one that aborts it.
const signalBuffer = 2

// echo is how long the signal that began the stop may come again and count as the same:
// timeout(1) and supervisors send it to the process and to its group.
const echo = time.Second

// ErrAborted is returned by [Group.Run], wrapped with the names of the members
// that were still running, when a second signal arrived.
var ErrAborted = errors.New("stop aborted by a second signal")

// ErrStopTimeout is returned by [Group.Run], wrapped with the names of the
// members that did not return, when the stop timeout has passed.
var ErrStopTimeout = errors.New("stop timeout passed")

// Config configures a [Group]. The zero value stops within
// [DefaultStopTimeout], handles no signal and logs nothing.
type Config struct {
	// StopTimeout bounds the stopping of all members together.
	// Default [DefaultStopTimeout]; negative means no bound.
	StopTimeout time.Duration
	// HandleSignals makes SIGTERM and SIGINT begin the stop, and the second
	// one of either abort it, unless it is the same within a second. SIGPIPE is
	// ignored from then on: a log that nobody reads any more ends nothing. Leave it
	// false where a process runs several groups and cancels their contexts
	// itself.
	HandleSignals bool
	// Logger gets a line per member that stops and per reason to stop.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.StopTimeout == 0 {
		c.StopTimeout = DefaultStopTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Group runs named members until the first of them returns. Fill it with
// [Group.Add], then call [Group.Run] once. It is not for use by several
// goroutines.
type Group struct {
	config  Config
	members []*member
}

type member struct {
	name   string
	run    func(context.Context) error
	cancel context.CancelFunc
	done   chan struct{}
	err    error // written before done is closed, read after
}

// New returns an empty group.
func New(config Config) *Group { return &Group{config: config.withDefaults()} }

// Add appends a member. What it needs of earlier members must be true once they
// were constructed: open listeners and stores before adding, serve in run.
//
// run must return soon after its context ends, which happens when the members
// added after it have returned. Returning earlier, with or without an error,
// ends the whole group.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.members = append(g.members, &member{name: name, run: run, done: make(chan struct{})})
}

// Run starts the members in the order of Add and blocks until all of them have
// returned. The stop begins when a member returns, when ctx ends, or with a
// signal; it cancels the members from last to first, each only after its
// successor has returned.
//
// The error joins those of the members in the order of Add, each with its
// member's name; a member that ends with [context.Canceled] because it was
// stopped has none. See also [ErrStopTimeout] and [ErrAborted].
func (g *Group) Run(ctx context.Context) error {
	// A buffer of two, so that the second signal is not lost while the first
	// is being looked at.
	signals := make(chan os.Signal, signalBuffer)
	if g.config.HandleSignals {
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		defer signal.Stop(signals)
		// Else a log whose reader has gone would end the process at its next line.
		signal.Ignore(syscall.SIGPIPE)
	}
	returned := make(chan *member, len(g.members))
	g.start(ctx, returned)
	first := g.awaitReason(ctx, signals, returned)
	if err := g.stop(signals, first); err != nil {
		return errors.Join(append(g.errors(), err)...)
	}
	return errors.Join(g.errors()...)
}

// start gives each member a context that the end of ctx does not reach: an
// ended ctx begins the ordered stop instead of stopping all at once.
func (g *Group) start(ctx context.Context, returned chan<- *member) {
	for _, m := range g.members {
		var memberCtx context.Context
		memberCtx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
		go func() {
			m.err = m.run(memberCtx)
			close(m.done)
			returned <- m
		}()
	}
}

// awaitReason returns the signal that begins the stop, nil if something else does.
func (g *Group) awaitReason(ctx context.Context, signals <-chan os.Signal, returned <-chan *member) os.Signal {
	if len(g.members) == 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		g.config.Logger.Info("stopping", "reason", context.Cause(ctx))
	case s := <-signals:
		g.config.Logger.Info("stopping", "reason", "signal "+s.String())
		return s
	case m := <-returned:
		g.config.Logger.Info("stopping", "reason", "member returned", "member", m.name, "error", m.err)
	}
	return nil
}

// stop cancels the members from last to first and waits for each. It blocks
// for at most the stop timeout and lastCall. first is the signal that began it.
func (g *Group) stop(signals <-chan os.Signal, first os.Signal) error {
	began := time.Now()
	var timeout <-chan time.Time
	if g.config.StopTimeout > 0 {
		timer := time.NewTimer(g.config.StopTimeout)
		defer timer.Stop()
		timeout = timer.C
	}
	for i := len(g.members) - 1; i >= 0; i-- {
		m := g.members[i]
		m.cancel()
		for !m.returned() {
			select {
			case <-m.done:
			case s := <-signals:
				if s != first || time.Since(began) >= echo {
					return g.abort(s)
				}
			case <-timeout:
				return g.giveUp(m, signals)
			}
		}
		g.config.Logger.Debug("stopped", "member", m.name)
	}
	return nil
}

func (g *Group) abort(s os.Signal) error {
	g.cancelAll()
	running := g.running()
	g.config.Logger.Error("stop aborted", "signal", s.String(), "running", running)
	return fmt.Errorf("%w: still running: %s", ErrAborted, strings.Join(running, ", "))
}

// giveUp lets the members before the one that hangs, which have not been asked
// to stop yet, flush what they hold.
func (g *Group) giveUp(hanging *member, signals <-chan os.Signal) error {
	g.config.Logger.Error("stop timeout passed", "hanging", hanging.name, "timeout", g.config.StopTimeout)
	g.cancelAll()
	timer := time.NewTimer(lastCall)
	defer timer.Stop()
	for _, m := range g.members {
		select {
		case <-m.done:
		case s := <-signals:
			return g.abort(s)
		case <-timer.C:
			running := g.running()
			g.config.Logger.Error("members did not stop", "running", running)
			return fmt.Errorf("%w: still running: %s", ErrStopTimeout, strings.Join(running, ", "))
		}
	}
	return fmt.Errorf("%w: waited for %s", ErrStopTimeout, hanging.name)
}

func (g *Group) cancelAll() {
	for _, m := range g.members {
		m.cancel()
	}
}

func (g *Group) running() []string {
	var names []string
	for _, m := range g.members {
		if !m.returned() {
			names = append(names, m.name)
		}
	}
	return names
}

func (g *Group) errors() []error {
	var errs []error
	for _, m := range g.members {
		if m.returned() && m.err != nil && !errors.Is(m.err, context.Canceled) {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, m.err))
		}
	}
	return errs
}

func (m *member) returned() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}
