package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// runH2load drives HTTP/2 connections in a closed loop, from one thread. d is whole
// seconds.
func runH2load(ctx context.Context, t tools, cores string, port int, w workload, d time.Duration) (load, error) {
	out, err := output(ctx, cores, t.path("h2load"), "--threads", "1", "--clients", strconv.Itoa(w.connections),
		"--max-concurrent-streams", strconv.Itoa(w.streams), "--duration", fmt.Sprintf("%ds", int(d.Seconds())),
		fmt.Sprintf("http://127.0.0.1:%d%s", port, w.path()))
	if err != nil {
		return load{}, err
	}
	l, err := parseH2load(out)
	l.Microseconds = d.Microseconds() // what h2load says of it is rounded to 10 ms
	return l, err
}

// The lines of h2load's summary that count. What ended in the time is done, and failed if it was
// reset ("errored", too) or its status was not 2xx or 3xx; bytes of data are those of the bodies.
var (
	h2loadRequests = regexp.MustCompile(`(?m)^requests: .* (\d+) done, .* (\d+) errored, (\d+) timeout$`)
	h2loadStatuses = regexp.MustCompile(`(?m)^status codes: (\d+) 2xx, `)
	h2loadTraffic  = regexp.MustCompile(`(?m)^traffic: .* \((\d+)\) data$`)
)

// parseH2load reads the summary, all but the time.
func parseH2load(out []byte) (load, error) {
	var n []int64
	for _, line := range []*regexp.Regexp{h2loadRequests, h2loadStatuses, h2loadTraffic} {
		match := line.FindSubmatch(out)
		if match == nil {
			return load{}, fmt.Errorf("h2load wrote no line like %s: %q", line, out)
		}
		for _, digits := range match[1:] {
			v, err := strconv.ParseInt(string(digits), 10, 64)
			if err != nil {
				return load{}, fmt.Errorf("h2load's summary: %w", err)
			}
			n = append(n, v)
		}
	}
	done, errored, late, right, data := n[0], n[1], n[2], n[3], n[4]
	return load{Requests: done, Bytes: data, Non2xx: done - errored - right, Read: errored, Timeout: late}, nil
}
