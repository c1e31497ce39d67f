package http1

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestATunnelReadsFirstWhatCameBehindTheHead(t *testing.T) {
	for _, pieces := range [][][]byte{split(get("") + "one two"), split(get("")+"one two", len(get(""))+4), dripped(get("") + "one two")} {
		c := NewConn(&script{pieces: pieces}, Server, nil)
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		c.Tunnel()
		if got, err := readAll(c); got != "one two" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if textOf(&h) != "GET|a|/|Host:a" {
			t.Errorf("the head has become %q", textOf(&h))
		}
		if c.EndExchange() == nil {
			t.Error("another request is looked for")
		}
		c.Release()
	}
}

func TestATunnelWritesBytesAsTheyAre(t *testing.T) {
	s := &script{pieces: split(get(""))}
	c := NewConn(s, Server, nil)
	defer c.Release()
	var h wire.Head
	if err := c.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	answer := wire.Head{Status: 101, ContentLength: wire.NoLength}
	if err := c.WriteHead(&answer); err != nil {
		t.Fatal(err)
	}
	c.Tunnel()
	for _, p := range []string{"a", "", "0\r\n\r\n"} {
		if err := c.WriteBody([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "HTTP/1.1 101 Switching Protocols\r\n\r\na0\r\n\r\n"; string(s.sent) != want {
		t.Errorf("%q, want %q", s.sent, want)
	}
}

func TestATunnelHoldsNoBufferWhileItIsSilentAndEndsEachHalfByItself(t *testing.T) {
	accepted, dialled := sockets(t)
	near, far := accepted.(*net.TCPConn), dialled.(*net.TCPConn)
	c := NewConn(near, Server, nil)
	defer c.Release()
	_, _ = io.WriteString(far, get(""))
	var h wire.Head
	if err := c.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	if c.ReadSocket() != nil || c.WriteSocket() != nil {
		t.Error("it gives its socket away while it speaks HTTP")
	}
	c.Tunnel()
	for range 3 {
		got := make(chan string)
		go func() {
			p, err := c.Next()
			if err != nil {
				t.Error(err)
			}
			got <- string(p)
		}()
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(far, "hello")
		if p := <-got; p != "hello" {
			t.Errorf("%q", p)
		}
	}
	if c.ReadSocket() != near || c.WriteSocket() != near {
		t.Error("nothing waits, and the socket is not to be had")
	}
	if err := c.WriteBody([]byte("x")); err != nil || c.WriteSocket() != nil {
		t.Errorf("%v; a byte waits, and the socket is to be had", err)
	}
	_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Next(); err == nil || c.in != nil {
		t.Errorf("%v; silent, it holds %d bytes", err, len(c.in))
	}
	_ = near.SetReadDeadline(time.Time{})
	if err := c.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	if all, err := io.ReadAll(far); string(all) != "x" || err != nil {
		t.Errorf("%q, %v", all, err)
	}
	_, _ = io.WriteString(far, "last")
	_ = far.CloseWrite()
	if got, err := readAll(c); got != "last" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("then %v", err)
	}
}

// RFC 9110 §9.3.6: "A server MUST NOT send any Transfer-Encoding or Content-Length header
// fields in a 2xx (Successful) response to CONNECT."
func TestAnswerToConnectIsFramedUnlessItIsATunnel(t *testing.T) {
	for want, answer := range map[string]wire.Head{
		"HTTP/1.1 200 OK\r\n\r\n":                             {Status: 200, ContentLength: wire.NoLength},
		"HTTP/1.1 204 No Content\r\n\r\n":                     {Status: 204, ContentLength: 5, Close: true},
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n": {Status: 403},
	} {
		s := &script{pieces: split("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")}
		c := NewConn(s, Server, nil)
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.WriteHead(&answer), c.Flush()); err != nil || string(s.sent) != want {
			t.Errorf("%q, %v, want %q", s.sent, err, want)
		}
		c.Release()
	}
}
