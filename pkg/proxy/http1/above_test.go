package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// records is a layer above a socket: each piece is there after so many tries, and what is
// written is kept as it came.
type records struct {
	net.Conn // panics for what is not scripted
	pieces   []string
	waits    int // tries before each piece
	tried    int
	polls    int
	onWait   func()
	end      error
	written  []string
	fails    int // the write that fails, from 1; 0: none
	alive    bool
	gone     bool

	truncated bool
}

func (r *records) Poll(f func() bool) error {
	r.polls++
	for !f() {
		if r.onWait != nil {
			r.onWait()
		}
		if len(r.pieces) == 0 && r.end == nil {
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

func (r *records) Truncated() bool { return r.truncated }

func (r *records) TryRead(p []byte) (int, bool, error) {
	if r.tried++; r.tried <= r.waits || len(r.pieces) == 0 && r.end == nil {
		return 0, true, nil
	}
	r.tried = 0
	if len(r.pieces) == 0 {
		return 0, false, r.end
	}
	n := copy(p, r.pieces[0])
	if r.pieces[0] = r.pieces[0][n:]; r.pieces[0] == "" {
		r.pieces = r.pieces[1:]
	}
	return n, false, nil
}

func (r *records) Write(p []byte) (int, error) {
	r.written = append(r.written, string(p))
	if len(r.written) == r.fails {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func (r *records) Alive() bool    { return r.alive }
func (r *records) PeerGone() bool { return r.gone }
func (r *records) Pending() bool  { return len(r.pieces) > 0 }

func (*records) SetReadDeadline(time.Time) error { return nil }

func TestMessagesComeThroughALayerAboveASocket(t *testing.T) {
	for waits := range 3 {
		r := &records{waits: waits, end: io.EOF, pieces: []string{"GET / HT", "TP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", "llo", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"}}
		c := NewConn(r, Server, nil)
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil || string(h.Path) != "/" {
			t.Fatalf("%s, %v", h.Path, err)
		}
		var body strings.Builder
		for {
			p, err := c.Next()
			if err != nil {
				break
			}
			body.Write(p)
		}
		if body.String() != "hello" || c.EndExchange() != nil {
			t.Errorf("%d waits: %q", waits, body.String())
		}
		if err := c.ReadRequest(&h); err != nil || string(h.Path) != "/2" || c.EndExchange() != nil {
			t.Errorf("%d waits: %s, %v", waits, h.Path, err)
		}
		if err := c.Await(); !errors.Is(err, io.EOF) {
			t.Errorf("%d waits: at the end: %v", waits, err)
		}
		c.Release()
	}
}

// RFC 9112 §9.8: without the end that the layer itself says, a part of a body looks like all of it.
func TestABodyThatEndsWithTheConnectionIsWholeOnlyIfTheLayerSaysSo(t *testing.T) {
	const delimited = "HTTP/1.1 200 OK\r\n\r\nhello"
	const counted = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	for _, one := range []struct {
		message   string
		truncated bool
		want      error
	}{
		{delimited, false, io.EOF},
		{delimited, true, io.ErrUnexpectedEOF},
		{counted, true, io.EOF},
	} {
		r := &records{end: io.EOF, pieces: []string{one.message}, truncated: one.truncated}
		c := NewConn(r, Client, nil)
		var h wire.Head
		if err := c.ReadResponse(&h, false); err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		var err error
		for err == nil {
			var p []byte
			p, err = c.Next()
			body.Write(p)
		}
		if body.String() != "hello" || !errors.Is(err, one.want) {
			t.Errorf("%q, truncated %t: %q, %v", one.message, one.truncated, body.String(), err)
		}
		c.Release()
	}
}

func TestAnIdleConnectionAboveASocketHoldsNoBuffer(t *testing.T) {
	r := &records{waits: 1, end: io.EOF}
	c := NewConn(r, Server, nil)
	held := 0
	r.onWait = func() { held += len(c.head) }
	if err := c.Await(); !errors.Is(err, io.EOF) || held != 0 {
		t.Errorf("%v, and %d bytes were held", err, held)
	}
	// In the middle of a head it must hold what came.
	r.pieces, r.waits = []string{"GET / HTTP/1.1\r\n", "Host: a\r\n\r\n"}, 1
	var h wire.Head
	if err := c.ReadRequest(&h); err != nil || held == 0 {
		t.Errorf("%v, %d", err, held)
	}
	c.Release()
}

func TestADeadlineAboveASocketLosesNothing(t *testing.T) {
	r := &records{waits: 1, pieces: []string{"GET / HTTP/1.1\r\nHo"}}
	c := NewConn(r, Server, nil)
	defer c.Release()
	var h wire.Head
	if err := c.ReadRequest(&h); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	r.pieces = []string{"st: a\r\n\r\n"}
	if err := c.ReadRequest(&h); err != nil || string(h.Authority) != "a" {
		t.Errorf("%s, %v", h.Authority, err)
	}
}

// Each write is a record and a system call.
func TestHeadAndBodyGoInOneRecordAsFarAsTheyFit(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: "
	for _, one := range []struct {
		size    int
		records []int // sizes; -1: what is left
	}{
		{0, []int{-1}}, {100, []int{-1}}, {10_000, []int{-1}}, {16_000, []int{-1}}, {20_000, []int{maxRecord, -1}}, {100_000, []int{maxRecord, -1}},
	} {
		r := &records{}
		c := NewConn(r, Server, nil)
		body := strings.Repeat("x", one.size)
		h := wire.Head{Status: 200, ContentLength: int64(one.size)}
		if err := errors.Join(c.WriteHead(&h), c.WriteBody([]byte(body)), c.EndBody(nil), c.Flush()); err != nil {
			t.Fatal(err)
		}
		whole := strings.Join(r.written, "")
		if !strings.HasPrefix(whole, head) || !strings.HasSuffix(whole, "\r\n\r\n"+body) || int64(len(whole)) != c.Written() {
			t.Errorf("%d: %.60q, %d bytes", one.size, whole, len(whole))
		}
		var sizes []int
		for _, w := range r.written {
			sizes = append(sizes, len(w))
		}
		want := slices.Clone(one.records)
		left := len(whole)
		for i, n := range want {
			if n < 0 {
				want[i] = left
			}
			left -= want[i]
		}
		if !slices.Equal(sizes, want) {
			t.Errorf("%d: records of %v, want %v", one.size, sizes, want)
		}
		c.Release()
	}
}

func TestARecordThatWasNotWrittenWholeIsNotCounted(t *testing.T) {
	for fails, want := range map[int]int64{1: 0, 2: maxRecord} {
		r := &records{fails: fails}
		c := NewConn(r, Server, nil)
		h := wire.Head{Status: 200, ContentLength: 40_000}
		if err := errors.Join(c.WriteHead(&h), c.WriteBody(make([]byte, 40_000))); !errors.Is(err, io.ErrClosedPipe) || c.Written() != want {
			t.Errorf("write %d fails: %v", fails, err)
		}
		c.Release()
	}
}

func TestALayerIsAskedAboutItsPeer(t *testing.T) {
	r := &records{alive: true}
	c := NewConn(r, Client, nil)
	defer c.Release()
	if !c.Alive() || c.PeerGone() {
		t.Error("alive")
	}
	r.alive, r.gone = false, true
	if c.Alive() || !c.PeerGone() {
		t.Error("gone")
	}
	if c.Pending() {
		t.Error("nothing has come")
	}
	if r.pieces = []string{"x"}; !c.Pending() {
		t.Error("something has come")
	}
}

// RFC 9112 §3.2.2: a server accepts the absolute form. The scheme is the connection's, or http,
// by which a proxy is asked over TLS too.
func TestAbsoluteFormOverTLSMayNameHTTPS(t *testing.T) {
	for target, ok := range map[string]bool{
		"https://a/x": true, "HTTPS://a/x": true, "http://a/x": true, "https:///x": false, "https://": false, "https:/": false, "ftp://a/x": false, "httpx://a/x": false,
	} {
		for _, secure := range []bool{true, false} {
			raw := "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n"
			c := whole(raw)
			if secure {
				c = NewConn(&records{pieces: []string{raw}, end: io.EOF}, Server, nil)
			}
			var h wire.Head
			err := c.ReadRequest(&h)
			want := ok && (secure || target[4] == ':')
			if (err == nil) != want || want && (string(h.Authority) != "a" || string(h.Path) != "/x") {
				t.Errorf("%s, secure %t: %s %s, %v", target, secure, h.Authority, h.Path, err)
			}
			c.Release()
		}
	}
}
