package run

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary run a group instead of tests, since signals
// are sent to whole processes. Its value is the child's behaviour.
const childEnv = "FAIRLEAD_RUN_TEST_CHILD"

// Exit codes of the child, by the outcome of Run.
const (
	exitClean   = 0
	exitAborted = 3
	exitOther   = 4
)

func maybeChild() bool {
	mode := os.Getenv(childEnv)
	if mode == "" {
		return false
	}
	g := New(Config{HandleSignals: true, StopTimeout: time.Minute})
	for _, name := range []string{"one", "two"} {
		g.Add(name, func(ctx context.Context) error {
			fmt.Println("started")
			<-ctx.Done()
			fmt.Println("stopping", name)
			switch mode {
			case "hang":
				select {}
			case "slow":
				time.Sleep(200 * time.Millisecond)
			}
			return nil
		})
	}
	switch err := g.Run(context.Background()); {
	case err == nil:
		os.Exit(exitClean)
	case errors.Is(err, ErrAborted):
		fmt.Println(err)
		os.Exit(exitAborted)
	default:
		fmt.Println(err)
		os.Exit(exitOther)
	}
	return true
}

type child struct {
	*exec.Cmd
	out   io.Closer
	lines *bufio.Scanner
}

func startChild(t *testing.T, mode string) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	c := &child{cmd, out, bufio.NewScanner(out)}
	c.expect(t, "started")
	c.expect(t, "started")
	return c
}

func (c *child) expect(t *testing.T, want string) {
	t.Helper()
	if !c.lines.Scan() {
		t.Fatalf("child's output ended, want %q", want)
	}
	if got := c.lines.Text(); !strings.HasPrefix(got, want) {
		t.Fatalf("child printed %q, want %q", got, want)
	}
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (c *child) expectExit(t *testing.T, code int) {
	t.Helper()
	_ = c.Wait() // the exit code says it
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("child exited with %d, want %d", got, code)
	}
}

func TestSignalBeginsTheOrderedStop(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			c := startChild(t, "stop")
			c.signal(t, s)
			c.expect(t, "stopping two")
			c.expect(t, "stopping one")
			c.expectExit(t, exitClean)
		})
	}
}

func TestSecondSignalAbortsAndNamesWhoIsRunning(t *testing.T) {
	c := startChild(t, "hang")
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping two")
	c.signal(t, syscall.SIGINT)
	for c.lines.Scan() {
		if line := c.lines.Text(); strings.Contains(line, "second signal") {
			if !strings.Contains(line, "one, two") {
				t.Errorf("%q does not name both members", line)
			}
			break
		}
	}
	c.expectExit(t, exitAborted)
}

func TestTheSameSignalAgainAtOnceIsNoSecondOne(t *testing.T) {
	c := startChild(t, "slow")
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping two")
	c.signal(t, syscall.SIGTERM)
	c.expect(t, "stopping one")
	c.expectExit(t, exitClean)
}

func TestALogWhoseReaderHasGoneEndsNothing(t *testing.T) {
	c := startChild(t, "stop")
	_ = c.out.Close()
	c.signal(t, syscall.SIGTERM) // it says that it stops, to nobody
	c.expectExit(t, exitClean)
}
