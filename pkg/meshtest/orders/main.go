// Command orders is the small service of the demo and the smoke test: it prices
// orders, and can be told to be slow or to fail.
//
//	GET /orders/{id}                      the order, and which instance priced it
//	PUT /fault?delay=200ms&fail=0.5       from now on; both default to none
//	GET /health                           200
//
// With -step it is a service that takes part in the sagas of orders, and does that step of them once, in a
// database of its own:
//
//	POST /saga/charge, /saga/charge/undo  the step's action and compensation
//	GET /effects?order=ID                 how often it did what, and was asked for it
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "host:port to serve on")
	instance := flag.String("instance", "", "name to answer with")
	step := flag.String("step", "", "step of sagas that it takes part in: reserve, charge or ship")
	db := flag.String("db", "", "file of its database, if it takes part in sagas")
	flag.Parse()
	if err := run(*addr, *instance, *step, *db); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(addr, instance, step, db string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	s := newService(instance)
	if step != "" {
		ledger, err := openLedger(ctx, db)
		if err != nil {
			return err
		}
		defer func() { _ = ledger.db.Close() }()
		if err := s.takePart(step, ledger); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("orders %s listens on %s\n", instance, l.Addr())
	server := &http.Server{Handler: s.mux, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// fault is how the service misbehaves.
type fault struct {
	delay time.Duration
	fail  float64 // share of requests, 0 to 1
}

type service struct {
	instance string
	mux      *http.ServeMux
	fault    atomic.Pointer[fault]
}

func newService(instance string) *service {
	s := &service{instance: instance, mux: http.NewServeMux()}
	s.fault.Store(&fault{})
	s.mux.HandleFunc("GET /orders/{id}", s.order)
	s.mux.HandleFunc("PUT /fault", s.setFault)
	s.mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return s
}

// pause lets as much time pass as the service is told to, and reports whether somebody still waits.
func (f *fault) pause(ctx context.Context) bool {
	if f.delay == 0 {
		return true
	}
	wait := time.NewTimer(f.delay)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *service) order(w http.ResponseWriter, r *http.Request) {
	f := s.fault.Load()
	if !f.pause(r.Context()) {
		return
	}
	if f.fail > 0 && rand.Float64() < f.fail {
		http.Error(w, "the price list is on fire", http.StatusInternalServerError)
		return
	}
	id := r.PathValue("id")
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // a hash never fails to write
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": id, "cents": 100 + h.Sum32()%10_000, "instance": s.instance})
}

func (s *service) setFault(w http.ResponseWriter, r *http.Request) {
	f := fault{}
	var err error
	if v := r.FormValue("delay"); v != "" {
		if f.delay, err = time.ParseDuration(v); err != nil {
			http.Error(w, "delay: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	if v := r.FormValue("fail"); v != "" {
		if f.fail, err = strconv.ParseFloat(v, 64); err != nil || f.fail < 0 || f.fail > 1 {
			http.Error(w, "fail: want a share from 0 to 1", http.StatusBadRequest)
			return
		}
	}
	s.fault.Store(&f)
	w.WriteHeader(http.StatusNoContent)
}
