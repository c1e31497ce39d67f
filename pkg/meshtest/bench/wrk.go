package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// wrkTimeout is long enough for a machine that does other things for a moment: the cost is
// measured in CPU time, which does not run meanwhile.
const wrkTimeout = 10 * time.Second

//go:embed configs/wrk.lua
var wrkScript []byte

// runWrk drives HTTP/1.1 connections in a closed loop, from one thread. d is whole
// seconds: wrk knows nothing smaller.
func runWrk(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error) {
	out, err := output(ctx, cores, t.path("wrk"), "--threads", "1", "--connections", strconv.Itoa(w.connections),
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
