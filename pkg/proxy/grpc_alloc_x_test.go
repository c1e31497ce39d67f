//go:build !race

package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// callPeer is both ends of a connection for calls. As a server it answers each with a
// message and a status, on the goroutine that reads the connection. It allocates nothing.
type callPeer struct{ request, response, trailers wire.Head }

func newCallPeer() *callPeer {
	p := &callPeer{}
	p.request.Reset()
	p.request.Method, p.request.Scheme, p.request.Authority, p.request.Path = []byte("POST"), []byte("http"), []byte("a"), []byte("/a.B/C")
	p.request.Streamed = true
	p.request.Add(wire.ContentType, "content-type", []byte("application/grpc"))
	p.request.Add(wire.TE, "te", []byte("trailers"))
	p.request.Add(wire.GRPCTimeout, "grpc-timeout", []byte("10S"))
	p.response.Reset()
	p.response.Status = 200
	p.response.Add(wire.ContentType, "content-type", []byte("application/grpc"))
	p.trailers.Add(wire.GRPCStatus, "grpc-status", []byte("0"))
	return p
}

func (p *callPeer) Request(s *http2.Stream, _ *wire.Error, b *http2.Batch) {
	s.Hold(b)
	_ = s.ReadHead(&p.request)
	_ = s.WriteHead(&p.response)
	_ = s.WriteBody(hello)
	_ = s.EndBody(p.trailers.Fields)
	_ = s.Flush()
	s.Release()
}

func (*callPeer) Cancelled(any, uint32) {}
func (*callPeer) Changed()              {}

var hello = []byte("\x00\x00\x00\x00\x05hello")

// answerCalls is an instance that answers every call with a message and a status.
func answerCalls(t *testing.T, clock func() int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = http2.NewConn(nc, http2.Server, nil, newCallPeer(), http2.Config{Clock: clock}).Serve() }()
		}
	}()
	return l.Addr().String()
}

func TestProxiedCallDoesNotAllocate(t *testing.T) {
	tracer, err := tracing.Setup(t.Context(), tracing.Config{ServiceName: "test", OTLPEndpoint: "grpc://127.0.0.1:1", Ratio: 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracer.Shutdown(context.Background()) })
	log, err := accesslog.New(accesslog.Config{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close(context.Background()) })
	began := time.Now()
	clock := func() int64 { return int64(time.Since(began)) }
	r := startWith(t, func(c *proxy.Config) { c.Tracer, c.Access = tracer, log }, []string{answerCalls(t, clock)}, overGRPC)
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	peer := newCallPeer()
	c := http2.NewConn(nc, http2.Client, nil, peer, http2.Config{Clock: clock})
	over := make(chan struct{})
	go func() { defer close(over); _ = c.Serve() }()
	t.Cleanup(func() { _ = nc.Close(); <-over })
	var response wire.Head
	call := func() {
		s, err := c.Open()
		for errors.Is(err, http2.ErrRefused) { // the settings have not come
			time.Sleep(time.Millisecond)
			s, err = c.Open()
		}
		if err != nil {
			t.Fatal(err)
		}
		if s.WriteHead(&peer.request) != nil || s.WriteBody(hello) != nil || s.EndBody(nil) != nil || s.Flush() != nil {
			t.Fatal("the call was not sent")
		}
		if err := s.ReadHead(&response); err != nil || response.Status != 200 {
			t.Fatal(err, response.Status)
		}
		for {
			p, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || !bytes.Equal(p, hello) {
				t.Fatalf("%q, %v", p, err)
			}
		}
		if n := len(s.Trailers()); n != 1 {
			t.Fatalf("%d trailers", n)
		}
		s.Release()
	}
	for range 200 {
		call()
	}
	// The collector may run meanwhile, and empty the pools: whole numbers only.
	if allocs := testing.AllocsPerRun(1000, call); allocs >= 1 {
		t.Errorf("%v allocations per call", allocs)
	}
}
