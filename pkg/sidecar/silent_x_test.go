package sidecar_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// silentHost is a host that falls silent.
type silentHost struct {
	http2 bool
	// serve says what it has to say to a request, calls fallSilent, and returns when its connection has
	// ended. What fallSilent returns is closed when the client has its answer.
	serve func(nc *net.TCPConn, fallSilent func() <-chan struct{})
	// broken says that a response has begun, which then breaks off.
	broken bool
	// upload is how much the client has to send.
	upload int
}

// left waits for the end of a connection, and takes whatever is still coming in.
func left(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }

// afterRequest is a host of HTTP/1.1 that says this to each request.
func afterRequest(text string) func(*net.TCPConn, func() <-chan struct{}) {
	return func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
			return
		}
		_, _ = io.WriteString(nc, text)
		fallSilent()
		left(nc)
	}
}

// inStream is a host of HTTP/2 that says something to the requests for /silent, and answers all others
// on the same connection.
func inStream(t *testing.T, said func(p *h2Peer, id uint32)) func(*net.TCPConn, func() <-chan struct{}) {
	var connections atomic.Int32
	return func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
		if n := connections.Add(1); n != 1 {
			t.Errorf("there are %d connections", n)
		}
		p := h2Host(nc)
		_ = p.WriteSettings()
		silent := uint32(0)
		for {
			frame, err := p.next()
			if err != nil {
				if silent != 0 {
					t.Errorf("the connection has ended with the stream that was silent: %v", err)
				}
				return
			}
			switch f := frame.(type) {
			case *frames.MetaHeadersFrame:
				if f.PseudoValue("path") != "/silent" {
					p.head(f.StreamID, false, ":status", "200")
					_ = p.WriteData(f.StreamID, true, []byte("well"))
					continue
				}
				silent = f.StreamID
				said(p, silent)
				fallSilent()
			case *frames.RSTStreamFrame:
				if f.StreamID != silent || f.ErrCode != frames.ErrCodeCancel {
					t.Errorf("stream %d is reset with %v", f.StreamID, f.ErrCode)
				}
				silent = 0
			}
		}
	}
}

func silentHosts(t *testing.T) map[string]silentHost {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
	takesNothing := func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
		_ = nc.SetReadBuffer(1 << 10)
		p := h2Host(nc)
		_ = p.WriteSettings()
		_ = p.WriteSettingsAck()
		if _, err := p.request(); err != nil {
			return
		}
		fallSilent()
		for { // no window is given back
			if _, err := p.ReadFrame(); err != nil {
				return
			}
		}
	}
	return map[string]silentHost{
		"HTTP/1.1, before the head": {serve: afterRequest("")},
		"HTTP/1.1, in the head":     {serve: afterRequest(head[:30])},
		"HTTP/1.1, behind a 100":    {serve: afterRequest("HTTP/1.1 100 Continue\r\n\r\n")},
		"HTTP/1.1, before the body": {serve: afterRequest(head), broken: true},
		"HTTP/1.1, in the body":     {serve: afterRequest(head + "half"), broken: true},
		"HTTP/1.1, in a chunk":      {serve: afterRequest("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha"), broken: true},
		"HTTP/1.1, takes no bytes": {upload: 64 << 20, serve: func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
			client := fallSilent()
			<-client // it has not read a byte
			left(nc)
		}},
		"HTTP/2, before its SETTINGS": {http2: true, serve: func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
			fallSilent()
			left(nc)
		}},
		"HTTP/2, before the head": {http2: true, serve: inStream(t, func(*h2Peer, uint32) {})},
		"HTTP/2, in the head": {http2: true, serve: func(nc *net.TCPConn, fallSilent func() <-chan struct{}) {
			p := h2Host(nc)
			_ = p.WriteSettings()
			q, err := p.request()
			if err != nil {
				return
			}
			_ = p.WriteHeaders(frames.HeadersFrameParam{StreamID: q.StreamID, BlockFragment: []byte{0x88}})
			fallSilent()
			left(nc)
		}},
		"HTTP/2, before the body": {http2: true, broken: true, serve: inStream(t, func(p *h2Peer, id uint32) { p.head(id, false, ":status", "200") })},
		"HTTP/2, in the body": {http2: true, broken: true, serve: inStream(t, func(p *h2Peer, id uint32) {
			p.head(id, false, ":status", "200", "content-length", "10")
			_ = p.WriteData(id, false, []byte("half"))
		})},
		"HTTP/2, takes no bytes": {http2: true, upload: 1 << 20, serve: takesNothing},
	}
}

