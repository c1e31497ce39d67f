package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// load is what a load generator has seen.
type load struct {
	Requests     int64 `json:"requests"`
	Bytes        int64 `json:"bytes"`        // of the responses, heads included
	Microseconds int64 `json:"microseconds"` // from the first request to the last
	Non2xx       int64 `json:"non2xx"`
	Connect      int64 `json:"connect"` // failed connections
	Read         int64 `json:"read"`    // failed reads
	Write        int64 `json:"write"`   // failed writes
	Timeout      int64 `json:"timeout"` // responses that came after wrkTimeout
}

// wrkTimeout is long enough for a machine that does other things for a moment: the cost is
// measured in CPU time, which does not run meanwhile.
const wrkTimeout = 10 * time.Second

//go:embed configs/wrk.lua
var wrkScript []byte

// runWrk drives HTTP/1.1 connections in a closed loop, from one thread. d is whole
// seconds: wrk knows nothing smaller.
func runWrk(ctx context.Context, t tools, core, port int, w workload, d time.Duration) (load, error) {
	out, err := output(ctx, core, t.path("wrk"), "--threads", "1", "--connections", strconv.Itoa(w.connections),
		"--duration", fmt.Sprintf("%ds", int(d.Seconds())), "--timeout", wrkTimeout.String(),
		"--script", t.wrkScript, fmt.Sprintf("http://127.0.0.1:%d%s", port, w.path()))
	if err != nil {
		return load{}, err
	}
	return parseWrk(out)
}

// parseWrk finds the line that wrk.lua prints.
func parseWrk(out []byte) (load, error) {
	for line := range bytes.Lines(out) {
		object, ok := bytes.CutPrefix(line, []byte("summary "))
		if !ok {
			continue
		}
		var l load
		if err := json.Unmarshal(object, &l); err != nil {
			return load{}, fmt.Errorf("wrk's summary: %w", err)
		}
		return l, nil
	}
	return load{}, fmt.Errorf("no summary in what wrk wrote: %q", out)
}

// check fails unless there were responses, and every response was the one that the probe has seen, which was
// 200. wrk counts as non-2xx what is 400 or more (response_complete in its wrk.c), so the size has a
// say too: other responses have another one. What is under way when wrk stops is in the bytes, but
// not in the requests.
func (l load) check(responseBytes int64, connections int) error {
	if l.Requests <= 0 || l.Microseconds <= 0 {
		return errors.New("no response")
	}
	if l.Non2xx > 0 {
		return fmt.Errorf("%d of %d responses were not 2xx", l.Non2xx, l.Requests)
	}
	if failed := l.Connect + l.Read + l.Write + l.Timeout; failed > 0 {
		return fmt.Errorf("sockets failed: %d to connect, %d to read, %d to write, %d by timeout", l.Connect, l.Read, l.Write, l.Timeout)
	}
	excess := l.Bytes - l.Requests*responseBytes
	if excess < 0 || excess > int64(connections)*responseBytes {
		return fmt.Errorf("%d responses of %d bytes came as %d bytes: some were others", l.Requests, responseBytes, l.Bytes)
	}
	return nil
}
