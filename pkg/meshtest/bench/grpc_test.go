package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/bench/grpcecho"
)

func TestCallsOverGRPCAreCountedByTheirMessages(t *testing.T) {
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "addresses.txt")
	if err := os.WriteFile(file, []byte("# where\n\n"+local(ports[0])+"\n"+local(ports[1])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serveEcho(ctx, []string{file}, io.Discard) }()
	for _, port := range ports {
		for listens(t.Context(), port) != nil {
			if len(done) > 0 {
				t.Fatal(<-done)
			}
		}
	}
	for streamed, least := range map[string]int64{"false": 4, "true": 4 * grpcecho.PerStream} {
		var out bytes.Buffer
		args := []string{"-target", local(ports[1]), "-connections", "2", "-calls", "2", "-message", "10", "-streamed=" + streamed}
		if err := loadEcho(t.Context(), args, &out); err != nil {
			t.Fatal(err)
		}
		var l load
		if err := json.Unmarshal(out.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		if l.Requests < least || l.check(10, 0) != nil {
			t.Errorf("streamed %s: %+v", streamed, l)
		}
	}
	if n, err := probeGRPC(t.Context(), ports[0], workload{body: 10}); err != nil || n != 10 {
		t.Errorf("%d, %v", n, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestServiceAndCallerOfGRPCSayWhatTheyLack(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{echoServe}, "bench grpc-serve: one argument is wanted"},
		{[]string{echoServe, "testdata/none"}, "testdata/none"},
		{[]string{echoLoad, "-calls", "x"}, "bench grpc-load: invalid value"},
		{[]string{echoLoad, "-target", "127.0.0.1:1"}, "Unavailable"},
	} {
		var out, errs bytes.Buffer
		if code := execute(c.args, &out, &errs); code != 1 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: code %d, %q; want %q", c.args, code, errs.String(), c.want)
		}
	}
}