func TestAHostThatFallsSilentCostsItsOwnRequestsOnly(t *testing.T) {
	for name := range silentHosts(t) {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s, a client of HTTP/%d", name, version), func(t *testing.T) {
				t.Parallel() // they wait more than they do
				host := silentHosts(t)[name]
				silent, over, gone := make(chan struct{}, 4), make(chan struct{}), make(chan struct{}, 4)
				at := tcpServer(t, func(nc *net.TCPConn) {
					host.serve(nc, func() <-chan struct{} { silent <- struct{}{}; return over })
					gone <- struct{}{}
				})
				var log bytes.Buffer // which is read when the sidecar has ended
				r := serve(t, sidecar.Config{AccessLog: &log, AccessLogFormat: accesslog.JSON},
					webListener(webRoute("/silent", "silent", "1s"), webRoute("/alive", "silent", "20s"), webRoute("/", "well", "20s")),
					webCluster("silent", at, host.http2, "10s"), webCluster("well", webServer(t), false, "10s"))
				client := clientOf(t, version)
				well := func() {
					t.Helper()
					if got := ask(client, "http://"+r.web.String()+"/well", 0); got != "200  web /well" {
						t.Errorf("another host: %s", got)
					}
				}
				well()
				answered := make(chan string, 1)
				go func() { answered <- ask(client, "http://"+r.web.String()+"/silent", host.upload) }()
				select {
				case <-silent:
				case got := <-answered:
					t.Fatalf("before the host was silent: %s", got)
				}
				well()
				if strings.HasPrefix(name, "HTTP/2, before the ") || name == "HTTP/2, in the body" {
					if got := ask(client, "http://"+r.web.String()+"/alive", 0); got != "200  well" {
						t.Errorf("another stream of the host: %s", got)
					}
				}
				want := "504 request_timeout fairlead: the instance did not answer within the request timeout (request_timeout)\n"
				got := <-answered
				close(over)
				if host.broken {
					want = "200  broken off"
					got = got[:min(len(got), len(want))]
				}
				if got != want {
					t.Errorf("the client got %q, want %q", got, want)
				}
				well()
				eventually(t, "nothing of it is under way", func() bool {
					return r.series(t, "fairlead_requests_in_flight")+r.series(t, "fairlead_upstream_active") == 0
				})
				if !host.http2 { // its connection ends with the request
					select {
					case <-gone:
					case <-time.After(patience):
						t.Error("the connection to the host goes on")
					}
				}
				r.cancel()
				if err := <-r.ended; err != nil {
					t.Error(err)
				}
				for line := range strings.Lines(log.String()) {
					var e struct {
						Path, Reason string
						Retries      int
					}
					if err := json.Unmarshal([]byte(line), &e); err != nil {
						t.Fatal(err)
					}
					if is := e.Path == "/silent"; is != (e.Reason == "request_timeout") || e.Retries != 0 {
						t.Errorf("the log: %s", line)
					}
				}
			})
		}
	}
}

func clientOf(t *testing.T, version int) *http.Client {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetUnencryptedHTTP2(version == 2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 3 * patience}
}

// ask returns the status, the reason and the text of an answer, or how it broke.
func ask(c *http.Client, url string, upload int) string {
	if upload > 0 && c.Transport.(*http.Transport).Protocols.HTTP1() {
		return askWhileSending(strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/silent"), upload)
	}
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if upload > 0 {
		method, body = http.MethodPost, io.LimitReader(zeroes{}, int64(upload))
	}
	q, err := http.NewRequest(method, url, body)
	if err != nil {
		return err.Error()
	}
	a, err := c.Do(q)
	if err != nil {
		return err.Error()
	}
	return read(a)
}

// askWhileSending is ask of a client that reads its answer whatever becomes of what it sends, which
// net/http's does not.
func askWhileSending(at string, upload int) string {
	nc, err := net.Dial("tcp", at)
	if err != nil {
		return err.Error()
	}
	sent := make(chan struct{})
	defer func() { _ = nc.Close(); <-sent }()
	_ = nc.SetDeadline(time.Now().Add(2 * patience))
	go func() {
		defer close(sent)
		_, _ = fmt.Fprintf(nc, "POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", upload)
		_, _ = io.Copy(nc, io.LimitReader(zeroes{}, int64(upload)))
	}()
	a, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return err.Error()
	}
	return read(a)
}

func read(a *http.Response) string {
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		text = fmt.Appendf(nil, "broken off behind %q: %v", text, err)
	}
	return fmt.Sprintf("%d %s %s", a.StatusCode, a.Header.Get("Fairlead-Reason"), text)
}

// zeroes is a body that goes on.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }
