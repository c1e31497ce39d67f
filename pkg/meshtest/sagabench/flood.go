package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// floodQuota is that of the store of sagas: so small that the flood meets the bound.
const floodQuota = "64MiB"

// flood is what more sagas than the store holds do.
type flood struct {
	Submitted int     `json:"submitted"`
	Seconds   float64 `json:"seconds"`
	Accepted  int     `json:"accepted"`
	Refused   int     `json:"refused"` // with 429 and Retry-After
	Completed int     `json:"completed"`
	// ReadP99 and WriteP99 are of the mesh's API meanwhile, in milliseconds.
	ReadP99  float64 `json:"mesh_read_p99_ms"`
	WriteP99 float64 `json:"mesh_write_p99_ms"`
	MostRSS  int64   `json:"most_rss_bytes"`
}

func (f *flood) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n**A flood.** %d sagas were submitted in %.1f s over %d connections, to a store of sagas of %s: %d were taken, and every one of them completed; %d were refused with 429 and `Retry-After`, and nothing else happened. "+
		"Meanwhile the mesh's API answered a read within %.0f ms (p99), a write within %.0f ms, and the control plane had %.0f MB resident at the most.\n",
		f.Submitted, f.Seconds, atOnce, floodQuota, f.Accepted, f.Refused, f.ReadP99, f.WriteP99, float64(f.MostRSS)/1e6)
}

// flood submits more sagas than the store holds.
func (b *bench) flood(ctx context.Context, r *result) (err error) {
	s, err := b.startServices(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.process.Stop()) }()
	f, err := b.fairlead(ctx, s, "--saga-etcd-quota", floodQuota)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.stop()) }()
	out := &flood{Submitted: b.submitted}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- f.watch(watching, out) }()
	begun := time.Now()
	accepted, err := f.submitAll(ctx, b.submitted)
	if err != nil {
		return err
	}
	out.Seconds, out.Accepted = time.Since(begun).Seconds(), len(accepted)
	out.Refused = out.Submitted - out.Accepted
	stop()
	if err := <-watched; err != nil {
		return err
	}
	b.say("flood: %d taken, %d refused in %.1f s; mesh p99 read %.0f ms, write %.0f ms; %.0f MB resident", out.Accepted, out.Refused, out.Seconds, out.ReadP99, out.WriteP99, float64(out.MostRSS)/1e6)
	if err := f.awaitStates(ctx, func(states map[string]int) bool { return states["running"]+states["compensating"] == 0 }); err != nil {
		return fmt.Errorf("not every saga ended: %w", err)
	}
	if err := f.verifyCompleted(ctx, accepted); err != nil {
		return err
	}
	if out.Refused == 0 {
		b.say("flood: the bound was not met: give -flood more sagas")
	}
	out.Completed = len(accepted)
	r.Flood = out
	return nil
}

// submitAll submits sagas and returns the ids of those that were taken. Others have to be refused as they should be.
func (f *fairlead) submitAll(ctx context.Context, n int) (accepted []string, err error) {
	client := newClient(atOnce)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n) && ctx.Err() == nil; i = next.Add(1) {
				id := fmt.Sprintf("f%d", i)
				_, err := ask(ctx, client, http.MethodPost, f.url("/v1/sagas"), []byte(`{"id":"`+id+f.body))
				var refused *statusError
				switch {
				case err == nil:
					mu.Lock()
					accepted = append(accepted, id)
					mu.Unlock()
				case errors.As(err, &refused) && refused.status == http.StatusTooManyRequests && refused.retryAfter != "":
				default:
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return accepted, context.Cause(ctx)
}

// watch reads and writes at the mesh's API, and looks at the memory, until ctx ends.
func (f *fairlead) watch(ctx context.Context, out *flood) error {
	client := newClient(1)
	defer client.CloseIdleConnections()
	var reads, writes []float64 // ms
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if len(reads) == 0 {
				return errors.New("the flood was over before the mesh was asked anything")
			}
			out.ReadP99, out.WriteP99 = percentile(reads, 0.99), percentile(writes, 0.99)
			return nil
		case <-tick.C:
		}
		path := f.url("/v1/namespaces/default/services/" + service)
		for _, one := range []struct {
			took              *[]float64
			method, url, body string
		}{
			{&reads, http.MethodGet, path + "/instances", ""},
			{&writes, http.MethodPut, path + "/policy", fmt.Sprintf(`{"requestTimeout":"%ds"}`, 10+len(writes)%10)},
		} {
			begun := time.Now()
			if _, err := ask(context.WithoutCancel(ctx), client, one.method, one.url, []byte(one.body)); err != nil {
				return fmt.Errorf("the mesh's API during the flood: %w", err)
			}
			*one.took = append(*one.took, time.Since(begun).Seconds()*1e3)
		}
		u, err := f.usage()
		if err != nil {
			return err
		}
		out.MostRSS = max(out.MostRSS, u.RSS)
	}
}

// verifyCompleted reads sagas, each of which has to be completed.
func (f *fairlead) verifyCompleted(ctx context.Context, ids []string) error {
	client := newClient(atOnce)
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for first := range min(atOnce, len(ids)) {
		all.Go(func() {
			for i := first; i < len(ids); i += atOnce {
				answer, err := ask(ctx, client, http.MethodGet, f.url("/v1/sagas/"+ids[i]), nil)
				if err == nil && !bytes.Contains(answer, []byte(`"state":"completed"`)) {
					err = fmt.Errorf("it was taken, and is not completed: %s", answer)
				}
				if err != nil {
					cancel(fmt.Errorf("saga %s: %w", ids[i], err))
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
