package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// load is what a load generator has seen.
type load struct {
	Requests     int64 `json:"requests"`
	Bytes        int64 `json:"bytes"`        // of the responses; with HTTP/1.1 heads are in it
	Microseconds int64 `json:"microseconds"` // from the first request to the last
	Non2xx       int64 `json:"non2xx"`
	Connect      int64 `json:"connect"` // failed connections
	Read         int64 `json:"read"`    // failed reads
	Write        int64 `json:"write"`   // failed writes
	Timeout      int64 `json:"timeout"` // responses that came too late
}

// errNoResponse says that a load has seen nothing, be it right or wrong.
var errNoResponse = errors.New("no response")

// check fails unless there were responses, and every response was the one that the probe has seen, which was
// 200. wrk counts as non-2xx what is 400 or more (response_complete in its wrk.c), so the size has a
// say too: other responses have another one. What is under way when the load stops is in the bytes,
// but not in the requests.
func (l load) check(responseBytes int64, underWay int) error {
	if l.Requests <= 0 || l.Microseconds <= 0 {
		return errNoResponse
	}
	if l.Non2xx > 0 {
		return fmt.Errorf("%d of %d responses were not 2xx", l.Non2xx, l.Requests)
	}
	if failed := l.Connect + l.Read + l.Write + l.Timeout; failed > 0 {
		return fmt.Errorf("sockets failed: %d to connect, %d to read, %d to write, %d by timeout", l.Connect, l.Read, l.Write, l.Timeout)
	}
	excess := l.Bytes - l.Requests*responseBytes
	if excess < 0 || excess > int64(underWay)*responseBytes {
		return fmt.Errorf("%d responses of %d bytes came as %d bytes: some were others", l.Requests, responseBytes, l.Bytes)
	}
	return nil
}

// closedLoops runs loops side by side, each of which counts what it has done, one after the other, until a
// time that is d from now, and waits for them. The first error ends all.
func closedLoops(ctx context.Context, loops int, d time.Duration, loop func(ctx context.Context, until time.Time, n *int64) error) (load, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	counts := make([]int64, loops)
	var running sync.WaitGroup
	for i := range counts {
		running.Go(func() {
			if err := loop(ctx, began.Add(d), &counts[i]); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	l := load{Microseconds: time.Since(began).Microseconds()}
	for _, n := range counts {
		l.Requests += n
	}
	return l, context.Cause(ctx)
}
