package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// holder holds long streams: each is opened once, takes a step every tick, and is ended when the
// holder is. One that breaks is noted and opened anew.
type holder struct {
	ledger  *ledger
	open    atomic.Int64 // that are open now
	stop    chan struct{}
	running sync.WaitGroup
	close   []func()
}

// stallTime is how long a step of a long stream may take.
const stallTime = 20 * time.Second

// isVictim reports whether the nth long stream goes to instances that are killed: those of one
// group of all kinds in ten.
func isVictim(n int) bool { return n/20%10 == 9 }

// holdStreams opens so many streams of all kinds, through the clients' sidecars.
func holdStreams(w *world, l *ledger, streams int) (*holder, error) {
	h := &holder{ledger: l, stop: make(chan struct{})}
	type client struct {
		sidecar
		h1, h2, ws *http.Client
		conns      []*grpc.ClientConn
	}
	var clients []client
	for _, s := range w.clients {
		c := client{sidecar: s, h1: httpClient(false, nil), h2: httpClient(true, nil), ws: connectingClient()}
		h.close = append(h.close, c.h1.CloseIdleConnections, c.h2.CloseIdleConnections, c.ws.CloseIdleConnections)
		for range 2 { // each takes 256 streams
			conn, err := dialGRPC(s.outbound)
			if err != nil {
				return nil, err
			}
			c.conns = append(c.conns, conn)
			h.close = append(h.close, func() { _ = conn.Close() })
		}
		clients = append(clients, c)
	}
	for n := range streams {
		c := clients[n%len(clients)]
		service, called, cached, cachedAt := steady, steadyRPC, steadyCache, c.steadyCache
		if isVictim(n) {
			service, called, cached, cachedAt = web, rpc, cache, c.cache
		}
		switch n % 20 / 2 {
		case 0, 1, 2:
			h.hold("long gRPC stream", grpcTalk(c.conns[n/20%len(c.conns)], called))
		case 3, 4:
			h.hold("long HTTP/1.1 response", ticking(c.h1, c.outbound, service))
		case 5, 6:
			h.hold("long HTTP/2 response", ticking(c.h2, c.outbound, service))
		case 7:
			h.hold("long WebSocket", webSocket(c.outbound, service))
		case 8:
			h.hold("long WebSocket over HTTP/2", webSocketOver(c.ws, c.outbound, service))
		default:
			switch n / 20 % 4 {
			case 0:
				h.hold("long TCP without a mesh", relayedDirectly(w.edge.tcp))
			case 1:
				h.hold("long TCP", relayed(cachedAt, cached))
			case 2:
				h.hold("long TCP over mutual TLS", relayedDirectly(w.edge.secureTCP))
			default:
				h.hold("long tunnel", tunnel(c.outbound, service, w.ports.http))
			}
		}
	}
	return h, nil
}

// hold holds one stream until the holder ends.
func (h *holder) hold(kind string, open opener) {
	h.running.Go(func() {
		wait := time.Duration(rand.Int64N(int64(5 * time.Second))) // not all at once
		for {
			select {
			case <-h.stop:
				return
			case <-time.After(wait):
			}
			f := failure{kind: kind, began: time.Now()}
			if err := h.keep(&f, open); err != nil {
				h.ledger.failed(f, err)
			} else {
				h.ledger.succeeded(kind, 1)
			}
			wait = time.Second
		}
	})
}

// keep opens a stream and lets it go on until the holder ends.
func (h *holder) keep(f *failure, open opener) error {
	// gRPC's streams and HTTP's responses end with the context that they were opened with.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	t, err := opened(ctx, cancel, f, open)
	if err != nil {
		return err
	}
	defer t.cut()
	h.open.Add(1)
	defer h.open.Add(-1)
	for n := 0; ; n++ {
		if err := within(ctx, t, func(ctx context.Context) error { return t.step(ctx, n) }); err != nil {
			return fmt.Errorf("in step %d: %w", n, err)
		}
		select {
		case <-h.stop:
			return within(ctx, t, t.end)
		case <-time.After(tick):
		}
	}
}

