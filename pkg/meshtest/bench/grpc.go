package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/bench/grpcecho"
)

// bench starts itself with one of these: as the service that is called over gRPC, and as
// what calls it.
const (
	echoServe = "grpc-serve"
	echoLoad  = "grpc-load"
)

// grpcSuite is gRPC between grpc-go and grpc-go, in the clear. A response is a message.
func grpcSuite() suite {
	return suite{
		name: "grpc", title: "gRPC",
		backend:   program{binary: "bench", config: "grpc/backend.txt", args: []string{echoServe, "{config}"}},
		generator: "bench",
		proxies: []proxy{
			fairlead(traceGRPC, "http2/fairlead.yaml"),
			envoy("http2/envoy.yaml"),
		},
		subject: "fairlead", reference: "envoy", right: "as they were to be, and their calls OK",
		workloads: []workload{
			{name: "unary-4x32-100B", connections: 4, streams: 32, body: 100},
			{name: "stream-4x4-1kB", connections: 4, streams: 4, body: 1000, streamed: true},
		},
		probe: probeGRPC,
		load:  runEcho,
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// probeGRPC makes one call, and counts what its messages have in them.
func probeGRPC(ctx context.Context, port int, w workload) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	work := grpcecho.Work{Target: local(port), Connections: 1, Calls: 1, Message: w.body, Streamed: w.streamed}
	_, err := grpcecho.Load(ctx, work, 0)
	return int64(w.body), err
}

func traceGRPC(ctx context.Context, port int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return grpcecho.Trace(ctx, local(port))
}

// runEcho drives calls in a closed loop, from a process with one core. What went wrong with one of them is an
// error.
func runEcho(ctx context.Context, t tools, core, port int, w workload, d time.Duration) (load, error) {
	out, err := output(ctx, core, t.path("bench"), echoLoad, "-target", local(port), "-connections", strconv.Itoa(w.connections),
		"-calls", strconv.Itoa(w.streams), "-message", strconv.Itoa(w.body), "-streamed="+strconv.FormatBool(w.streamed), "-duration", d.String())
	if err != nil {
		return load{}, err
	}
	var l load
	if err := json.Unmarshal(out, &l); err != nil {
		return load{}, fmt.Errorf("what %s wrote: %w", echoLoad, err)
	}
	return l, nil
}

// executeEcho is the process that serves or calls. It returns the exit code.
func executeEcho(what string, args []string, out, errs io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	var err error
	if what == echoServe {
		err = serveEcho(ctx, args)
	} else {
		err = loadEcho(ctx, args, out)
	}
	if err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintf(errs, "bench %s: %v\n", what, err)
		return 1
	}
	return 0
}

// serveEcho serves on the addresses of a file, one a line.
func serveEcho(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("one argument is wanted: the file with the addresses")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var addresses []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			addresses = append(addresses, line)
		}
	}
	return grpcecho.Serve(ctx, addresses...)
}

// loadEcho calls as its flags say, and writes the load as JSON.
func loadEcho(ctx context.Context, args []string, out io.Writer) error {
	var w grpcecho.Work
	set := flag.NewFlagSet(echoLoad, flag.ContinueOnError)
	set.SetOutput(io.Discard) // the error says it
	set.StringVar(&w.Target, "target", "", "")
	set.IntVar(&w.Connections, "connections", 1, "")
	set.IntVar(&w.Calls, "calls", 1, "")
	set.IntVar(&w.Message, "message", 0, "")
	set.BoolVar(&w.Streamed, "streamed", false, "")
	d := set.Duration("duration", 0, "")
	if err := set.Parse(args); err != nil {
		return err
	}
	began := time.Now()
	n, err := grpcecho.Load(ctx, w, *d)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(load{Requests: n.Messages, Bytes: n.Bytes, Microseconds: time.Since(began).Microseconds()})
}
