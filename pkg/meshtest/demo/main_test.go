package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hanging makes a folder with a control plane that starts, and never listens. The
// file begun shows that it runs.
func hanging(t *testing.T) (bin, begun string) {
	t.Helper()
	bin = t.TempDir()
	begun = filepath.Join(bin, "begun")
	script := "#!/bin/sh\ntouch " + begun + "\nexec sleep 600\n"
	if err := os.WriteFile(filepath.Join(bin, "controlplane"), []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	return bin, begun
}

func TestInterruptionOfTheStartEndsItAndLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name     string
		at       func(begun string) // when it comes
		smoke    bool
		succeeds bool
	}{
		{name: "before anything", at: func(string) {}, succeeds: true},
		{name: "while a process starts", at: await, succeeds: true},
		{name: "in the smoke test", at: await, smoke: true, succeeds: false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bin, begun := hanging(t)
			tmp := t.TempDir()
			t.Setenv("TMPDIR", tmp)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.at(begun)
				cancel()
			}()
			err := run(ctx, bin, c.smoke)
			<-done
			if (err == nil) != c.succeeds {
				t.Errorf("it ended with %v", err)
			}
			left, err := os.ReadDir(tmp)
			if err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// await waits until a file is there.
func await(file string) {
	for {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestClosedTerminalEndsItUnlessToldToGoOn(t *testing.T) {
	if !signal.Ignored(syscall.SIGHUP) && !slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
		t.Error("a hangup does not end it")
	}
	signal.Ignore(syscall.SIGHUP) // as nohup does
	defer signal.Reset(syscall.SIGHUP)
	if slices.Contains(endings(), os.Signal(syscall.SIGHUP)) {
		t.Error("a hangup ends it though it is ignored")
	}
}
