package http2_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// clock is what connections of tests go by.
func clock() func() int64 {
	began := time.Now()
	return func() int64 { return int64(time.Since(began)) }
}

// echo answers each request on a goroutine of its own: with what it said, in fields, and
// its body.
type echo struct {
	tb      testing.TB
	streams sync.WaitGroup
}

func (e *echo) Request(s *http2.Stream, bad *wire.Error, b *http2.Batch) {
	e.streams.Go(func() {
		defer s.Release()
		var request, response wire.Head
		if err := s.ReadHead(&request); err != nil {
			e.tb.Errorf("the head of a request: %v", err)
			return
		}
		response.Reset()
		response.Status = 200
		if bad != nil && bad.Status == 400 {
			return
		}
		if bad != nil {
			response.Status = bad.Status
			_ = s.WriteHead(&response)
			_ = s.EndBody(nil)
			_ = s.Flush()
			return
		}
		response.Add(wire.Other, "x-method", request.Method)
		response.Add(wire.Other, "x-path", request.Path)
		response.Add(wire.Other, "x-authority", request.Authority)
		response.Add(wire.Other, "X-Cookie", request.Get(wire.Cookie))
		response.Add(wire.Other, "x-length", fmt.Append(nil, request.ContentLength, request.Streamed))
		if s.WriteHead(&response) != nil || s.Flush() != nil {
			return
		}
		for {
			p, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			if s.WriteBody(p) != nil || s.Flush() != nil {
				return
			}
		}
		_ = s.EndBody(s.Trailers())
		_ = s.Flush()
	})
}

func (e *echo) Cancelled(any, uint32) {}
func (e *echo) Changed()              {}

// serve runs servers on a port until the test ends.
func serve(t *testing.T, handler http2.Handler, config http2.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config.Clock = clock()
	var mu sync.Mutex
	var conns []*http2.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := http2.NewConn(nc, http2.Server, nil, handler, config)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			running.Go(func() { _ = c.Serve() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Cut()
		}
		mu.Unlock()
		running.Wait()
	})
	return l.Addr().String()
}

// client is another implementation's. It has no timeout of its own: how long much takes says
// nothing, and what hangs is shown by that of the tests.
func client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestRequestsOfAnotherImplementationAreAnswered(t *testing.T) {
	e := &echo{tb: t}
	t.Cleanup(e.streams.Wait)
	addr := serve(t, e, http2.Config{})
	c := client(t)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, test := range []struct {
		method string
		body   func() io.Reader
		size   int
		length string
	}{
		{"GET", func() io.Reader { return nil }, 0, "-1 false"},
		{"POST", func() io.Reader { return strings.NewReader("order") }, 5, "5 false"},
		{"POST", func() io.Reader { return io.MultiReader(strings.NewReader("order")) }, 5, "-1 true"},
		{"PUT", func() io.Reader { return bytes.NewReader(large) }, len(large), "1048576 false"},
		{"PUT", func() io.Reader { return io.MultiReader(bytes.NewReader(large)) }, len(large), "-1 true"},
	} {
		for range 3 {
			q, err := http.NewRequest(test.method, "http://"+addr+"/a?b=c", test.body())
			if err != nil {
				t.Fatal(err)
			}
			q.Header["Cookie"] = []string{"a=1", "b=2; c=3"}
			a, err := c.Do(q)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.New()
			n, err := io.Copy(sum, a.Body)
			_ = a.Body.Close()
			if err != nil || n != int64(test.size) {
				t.Fatalf("%s: %d bytes, %v", test.method, n, err)
			}
			h := a.Header
			if a.StatusCode != 200 || h.Get("X-Method") != test.method || h.Get("X-Path") != "/a?b=c" || h.Get("X-Authority") != addr ||
				h.Get("X-Cookie") != "a=1; b=2; c=3" || h.Get("X-Length") != test.length {
				t.Errorf("%s: %d %v", test.method, a.StatusCode, h)
			}
		}
	}
}

func TestManyStreamsAtOnceGetTheirOwnBytes(t *testing.T) {
	e := &echo{tb: t}
	t.Cleanup(e.streams.Wait)
	addr := serve(t, e, http2.Config{MaxStreams: 100})
	c := client(t)
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			want := bytes.Repeat(fmt.Appendf(nil, "%d,", i), 1+i*250) // the longer ones are beyond every window
			a, err := c.Post("http://"+addr+"/", "", bytes.NewReader(want))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Body.Close() }()
			if got, err := io.ReadAll(a.Body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d: %d bytes of %d, %v", i, len(got), len(want), err)
			}
		})
	}
	all.Wait()
}

// lateReleaser answers requests, and keeps their streams until it is told to let go of them.
type lateReleaser struct {
	letGo   chan struct{}
	streams sync.WaitGroup
}

func (k *lateReleaser) Request(s *http2.Stream, _ *wire.Error, _ *http2.Batch) {
	k.streams.Go(func() {
		var h wire.Head
		_ = s.ReadHead(&h)
		h.Reset()
		h.Status = 204
		_ = errors.Join(s.WriteHead(&h), s.EndBody(nil), s.Flush())
		<-k.letGo
		s.Release()
	})
}

func (*lateReleaser) Cancelled(any, uint32) {}
func (*lateReleaser) Changed()              {}

// A client that has seen the end of a response may open another stream, whatever the server has
// yet to do for the one that has ended. What it holds of those is bounded all the same.
func TestStreamsThatHaveEndedDoNotCountForTheLimit(t *testing.T) {
	const limit = 4
	k := &lateReleaser{letGo: make(chan struct{})}
	t.Cleanup(k.streams.Wait)
	t.Cleanup(func() { close(k.letGo) })
	nc, err := net.Dial("tcp", serve(t, k, http2.Config{MaxStreams: limit}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_, _ = io.WriteString(nc, h2.ClientPreface)
	f := h2.NewFramer(nc, nc)
	_ = errors.Join(f.WriteSettings(), f.WriteSettingsAck())
	for n := range uint32(2*limit + 1) {
		id := 2*n + 1
		// :method GET, :scheme http, :path /, :authority a
		_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x82, 0x86, 0x84, 0x01, 0x01, 'a'}, EndHeaders: true, EndStream: true})
		for ended := false; !ended; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatalf("stream %d: %v", id, err)
			}
			switch frame := frame.(type) {
			case *h2.HeadersFrame:
				ended = frame.StreamID == id && frame.StreamEnded()
				if n == 2*limit {
					t.Errorf("stream %d is served, though %d are held", id, n)
				}
			case *h2.RSTStreamFrame:
				ended = true
				if n < 2*limit || frame.ErrCode != h2.ErrCodeRefusedStream {
					t.Errorf("stream %d is reset: %s", id, frame.ErrCode)
				}
			}
		}
	}
}
