//go:build !race

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// answerAll answers each request on each connection with the same bytes, and
// allocates nothing meanwhile.
func answerAll(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return answerOn(t, l, answer)
}

// answerOn is answerAll on a listener.
func answerOn(t *testing.T, l net.Listener, answer string) string {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf, out := make([]byte, 4096), []byte(answer)
				n := 0
				for {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						continue
					}
					n = 0
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

func TestTunnelDoesNotAllocate(t *testing.T) {
	r := start(t, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		buf := make([]byte, 100)
		for {
			n, err := in.Read(buf)
			if err != nil {
				return
			}
			_, _ = nc.Write(buf[:n])
		}
	})})
	nc, in, _ := upgrade(t, r, askWebSocket)
	message, buf := []byte("a message of a few bytes"), make([]byte, 24)
	pingPong := func() {
		_, _ = nc.Write(message)
		if _, err := io.ReadFull(in, buf); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		pingPong()
	}
	if allocs := testing.AllocsPerRun(1000, pingPong); allocs >= 1 {
		t.Errorf("%v allocations per message and its answer", allocs)
	}
}

func TestRewrittenRequestDoesNotAllocate(t *testing.T) {
	r := start(t, []string{answerAll(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")}, func(_ *mesh.Cluster, r *mesh.Route) {
		r.Action.Host, r.Action.Path = "b.example", "/another/path"
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	if allocs := allocationsPerRequest(t, c); allocs >= 1 {
		t.Errorf("%v allocations per request", allocs)
	}
}

func TestProxiedRequestDoesNotAllocate(t *testing.T) {
	for name, answer := range map[string]string{
		"with a length": "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
		"chunked":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			// A tracer that samples nothing edits the head of each request.
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
			r := startWith(t, func(c *proxy.Config) { c.Tracer, c.Access = tracer, log }, []string{answerAll(t, answer)})
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			// The collector may run meanwhile, and empty the pools: whole numbers only.
			if allocs := allocationsPerRequest(t, c); allocs >= 1 {
				t.Errorf("%v allocations per request", allocs)
			}
		})
	}
}

// Each attempt to read allocates once in crypto/tls: of the proxy one that finds nothing and
// one that does, on either side, and the look at the idle connection; of the test one at the client and
// one at the instance.
func TestProxiedRequestOverTLSAllocatesWhatCryptoTLSDoes(t *testing.T) {
	i := newIdentities(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{i.ca.Certificate("app.example")}}) //nolint:gosec // a test
	if err != nil {
		t.Fatal(err)
	}
	r := startWith(t, i.listen, []string{answerOn(t, l, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")}, i.upstream("app.example"))
	if allocs := allocationsPerRequest(t, i.dial(t, r.addr)); allocs >= 8 {
		t.Errorf("%v allocations per request", allocs)
	}
}

// allocationsPerRequest sends requests on a connection that is kept.
func allocationsPerRequest(t *testing.T, c net.Conn) float64 {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() })
	request := []byte("GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\nAccept: */*\r\n" +
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\r\n")
	buf := make([]byte, 4096)
	exchange := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], []byte("hello")) && !bytes.HasSuffix(buf[:n], []byte("0\r\n\r\n")); {
			m, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	}
	for range 100 {
		exchange()
	}
	return testing.AllocsPerRun(1000, exchange)
}
