package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// bench starts itself with one of these as its first argument, where there is no tool for the work.
const (
	echoServe = "grpc-serve"
	echoLoad  = "grpc-load"
	tcpServe  = "tcp-serve"
	tcpLoad   = "tcp-load"

	handshakeLoad = "handshake-load"
	latencyLoad   = "latency-load"
)

// role returns what bench is started as; nil is bench itself. What it measured is written as JSON.
func role(name string) func(ctx context.Context, args []string, out io.Writer) error {
	switch name {
	case echoServe:
		return serveEcho
	case echoLoad:
		return loadEcho
	case tcpServe:
		return serveTCP
	case tcpLoad:
		return loadTCP
	case handshakeLoad:
		return loadHandshakes
	case latencyLoad:
		return loadLatency
	}
	return nil
}

// executeRole returns the exit code.
func executeRole(args []string, out, errs io.Writer) int {
	ctx, stop := untilSignal()
	defer stop()
	if err := role(args[0])(ctx, args[1:], out); err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintf(errs, "bench %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// runRole runs bench on the cores as its arguments say, and reads the JSON that it writes into what.
func (t tools) runRole(ctx context.Context, cores string, what any, args ...string) error {
	out, err := output(ctx, cores, append([]string{t.path("bench")}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, what); err != nil {
		return fmt.Errorf("what %s wrote: %w", args[0], err)
	}
	return nil
}

func writeLoad(out io.Writer, l load) error { return json.NewEncoder(out).Encode(l) }

// addressesOf reads the file that the only argument names: an address a line.
func addressesOf(args []string) ([]string, error) {
	if len(args) != 1 {
		return nil, errors.New("one argument is wanted: the file with the addresses")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return nil, err
	}
	var addresses []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			addresses = append(addresses, line)
		}
	}
	return addresses, nil
}
