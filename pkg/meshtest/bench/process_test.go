package main

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// needsTaskset skips where processes cannot be pinned as the run pins them.
func needsTaskset(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset is not installed")
	}
}

func startScript(t *testing.T, script string) *process {
	t.Helper()
	needsTaskset(t)
	p, err := start(t.TempDir(), "script", "0", []string{"GREETING=hello"}, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// written waits for a line of the script, so that its children are there.
func written(t *testing.T, p *process, want string) {
	t.Helper()
	err := p.await(t.Context(), func(context.Context) error {
		if !strings.Contains(p.tail(), want) {
			return errors.New("not written")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStopEndsAProcessWithItsChildren(t *testing.T) {
	p := startScript(t, "sleep 60 & echo $GREETING; wait")
	written(t, p, "hello")
	if u, err := measure.GroupUsage(p.pid()); err != nil || u.Processes != 2 {
		t.Errorf("before: %+v, %v", u, err)
	}
	p.stop()
	eventuallyGone(t, p.pid())
}

func TestStopEndsChildrenThatIgnoreSIGTERM(t *testing.T) {
	p := startScript(t, `(trap "" TERM; echo deaf; while :; do sleep 0.05; done) & wait`)
	written(t, p, "deaf")
	p.stop()
	eventuallyGone(t, p.pid())
}

// eventuallyGone waits until the children that lost their parent are waited for by
// whoever took them.
func eventuallyGone(t *testing.T, group int) {
	t.Helper()
	for range 200 {
		if u, err := measure.GroupUsage(group); err != nil || u.RSS == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("processes of group %d are left", group)
}

func TestAProcessThatEndsEarlyIsReportedWithWhatItWrote(t *testing.T) {
	p := startScript(t, "echo no such option >&2; exit 3")
	defer p.stop()
	err := p.await(t.Context(), func(context.Context) error { return errors.New("refused") })
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such option") {
		t.Error(err)
	}
}

func TestOutputEndsWithTheRun(t *testing.T) {
	needsTaskset(t)
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted)
	if _, err := output(ctx, "0", "sleep", "60"); !errors.Is(err, interrupted) {
		t.Error(err)
	}
}

func TestAProgramIsLookedForInTheFolderFirst(t *testing.T) {
	folder := t.TempDir()
	if err := exec.Command("cp", "/bin/sh", filepath.Join(folder, "sh")).Run(); err != nil {
		t.Fatal(err)
	}
	if got, ok := lookFor("sh", folder); !ok || got != filepath.Join(folder, "sh") {
		t.Errorf("%q, %v", got, ok)
	}
	if got, ok := lookFor("no-such-program", folder); ok {
		t.Errorf("found %q", got)
	}
}
