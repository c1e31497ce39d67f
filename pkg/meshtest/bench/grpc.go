package main

import (
	"context"
	"flag"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/bench/grpcecho"
)

// grpcSuite is gRPC between grpc-go and grpc-go, in the clear. A response is a message.
func grpcSuite() suite {
	bars := []bar{{than: "envoy", must: 0.5, aim: 0.25}}
	return suite{
		name: "grpc", title: "gRPC",
		backend:   program{binary: "bench", config: "grpc/backend.txt", args: []string{echoServe, "{config}"}},
		generator: "bench",
		proxies: []proxy{
			fairlead(traceGRPC, "http2/fairlead.yaml"),
			envoy("http2/envoy.yaml"),
		},
		subject: "fairlead", reference: "envoy", right: "as they were to be, and their calls OK",
		unit: "CPU µs/message", rate: "messages/s",
		workloads: []workload{
			{name: "unary-4x32-100B", connections: 4, streams: 32, body: 100, bars: bars},
			{name: "stream-4x4-1kB", connections: 4, streams: 4, body: 1000, streamed: true, bars: bars},
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
func runEcho(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error) {
	var l load
	err := t.runRole(ctx, cores, &l, echoLoad, "-target", local(port), "-connections", strconv.Itoa(w.connections),
		"-calls", strconv.Itoa(w.streams), "-message", strconv.Itoa(w.body), "-streamed="+strconv.FormatBool(w.streamed), "-duration", d.String())
	return l, err
}

// serveEcho serves on the addresses of a file, one a line.
func serveEcho(ctx context.Context, args []string, _ io.Writer) error {
	addresses, err := addressesOf(args)
	if err != nil {
		return err
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
	return writeLoad(out, load{Requests: n.Messages, Bytes: n.Bytes, Microseconds: time.Since(began).Microseconds()})
}
