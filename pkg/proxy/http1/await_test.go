package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

const simple = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// answerHere reads a request and answers it, as inPlace of Await may.
func answerHere(t *testing.T, c *Conn, h *wire.Head) {
	t.Helper()
	if err := c.ReadRequest(h); err != nil {
		t.Error(err)
	}
	answer := wire.Head{Status: 204, ContentLength: wire.NoLength}
	if err := errors.Join(c.Drain(above(100)), c.WriteHead(&answer), c.Flush(), c.EndExchange()); err != nil {
		t.Error(err)
	}
}

// counting counts how often the runtime calls one of a Conn's functions.
func counting(f func(uintptr) bool, calls *int) func(uintptr) bool {
	return func(fd uintptr) bool {
		*calls++
		return f(fd)
	}
}

func TestWhatIsAnsweredInPlaceIsFollowedByNoReadThatFindsNothing(t *testing.T) {
	nc, peer := sockets(t)
	c := NewConn(peer, Server, nil)
	defer c.Release()
	const n = 100
	go func() {
		defer func() { _ = nc.(*net.TCPConn).CloseWrite() }()
		answer := make([]byte, 100)
		for range n {
			if _, err := io.WriteString(nc, simple); err != nil {
				t.Error(err)
				return
			}
			if _, err := nc.Read(answer); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	calls, answered := 0, 0
	c.awaitFD = counting(c.awaitFD, &calls)
	var h wire.Head
	c.InPlace = func() bool {
		answerHere(t, c, &h)
		answered++
		return true
	}
	err := c.Await()
	if !errors.Is(err, io.EOF) || answered != n {
		t.Errorf("%d are answered, and then %v", answered, err)
	}
	// Each takes one call, and the end another. Some may find nothing: the one at the beginning, and where a wake-up was of
	// what had been read already.
	if calls > n+n/10 {
		t.Errorf("%d calls for %d requests", calls, n)
	}
}

func TestAwaitEndsWithWhatIsNotAnsweredInPlace(t *testing.T) {
	start := func(t *testing.T, sent string) (*Conn, net.Conn) {
		nc, peer := sockets(t)
		c := NewConn(peer, Server, nil)
		t.Cleanup(c.Release)
		if _, err := io.WriteString(nc, sent); err != nil {
			t.Fatal(err)
		}
		return c, nc
	}
	var h wire.Head
	t.Run("refused by inPlace", func(t *testing.T) {
		c, _ := start(t, simple)
		c.InPlace = func() bool { return false }
		if err := c.Await(); err != nil || string(c.Unread()) != simple {
			t.Errorf("%q, %v", c.Unread(), err)
		}
	})
	t.Run("pipelined behind it", func(t *testing.T) {
		c, _ := start(t, simple+simple)
		calls := 0
		c.InPlace = func() bool {
			calls++
			answerHere(t, c, &h)
			return true
		}
		err := c.Await()
		if err != nil || calls != 1 || string(c.Unread()) != simple {
			t.Errorf("%d calls, %q, %v", calls, c.Unread(), err)
		}
		c.InPlace = func() bool { t.Error("it was read before"); return true }
		if err := c.Await(); err != nil {
			t.Error(err)
		}
	})
	t.Run("as large as the buffer, so that there may be more", func(t *testing.T) {
		c, _ := start(t, simple+strings.Repeat(" ", 1<<20))
		c.InPlace = func() bool { t.Error("it is told"); return true }
		if err := c.Await(); err != nil || len(c.Unread()) != len(c.in) {
			t.Errorf("%d bytes, %v", len(c.Unread()), err)
		}
	})
	t.Run("a deadline", func(t *testing.T) {
		c, nc := start(t, simple)
		answered := 0
		c.InPlace = func() bool {
			answered++
			answerHere(t, c, &h)
			return true
		}
		if err := c.nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := c.Await(); !errors.Is(err, os.ErrDeadlineExceeded) || answered != 1 || c.head != nil {
			t.Errorf("%d answered, %d bytes held, %v", answered, len(c.head), err)
		}
		if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		// What came between the two is found.
		if _, err := io.WriteString(nc, simple); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) })
		if err := c.Await(); answered != 2 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d answered, %v", answered, err)
		}
	})
}

func TestBytesThatComeWhileOneIsAnsweredInPlaceAreNotMissed(t *testing.T) {
	nc, peer := sockets(t)
	c := NewConn(peer, Server, nil)
	defer c.Release()
	var h wire.Head
	answered := 0
	if _, err := io.WriteString(nc, simple); err != nil {
		t.Fatal(err)
	}
	c.InPlace = func() bool {
		if answered++; answered < 50 {
			if _, err := io.WriteString(nc, simple); err != nil { // behind what was read, before anybody waits
				t.Error(err)
			}
		} else if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
			t.Error(err)
		}
		answerHere(t, c, &h)
		return true
	}
	err := c.Await()
	if answered != 50 || !errors.Is(err, io.EOF) {
		t.Errorf("%d answered, %v", answered, err)
	}
}

