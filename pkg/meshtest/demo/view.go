package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// refresh is how often the screen is drawn anew.
const refresh = 250 * time.Millisecond

// perLine is how many times that is between two lines about the requests, where there is no screen.
const perLine = 4

// view shows the play: drawn anew on a terminal, else line by line.
type view struct {
	stage  *play.Stage
	screen bool
	quiet  bool   // no line per second
	plain  bool   // without colours
	unseen func() // called when nobody reads the output any more

	ending  context.CancelFunc
	drawing sync.WaitGroup

	mu            sync.Mutex
	title, lookAt string // guarded by mu
}

func newView(s *play.Stage, smoke bool, unseen func()) *view {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return &view{
		stage:  s,
		screen: err == nil && !smoke && os.Getenv("TERM") != "dumb",
		quiet:  smoke,
		plain:  os.Getenv("NO_COLOR") != "", // https://no-color.org
		unseen: unseen,
	}
}

func (v *view) announce(title, lookAt string) {
	v.mu.Lock()
	v.title, v.lookAt = title, lookAt
	v.mu.Unlock()
	if !v.screen {
		fmt.Printf("\n%s\n  look at: %s\n", title, lookAt)
	}
}

func (v *view) state(s play.Statement) {
	if !v.screen {
		fmt.Println("  " + line(s))
	}
}

func line(s play.Statement) string {
	mark := "ok    "
	if !s.OK {
		mark = "NOT SO"
	}
	return fmt.Sprintf("%s %s: %s", mark, s.What, s.Detail)
}

// start shows how things are until stop.
func (v *view) start(ctx context.Context) {
	ctx, v.ending = context.WithCancel(ctx)
	if v.quiet {
		return
	}
	if v.screen {
		fmt.Print("\x1b[?25l\x1b[2J") // no cursor, an empty screen
	}
	v.drawing.Go(func() {
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		said := map[string]string{} // of each saga
		for n := 1; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			switch {
			case v.screen:
				v.show(ctx)
			case n%perLine == 0:
				v.print("    " + v.now(ctx) + "\n")
				fallthrough
			default:
				v.news(ctx, said)
			}
		}
	})
}

func (v *view) stop() {
	v.ending()
	v.drawing.Wait()
	if v.screen {
		fmt.Print("\x1b[?25h\n")
	}
}

// news says in a line of each saga where it stands, if that is not what was said of it.
func (v *view) news(ctx context.Context, said map[string]string) {
	for _, saga := range v.stage.Sagas(ctx) {
		if now := saga.String(); now != said[saga.ID] {
			said[saga.ID] = now
			v.print(fmt.Sprintf("    %s %s: %s\n", saga.ID, saga.State, now))
		}
	}
}

// now says in a line how things are.
func (v *view) now(ctx context.Context) string {
	n := v.stage.Load.Recent()
	var b strings.Builder
	fmt.Fprintf(&b, "%4.0f/s  ok %5.1f %%  p50 %6s  p99 %6s ", n.PerSecond, success(n.Tally), short(n.P50), short(n.P99))
	for _, h := range v.hosts(ctx) {
		fmt.Fprintf(&b, "  %s %2.0f %%", h.Instance, 100*n.Share(h.Instance))
		if h.Breaker != "closed" {
			fmt.Fprintf(&b, " (%s)", h.Breaker)
		}
	}
	return b.String()
}

func success(t play.Tally) float64 {
	if t.Requests == 0 {
		return 100
	}
	return 100 * float64(t.Requests-t.Failed()) / float64(t.Requests)
}

func short(d time.Duration) string {
	return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
}

func (v *view) hosts(ctx context.Context) []play.Host {
	hosts, err := v.stage.Mesh.Hosts(ctx)
	if err != nil {
		return nil
	}
	slices.SortFunc(hosts, func(a, b play.Host) int { return strings.Compare(a.Instance, b.Instance) })
	return hosts
}

// show draws the screen anew, as large as it is now. Each line is emptied before it is
// written: afterwards, that would take away the last column of a full one.
func (v *view) show(ctx context.Context) {
	width, height := size()
	v.mu.Lock()
	s := scene{title: v.title, lookAt: v.lookAt}
	v.mu.Unlock()
	s.now, s.failed = v.stage.Load.Recent(), v.stage.Load.Total().Failed()
	s.hosts, s.sagas = v.hosts(ctx), v.stage.Sagas(ctx)
	s.trace = play.TraceLines(v.stage.Mesh.LastTrace(), width-2)
	s.statements = v.stage.Statements()
	lines := draw(s, width, height)
	if v.plain {
		for n := range lines {
			lines[n] = withoutColours(lines[n])
		}
	}
	out := "\x1b[H\x1b[K" + strings.Join(lines, "\r\n\x1b[K")
	if len(lines) < height {
		out += "\r\n\x1b[J"
	}
	v.print(out)
}

// print prints what is printed again and again.
func (v *view) print(s string) {
	if _, err := fmt.Print(s); err != nil {
		v.unseen()
	}
}

// size asks for the size of the terminal in columns and rows. One that does not know
// is taken for the usual one.
func size() (width, height int) {
	w, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil || w.Col == 0 || w.Row == 0 {
		return 80, 24
	}
	return int(w.Col), int(w.Row)
}

func bar(share float64, width int) string {
	return strings.Repeat("█", min(int(share*float64(width)+0.5), width))
}

// withoutColours takes out the escape sequences that end with m, of which a line has no others.
func withoutColours(line string) string {
	var b strings.Builder
	escape := false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func sagaColour(state string) string {
	switch state {
	case "completed", "compensated":
		return "\x1b[32m"
	case "parked":
		return "\x1b[31m"
	default:
		return "\x1b[33m"
	}
}

func colour(breaker string) string {
	switch breaker {
	case "open":
		return "\x1b[31m"
	case "half-open":
		return "\x1b[33m"
	default:
		return "\x1b[32m"
	}
}

// summary prints what was said, act by act, and what the client saw.
func summary(s *play.Stage, endErr error) {
	fmt.Print("\nSummary\n")
	act := ""
	for _, st := range s.Statements() {
		if st.Act != act {
			act = st.Act
			fmt.Println("  " + act)
		}
		fmt.Println("    " + line(st))
	}
	t := s.Load.Total()
	fmt.Printf("  the client sent %d requests; %d failed\n", t.Requests, t.Failed())
	for why, n := range t.Failures {
		fmt.Printf("    %d × %s\n", n, why)
	}
	if endErr == nil {
		fmt.Println("  every process ended with exit code 0 when asked to")
	}
}

// verdict is an error if something was not so: of the smoke test anything, of the
// demo, whose machine may be busy, what must hold at any speed.
func verdict(s *play.Stage, smoke bool) error {
	var faults []error
	for _, st := range s.Statements() {
		if !st.OK && (smoke || st.What == play.NoneFails || st.What == play.OnceOnly) {
			faults = append(faults, fmt.Errorf("%s: not so: %s: %s", st.Act, st.What, st.Detail))
		}
	}
	return errors.Join(faults...)
}
