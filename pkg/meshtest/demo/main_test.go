package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv makes the test binary the demo itself, since signals are sent to whole
// processes.
const childEnv = "FAIRLEAD_DEMO_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

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

func TestInterruptionLeavesNothingThoughNobodyReadsTheOutputAnyMore(t *testing.T) {
	bin, begun := hanging(t)
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0], "-bin", bin)
	cmd.Env = append(os.Environ(), childEnv+"=1", "TMPDIR="+tmp)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	await(begun)
	if err := out.Close(); err != nil { // as the tee of "make demo | tee log", which Ctrl-C ends, too
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestOutputThatNobodyReadsAnyMoreEndsTheDemo(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	stdout := os.Stdout
	os.Stdout = in
	defer func() { os.Stdout = stdout }()
	ended := false
	v := newView(nil, false, func() { ended = true })
	v.print("a line\n")
	if ended {
		t.Error("it ends while somebody reads")
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	v.print("a line\n")
	if !ended {
		t.Error("it goes on unseen")
	}
}

// Whoever asks to be told of SIGPIPE is told of connections that break, too, such as those of
// sidecars that the play kills.
func TestBrokenConnectionsEndNothing(t *testing.T) {
	if slices.Contains(endings(), os.Signal(syscall.SIGPIPE)) {
		t.Error("the end of a sidecar that was sending its spans ends the demo")
	}
}
