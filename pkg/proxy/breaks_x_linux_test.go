//go:build linux && (amd64 || arm64)

package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// bulk is more than the kernel is left to carry.
const bulk = 1 << 20

// breaks resets a connection.
func breaks(nc *net.TCPConn) {
	_ = nc.SetLinger(0)
	_ = nc.Close()
}

// acknowledged waits until the peer's kernel has all that was sent.
func acknowledged(nc *net.TCPConn) {
	raw, err := nc.SyscallConn()
	for left := 1; left > 0 && err == nil; time.Sleep(time.Millisecond) {
		err = raw.Control(func(fd uintptr) { left = sockio.Unsent(fd) })
	}
}

// Whoever carries the bytes is told of the reset, and who reads next sees what looks like an end.
func TestASideThatBreaksATunnelInBulkBreaksIt(t *testing.T) {
	t.Run("the client", func(t *testing.T) {
		seen, came := make(chan error, 1), make(chan struct{})
		o := observe(t, unchanged, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, _ *net.TCPConn) {
			_, err := io.CopyN(io.Discard, in, bulk)
			close(came)
			_, err2 := in.ReadByte()
			seen <- errors.Join(err, err2)
		})})
		nc, _, _ := upgrade(t, o.rig, askWebSocket)
		_, _ = nc.Write(make([]byte, bulk))
		<-came
		breaks(nc)
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the instance sees %v", err)
		}
		if s := o.span("server"); s.Attributes["fairlead.reason"] != "client_gone" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the instance", func(t *testing.T) {
		o := observe(t, unchanged, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
			_, _ = nc.Write(make([]byte, bulk))
			_, _ = in.ReadByte()
			breaks(nc)
		})})
		nc, in, _ := upgrade(t, o.rig, askWebSocket)
		if n, err := io.CopyN(io.Discard, in, bulk); err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		_, _ = io.WriteString(nc, "x")
		if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
		if s := o.span("server"); s.Attributes["fairlead.reason"] != "response_broken" {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhatASlowClientHasNotReadYetOfATunnelIsNotLostToAReset(t *testing.T) {
	const n = 400_000
	r := start(t, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		_, _ = in.ReadByte()
		for range n / 1000 { // so little at once that it is not left to the kernel to carry
			_, _ = nc.Write(make([]byte, 1000))
			acknowledged(nc)
		}
		time.Sleep(100 * time.Millisecond) // until it was read
		breaks(nc)
	})})
	nc, in, _ := upgrade(t, r, askWebSocket)
	if err := nc.SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(nc, "x")
	time.Sleep(500 * time.Millisecond)
	if n, err := io.CopyN(io.Discard, in, n); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v", err)
	}
}

// Who writes the request's body may be told of the reset, and not who reads the response. A reset
// behind the end says only that no more of the request is taken.
func TestAResponseThatAResetEndsIsNotTakenForWhole(t *testing.T) {
	for name, one := range map[string]struct {
		ends  func(*net.TCPConn)
		tries int // it depends on who is told first
		whole bool
	}{
		"a reset":               {breaks, 30, false},
		"a reset behind an end": {func(nc *net.TCPConn) { _ = nc.CloseWrite(); _ = nc.Close() }, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listen(t, func(nc net.Conn) {
				q, err := http.ReadRequest(bufio.NewReader(nc))
				if err != nil {
					return // a connection that was not used
				}
				_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\nbytes")
				_, _ = io.CopyN(io.Discard, q.Body, 64<<10)
				one.ends(nc.(*net.TCPConn))
			})
			r := start(t, []string{addr})
			for range one.tries {
				nc := r.dial()
				_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n")
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					for block := make([]byte, 64<<10); ; {
						if _, err := nc.Write(block); err != nil {
							return
						}
					}
				}()
				got, _ := io.ReadAll(nc)
				if whole := strings.HasSuffix(string(got), "\r\n0\r\n\r\n"); whole != one.whole {
					t.Errorf("%q", got)
				}
				_ = nc.Close()
				<-stopped
			}
		})
	}
}

func TestWhatASlowOldClientHasNotReadYetOfAResponseIsNotLostToItsBreak(t *testing.T) {
	const n = 400_000
	r := start(t, []string{listen(t, func(nc net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
			return // a connection that was not used
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = nc.Write(make([]byte, n))
		acknowledged(nc.(*net.TCPConn))
		time.Sleep(200 * time.Millisecond) // until it was read
		breaks(nc.(*net.TCPConn))
	})})
	nc := r.dial().(*net.TCPConn)
	if err := nc.SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(nc, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	time.Sleep(700 * time.Millisecond)
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, resp.Body, n); err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}

// A client of HTTP/1.0 takes the end of the connection for that of the body.
func TestAResponseThatTheStopCutsOffIsNotTakenForWholeByAnOldClient(t *testing.T) {
	r := start(t, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.WriteString(w, "half")
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	})})
	nc := r.dial()
	_, _ = io.WriteString(nc, "GET / HTTP/1.0\r\nHost: a\r\n\r\n")
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, resp.Body, "half")
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.server.Drain(over)
	if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}
