package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// participantRole is what this program is told to be the services that sagas call.
const participantRole = "participant"

// participate serves the services that sagas call, until ctx ends:
//
//	POST /act, /undo  does nothing, for as long as it is told
//	POST /busy        is busy until it is told otherwise
//	GET  /stats       stats, as JSON
//	POST /set?work=DURATION&busy=BOOL
func participate(ctx context.Context, address string, log io.Writer) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	p := &participants{seen: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /act", p.act)
	mux.HandleFunc("POST /undo", p.act)
	mux.HandleFunc("POST /busy", p.maybe)
	mux.HandleFunc("GET /stats", p.stats)
	mux.HandleFunc("POST /set", p.set)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	_, _ = fmt.Fprintln(log, "participants listen")
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// participants is what they keep.
type participants struct {
	work   atomic.Int64 // nanoseconds
	calls  atomic.Int64
	took   atomic.Int64 // nanoseconds, all calls together
	atOnce atomic.Int64
	most   atomic.Int64 // that were at once

	mu   sync.Mutex
	busy bool              // guarded by mu
	seen map[string]string // guarded by mu; of calls of /busy, the fence of the last one, by key
}

// stats is what participants tell.
type stats struct {
	Calls int64            `json:"calls"`
	Took  time.Duration    `json:"took"` // all calls together
	Most  int64            `json:"most"` // calls at once
	Keys  map[string]int64 `json:"keys"` // how many keys /busy was last called for, by fence
}

func (p *participants) act(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	defer func() {
		p.calls.Add(1)
		p.took.Add(int64(time.Since(begun)))
	}()
	_, _ = io.Copy(io.Discard, r.Body)
	if work := p.work.Load(); work > 0 {
		time.Sleep(time.Duration(work))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":42}`)
}

// maybe answers that nobody knows when it will be possible, which breakers do not hold against it.
func (p *participants) maybe(w http.ResponseWriter, r *http.Request) {
	n := p.atOnce.Add(1)
	defer p.atOnce.Add(-1)
	for most := p.most.Load(); n > most && !p.most.CompareAndSwap(most, n); most = p.most.Load() {
	}
	p.calls.Add(1)
	_, _ = io.Copy(io.Discard, r.Body)
	p.mu.Lock()
	p.seen[r.Header.Get("Idempotency-Key")] = r.Header.Get("Saga-Fence")
	busy := p.busy
	p.mu.Unlock()
	if busy {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (p *participants) stats(w http.ResponseWriter, _ *http.Request) {
	s := stats{Calls: p.calls.Load(), Took: time.Duration(p.took.Load()), Most: p.most.Load(), Keys: map[string]int64{}}
	p.mu.Lock()
	for _, fence := range p.seen {
		s.Keys[fence]++
	}
	p.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s)
}

func (p *participants) set(w http.ResponseWriter, r *http.Request) {
	work, err := time.ParseDuration(r.FormValue("work"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.work.Store(int64(work))
	p.most.Store(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = r.FormValue("busy") == "true"
}

// services are the participants, as a process.
type services struct {
	process *play.Process
	address string // host:port
}

func (b *bench) startServices(ctx context.Context) (*services, error) {
	address, err := play.FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := play.Start(b.dir, "participants", b.self, participantRole, address)
	if err != nil {
		return nil, err
	}
	s := &services{p, address}
	if _, err := p.Await(ctx, `(participants listen)`); err != nil {
		return nil, errors.Join(err, s.process.Stop())
	}
	return s, s.set(ctx, b.work, false)
}

func (s *services) set(ctx context.Context, work time.Duration, busy bool) error {
	_, err := ask(ctx, http.DefaultClient, http.MethodPost, fmt.Sprintf("http://%s/set?work=%v&busy=%t", s.address, work, busy), nil)
	return err
}

func (s *services) stats(ctx context.Context) (all stats, err error) {
	body, err := ask(ctx, http.DefaultClient, http.MethodGet, "http://"+s.address+"/stats", nil)
	if err != nil {
		return all, err
	}
	return all, json.Unmarshal(body, &all)
}
