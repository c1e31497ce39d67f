package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// sockets are the two ends of a TCP connection.
func sockets(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// pair speaks HTTP/1.1 on both ends of a TCP connection.
func pair(t *testing.T) (client, server *Conn) {
	t.Helper()
	c, s := sockets(t)
	return NewConn(c, Client, nil), NewConn(s, Server, nil)
}

// exchange is one request with its answer, all from one goroutine: both are small
// enough for the kernel's buffers.
func exchange(client, server *Conn, request, response, got *wire.Head, body []byte) error {
	if err := errors.Join(client.WriteHead(request), client.WriteBody(body), client.EndBody(nil), client.Flush()); err != nil {
		return err
	}
	if err := server.ReadRequest(got); err != nil {
		return err
	}
	if err := readBody(server); err != nil {
		return err
	}
	if err := server.EndExchange(); err != nil {
		return err
	}
	if err := errors.Join(server.WriteHead(response), server.WriteBody(body), server.EndBody(nil), server.Flush()); err != nil {
		return err
	}
	if err := client.ReadResponse(got, false); err != nil {
		return err
	}
	if err := readBody(client); err != nil {
		return err
	}
	return client.EndExchange()
}

func TestAnExchangeOverTCPAllocatesNothing(t *testing.T) {
	for name, length := range map[string]int64{"length": 9000, "chunked": wire.NoLength} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			defer client.Release()
			defer server.Release()
			var got wire.Head
			request := wire.Head{Method: []byte("POST"), Authority: []byte("a"), Path: []byte("/"), ContentLength: length, Streamed: length < 0}
			response := wire.Head{Status: 200, ContentLength: length}
			body := make([]byte, 9000)
			assertNoAllocations(t, func() error { return exchange(client, server, &request, &response, &got, body) })
		})
	}
}

func TestAnIdleConnectionHoldsNoBuffer(t *testing.T) {
	client, server := pair(t)
	var got wire.Head
	request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
	response := wire.Head{Status: 200, ContentLength: 0}
	for range 2 {
		if err := exchange(client, server, &request, &response, &got, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Waiting for the next request must not take one either.
	if err := server.nc.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := server.ReadRequest(&got); !os.IsTimeout(err) {
		t.Fatalf("waiting: %v", err)
	}
	for name, c := range map[string]*Conn{"client": client, "server": server} {
		if c.head != nil || c.in != nil || c.out != nil {
			t.Errorf("the %s holds %d, %d and %d bytes", name, len(c.head), len(c.in), cap(c.out))
		}
	}
	if err := server.nc.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := exchange(client, server, &request, &response, &got, nil); err != nil {
		t.Errorf("after that: %v", err)
	}
}

func TestATimeOutOverTCPLosesNothing(t *testing.T) {
	nc, peer := sockets(t)
	server := NewConn(peer, Server, nil)
	var h wire.Head
	raw := chunkedHead + "5\r\nhello\r\n0\r\nX: 1\r\n\r\n"
	var body strings.Builder
	headRead := false
	for i := range len(raw) {
		if err := peer.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if headRead {
			p, err := server.Next()
			body.Write(p)
			if err != nil && !os.IsTimeout(err) {
				t.Fatalf("before byte %d: %v", i, err)
			}
		} else if err := server.ReadRequest(&h); err == nil {
			headRead = true
		} else if !os.IsTimeout(err) {
			t.Fatalf("before byte %d: %v", i, err)
		}
		if _, err := nc.Write([]byte{raw[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := peer.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	rest, err := readAll(server)
	if body.WriteString(rest); err != nil || body.String() != "hello" || textOf(&h) != "POST|a|/|Host:a" {
		t.Errorf("%q, %v, head %q", body.String(), err, textOf(&h))
	}
	if err := server.EndExchange(); err != nil {
		t.Error(err)
	}
}

// eventually waits for what another end of a connection must bring about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestAliveIsAnIdleConnectionThatStayedSilent(t *testing.T) {
	nc, peer := sockets(t)
	c := NewConn(nc, Client, nil)
	if !c.Alive() || c.PeerGone() {
		t.Fatal("a new connection is not alive")
	}
	if _, err := peer.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer that nobody asked for goes unnoticed", func() bool { return !c.Alive() })
	if c.PeerGone() {
		t.Error("who sends is not gone")
	}
}

func TestConnectionOnWhichMoreThanTheAnswerCameIsNotAlive(t *testing.T) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for raw, want := range map[string]bool{answer: true, answer + "H": false, answer + answer: false} {
		c := answers(raw)
		var h wire.Head
		if err := c.ReadResponse(&h, false); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(c); got != "ok" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if err := c.EndExchange(); err != nil || c.Alive() != want {
			t.Errorf("%q: alive %t, %v", raw, c.Alive(), err)
		}
	}
}

func TestPeerGoneIsTheEndOfTheStreamOrAReset(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn) error{
		"closed":      func(p *net.TCPConn) error { return p.Close() },
		"half-closed": func(p *net.TCPConn) error { return p.CloseWrite() },
		"reset":       func(p *net.TCPConn) error { return errors.Join(p.SetLinger(0), p.Close()) },
	} {
		nc, peer := sockets(t)
		c := NewConn(nc, Server, nil)
		if c.PeerGone() {
			t.Errorf("%s: gone before", name)
		}
		if err := leave(peer.(*net.TCPConn)); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+" goes unnoticed", func() bool { return c.PeerGone() && !c.Alive() })
		var h wire.Head
		// The kernel tells of a reset once, and PeerGone has asked.
		if err := c.ReadRequest(&h); !errors.Is(err, io.EOF) {
			t.Errorf("%s: reading says %v", name, err)
		}
	}
	nc, _ := sockets(t)
	c := NewConn(nc, Server, nil)
	if err := nc.Close(); err != nil {
		t.Fatal(err)
	}
	if c.Alive() || !c.PeerGone() {
		t.Error("a connection closed on this side passes for alive")
	}
}

func TestPipelinedBytesKeepTheirPlace(t *testing.T) {
	nc, peer := sockets(t)
	c := NewConn(peer, Server, nil)
	if _, err := io.WriteString(nc, pipeline); err != nil {
		t.Fatal(err)
	}
	if err := nc.Close(); err != nil {
		t.Fatal(err)
	}
	var h wire.Head
	for _, want := range []string{"/1", "/2", "/3", "/4", "/5"} {
		if err := c.Await(); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadRequest(&h); err != nil || string(h.Path) != want {
			t.Fatalf("%s: %q, %v", want, h.Path, err)
		}
		if err := errors.Join(c.Drain(above(100)), c.EndExchange()); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Await(); !errors.Is(err, io.EOF) || c.Begun() {
		t.Errorf("at the end: %v", err)
	}
}