// opened opens a stream within stallTime, but on a context that goes on.
func opened(ctx context.Context, cancel context.CancelFunc, f *failure, open opener) (talk, error) {
	late := time.AfterFunc(stallTime, cancel)
	t, err := open(ctx, f)
	if !late.Stop() {
		f.begun = false
		if err == nil {
			t.cut()
		}
		return nil, fmt.Errorf("not open after %v", stallTime)
	}
	return t, err
}

// within lets something take stallTime at most: then the stream is cut.
func within(ctx context.Context, t talk, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stallTime)
	defer cancel()
	unless := context.AfterFunc(ctx, t.cut)
	defer unless()
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("nothing came for %v: %w", stallTime, err)
	}
	return err
}

// end ends all streams, each as it should be.
func (h *holder) end() {
	close(h.stop)
	h.running.Wait()
	for _, do := range h.close {
		do()
	}
}

// idlers are connections that lie idle. Each asks for something at first, and at last: then it
// must still be there.
type idlers struct {
	ledger *ledger
	open   atomic.Int64
	stop   chan struct{}
	lie    sync.WaitGroup
}

// askAgain is after how long an idle connection asks again. Sidecars close it after 5 minutes.
const askAgain = 4 * time.Minute

// holdIdle opens so many, through the clients' sidecars and those that serve bootstrap files, one
// in 25 with TLS.
func holdIdle(w *world, l *ledger, connections int) *idlers {
	h := &idlers{ledger: l, stop: make(chan struct{})}
	security := &tls.Config{RootCAs: w.authority.Pool(), ServerName: serverName, MinVersion: tls.VersionTLS12}
	opening := make(chan struct{}, 32) // as listeners' queues are bounded
	for n := range connections {
		address, kind, secure := w.edge.plain, "idle HTTP/1.1 connection", (*tls.Config)(nil)
		switch {
		case n%25 == 0:
			address, kind, secure = w.edge.secure, "idle TLS connection", security
		case n%3 != 0:
			address = w.clients[n%3-1].outbound
		}
		h.lie.Go(func() {
			f := failure{kind: kind, service: steady, began: time.Now(), idempotent: true}
			if err := h.hold(address, secure, opening, &f); err != nil {
				h.ledger.failed(f, err)
				return
			}
			h.ledger.succeeded(kind, 1)
		})
	}
	return h
}

func (h *idlers) hold(address string, security *tls.Config, opening chan struct{}, f *failure) error {
	select {
	case opening <- struct{}{}:
	case <-h.stop:
		return nil
	}
	c, err := net.DialTimeout("tcp", address, clientPatience)
	if err == nil && security != nil {
		c = tls.Client(c, security)
	}
	if err == nil {
		err = askOn(c, f)
	}
	<-opening
	if err != nil {
		return fmt.Errorf("at first: %w", err)
	}
	defer func() { _ = c.Close() }()
	h.open.Add(1)
	defer h.open.Add(-1)
	for {
		select {
		case <-h.stop:
		case <-time.After(askAgain):
		}
		opening <- struct{}{}
		f.began, f.begun = time.Now(), false
		err := askOn(c, f)
		<-opening
		if err != nil {
			return fmt.Errorf("after it was idle: %w", err)
		}
		select {
		case <-h.stop:
			return nil
		default:
		}
	}
}

// askOn asks for something small on a connection.
func askOn(c net.Conn, f *failure) error {
	_ = c.SetDeadline(time.Now().Add(clientPatience)) // of an open connection
	if _, err := fmt.Fprintf(c, "GET /echo?n=10 HTTP/1.1\r\nHost: %s\r\n\r\n", f.service); err != nil {
		return err
	}
	a, err := http.ReadResponse(bufio.NewReaderSize(c, 1<<10), nil)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	f.instance, f.reason = a.Header.Get(instanceField), a.Header.Get("fairlead-reason")
	got, err := io.ReadAll(a.Body)
	if a.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %.300s", a.Status, got)
	}
	if err == nil && len(got) != 10 {
		err = errors.New("another answer came")
	}
	return err
}

// end lets every connection ask for the last time, and closes it.
func (h *idlers) end() {
	close(h.stop)
	h.lie.Wait()
}
