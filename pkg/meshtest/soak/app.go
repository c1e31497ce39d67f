package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// instanceField says in responses which instance made them.
const instanceField = "soak-instance"

// The methods of the gRPC service, which says again what it hears.
const (
	grpcService = "soak.Echo"
	callPath    = "/" + grpcService + "/Call"
	talkPath    = "/" + grpcService + "/Talk"
)

// app is an application: one process that serves HTTP/1.1, gRPC and TCP, each on an address of
// its own. SIGTERM ends it as applications should end: what is under way may go on for appDrain.
type app struct {
	id string
}

// appDrain is how long requests and streams may go on when an application is told to stop.
const appDrain = time.Second

// serve serves until ctx ends.
func (a app) serve(ctx context.Context, httpAddr, grpcAddr, tcpAddr string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	var listeners []net.Listener
	for _, addr := range []string{httpAddr, grpcAddr, tcpAddr} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	web := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second}
	rpc := grpc.NewServer()
	rpc.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Call", Handler: a.call},
			{StreamName: "Talk", Handler: a.talk, ClientStreams: true, ServerStreams: true},
		},
	}, nil)
	failed := make(chan error, len(listeners))
	go func() { failed <- web.Serve(listeners[0]) }()
	go func() { failed <- rpc.Serve(listeners[1]) }()
	go func() { failed <- a.relay(listeners[2]) }()
	fmt.Printf("app %s listens\n", a.id)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.Background(), appDrain)
	defer cancel()
	unless := context.AfterFunc(ending, rpc.Stop)
	rpc.GracefulStop()
	unless()
	_ = web.Shutdown(ending) // which leaves what takes longer
	return errors.Join(web.Close(), listeners[2].Close())
}

func (a app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /echo", a.bytes)
	mux.HandleFunc("POST /echo", a.echo)
	mux.HandleFunc("GET /bytes", a.bytes)
	mux.HandleFunc("POST /sink", a.sink)
	mux.HandleFunc("GET /ticks", a.ticks)
	mux.HandleFunc("GET /ws", a.ws)
	return mux
}

// echo answers with the request's body.
func (a app) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the caller has gone
	}
	w.Header().Set(instanceField, a.id)
	_, _ = w.Write(body)
}

// bytes answers with n bytes.
func (a app) bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.FormValue("n"), 10, 64)
	if err != nil {
		http.Error(w, "n: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set(instanceField, a.id)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.Copy(w, io.LimitReader(new(pattern), n))
}

// sink reads the body and says how long it was.
func (a app) sink(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	w.Header().Set(instanceField, a.id)
	_, _ = fmt.Fprint(w, n)
}

// ticks answers with a line that counts, every so often, until the caller has gone.
func (a app) ticks(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(instanceField, a.id)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if _, err := fmt.Fprintf(w, "%d\n", n); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		}
	}
}

// ws says again, over WebSocket, what it hears.
func (a app) ws(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(instanceField, a.id)
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// call says a message again.
func (a app) call(_ any, stream grpc.ServerStream) error {
	message := new(wrapperspb.BytesValue)
	if err := stream.RecvMsg(message); err != nil {
		return err
	}
	if err := stream.SendHeader(metadata.Pairs(instanceField, a.id)); err != nil {
		return err
	}
	return stream.SendMsg(message)
}

// talk says every message of a stream again.
func (a app) talk(_ any, stream grpc.ServerStream) error {
	if err := stream.SendHeader(metadata.Pairs(instanceField, a.id)); err != nil {
		return err
	}
	message := new(wrapperspb.BytesValue)
	for {
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// relay greets every connection with a line, and says again what comes.
func (a app) relay(l net.Listener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return http.ErrServerClosed
		}
		if err != nil {
			return err
		}
		conns.Go(func() {
			defer func() { _ = c.Close() }()
			if _, err := fmt.Fprintln(c, a.id); err == nil {
				_, _ = io.Copy(c, c)
			}
		})
	}
}

// pattern is an endless body, of which no two pieces side by side are the same.
type pattern struct{ at int }

func (r *pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte((r.at + i) % 251)
	}
	r.at = (r.at + len(p)) % 251
	return len(p), nil
}