func TestAskReadsOnceForAnAnswer(t *testing.T) {
	client, server := pair(t)
	defer client.Release()
	defer server.Release()
	served := make(chan error, 1)
	const n = 100
	go func() {
		var h wire.Head
		for range n {
			if err := server.ReadRequest(&h); err != nil {
				served <- err
				return
			}
			time.Sleep(100 * time.Microsecond) // so that no answer is there at once
			answer := wire.Head{Status: 200, ContentLength: 5}
			if err := errors.Join(server.EndExchange(), server.WriteHead(&answer), server.WriteBody([]byte("hello")), server.EndBody(nil), server.Flush()); err != nil {
				served <- err
				return
			}
		}
		served <- nil
	}()
	calls, reads := 0, 0
	client.askFD = counting(client.askFD, &calls)
	client.readFD = counting(client.readFD, &reads)
	request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
	var got wire.Head
	for range n {
		if err := errors.Join(client.WriteHead(&request), client.EndBody(nil), client.Ask()); err != nil {
			t.Fatal(err)
		}
		if err := client.ReadResponse(&got, false); err != nil || got.Status != 200 {
			t.Fatal(got.Status, err)
		}
		if body, err := readAll(client); err != nil || body != "hello" {
			t.Fatal(body, err)
		}
		if err := client.EndExchange(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if calls > 2*n+2 || reads > 0 { // to send, and to read; the beginning may wake it for nothing
		t.Errorf("%d calls and %d reads for %d requests", calls, reads, n)
	}
}

// unending reads zeros for ever.
type unending struct{}

func (unending) Read(p []byte) (int, error) { return len(p), nil }

func TestAskFailsAsFlushDoes(t *testing.T) {
	request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
	var got wire.Head
	t.Run("a peer that has answered and gone", func(t *testing.T) {
		nc, peer := sockets(t)
		c := NewConn(nc, Client, nil)
		defer c.Release()
		if _, err := io.WriteString(peer, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = peer.Close()
		for broken := false; !broken; { // until the kernel knows
			_, err := nc.Write([]byte("x"))
			broken = err != nil
		}
		if err := errors.Join(c.WriteHead(&request), c.Ask()); !errors.Is(err, syscall.EPIPE) || c.Written() != 0 {
			t.Errorf("asking: %v", err)
		}
		if err := c.ReadResponse(&got, false); err == nil && got.Status != 408 {
			t.Errorf("status %d", got.Status)
		}
	})
	t.Run("a connection that is closed meanwhile", func(t *testing.T) {
		nc, _ := sockets(t)
		c := NewConn(nc, Client, nil)
		defer c.Release()
		time.AfterFunc(20*time.Millisecond, func() { _ = nc.Close() })
		if err := errors.Join(c.WriteHead(&request), c.Ask()); err != nil || c.Written() == 0 {
			t.Errorf("the request was written: %v", err)
		}
		if err := c.ReadResponse(&got, false); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading: %v", err)
		}
	})
	t.Run("a deadline that has passed before", func(t *testing.T) {
		nc, peer := sockets(t)
		c := NewConn(nc, Client, nil)
		defer c.Release()
		if err := nc.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.WriteHead(&request), c.Ask()); err != nil {
			t.Errorf("the request can be written all the same: %v", err)
		}
		if err := c.ReadResponse(&got, false); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading: %v", err)
		}
		_ = nc.SetReadDeadline(time.Time{})
		if _, err := io.WriteString(peer, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadResponse(&got, false); err != nil || got.Status != 204 {
			t.Errorf("%d, %v", got.Status, err)
		}
	})
	t.Run("a peer that reads late", func(t *testing.T) {
		nc, peer := sockets(t)
		c := NewConn(nc, Client, nil)
		defer c.Release()
		_ = nc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		sent, err := io.Copy(nc, unending{}) // until the kernel takes no more
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		_ = nc.SetWriteDeadline(time.Time{})
		read := make(chan string, 1)
		go func() {
			time.Sleep(20 * time.Millisecond)
			_, _ = io.CopyN(io.Discard, peer, sent)
			head := make([]byte, 64)
			n, _ := io.ReadAtLeast(peer, head, len(simple))
			read <- string(head[:n])
			_, _ = io.WriteString(peer, "HTTP/1.1 204 No Content\r\n\r\n")
		}()
		if err := errors.Join(c.WriteHead(&request), c.Ask()); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadResponse(&got, false); err != nil || got.Status != 204 {
			t.Errorf("%d, %v", got.Status, err)
		}
		if text := <-read; text != simple {
			t.Errorf("%q", text)
		}
	})
}

func TestAnAnswerIsWaitedForWithoutTheBufferOfTheRequest(t *testing.T) {
	nc, peer := sockets(t)
	c := NewConn(nc, Client, nil)
	defer c.Release()
	waits, ask := 0, c.askFD
	c.askFD = func(fd uintptr) bool {
		if ask(fd) {
			return true
		}
		waits++
		if c.out != nil || c.head != nil {
			t.Error("a buffer is held")
		}
		return false
	}
	answer := time.AfterFunc(20*time.Millisecond, func() { _, _ = io.WriteString(peer, "HTTP/1.1 204 No Content\r\n\r\n") })
	defer answer.Stop()
	request := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
	if err := errors.Join(c.WriteHead(&request), c.Ask()); err != nil || waits == 0 {
		t.Errorf("%v, after %d waits", err, waits)
	}
	var got wire.Head
	if err := c.ReadResponse(&got, false); err != nil || got.Status != 204 {
		t.Errorf("%d, %v", got.Status, err)
	}
}
