package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"
)

// egress is where coordinators send its calls: it passes each on to an instance of the service that Host names, once, and says nothing by itself. A call that
// cannot be passed on ends with its connection, so that nothing is known of it. Some are on their way for so long that whoever made them is gone.
type egress struct {
	server *http.Server
	ended  chan error
	held   atomic.Int64 // calls that are on their way
}

// startEgress serves at an address. hold says how long a call is on its way.
func startEgress(address string, services map[string][]string, hold func(key, attempt string) time.Duration) (*egress, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			instances := services[r.In.Host]
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = instances[rand.IntN(len(instances))]
		},
		// A connection per call: net/http repeats calls on those that it used before.
		Transport:    &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	e := &egress{ended: make(chan error, 1)}
	e.server = &http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: proxy.ErrorLog, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(services[r.Host]) == 0 {
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if wait := hold(r.Header.Get("Idempotency-Key"), r.Header.Get("Saga-Attempt")); wait > 0 {
			e.held.Add(1)
			defer e.held.Add(-1)
			time.Sleep(wait)
			ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context())) // it arrives, whoever waits for it
			defer cancel()
			r = r.WithContext(ctx)
		}
		proxy.ServeHTTP(w, r)
	})}
	go func() { e.ended <- e.server.Serve(l) }()
	return e, nil
}

// stop returns when no call is under way.
func (e *egress) stop(ctx context.Context) error {
	err := e.server.Shutdown(ctx)
	if ended := <-e.ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}
