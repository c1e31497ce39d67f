package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

const chunkedHead = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

func TestBodyThatCameWithTheHeadIsTakenWhole(t *testing.T) {
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct{ raw, want string }{
		{get(""), ""},
		{post("Content-Length: 0\r\n"), ""},
		{post("Content-Length: 5\r\n") + "hello", "hello"},
		{chunkedHead + "0\r\n\r\n", ""},
		{chunkedHead + "5\r\nhello\r\n0\r\n\r\n", "hello"},
		{chunkedHead + "1\r\nh\r\n3;x=y\r\nell\r\n1\r\no\r\n0\r\nX: 1\r\n\r\n", "hello"},
		{chunkedHead + "6\r\n\r\n0\r\n\r\r\n0\r\n\r\n", "\r\n0\r\n\r"},
	} {
		for _, behind := range []string{"", next, next[:5]} {
			conn := whole(c.raw + behind)
			var h wire.Head
			if err := conn.ReadRequest(&h); err != nil {
				t.Fatal(err)
			}
			head := textOf(&h)
			body, ok := conn.Whole()
			if !ok || string(body) != c.want {
				t.Errorf("%q: %q, %t", c.raw, body, ok)
				continue
			}
			if _, err := conn.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("%q: Next after Whole: %v", c.raw, err)
			}
			if textOf(&h) != head || string(body) != c.want {
				t.Errorf("%q: head or body were overwritten: %q, %q", c.raw, textOf(&h), body)
			}
			if err := conn.EndExchange(); err != nil {
				t.Fatal(err)
			}
			if behind == next {
				if err := conn.ReadRequest(&h); err != nil || string(h.Path) != "/next" {
					t.Errorf("%q: the next request: %q, %v", c.raw, h.Path, err)
				}
			}
		}
	}
}

func TestBodyThatIsNotAllHereIsNotTaken(t *testing.T) {
	for _, raw := range []string{
		post("Content-Length: 5\r\n") + "hell|o",
		chunkedHead + "|5\r\nhello\r\n0\r\n\r\n",
		chunkedHead + "5\r\nhel|lo\r\n0\r\n\r\n",
		chunkedHead + "5\r\nhello|\r\n0\r\n\r\n",
		chunkedHead + "5\r\nhello\r|\n0\r\n\r\n",
		chunkedHead + "5\r\nhello\r\n|0\r\n\r\n",
		chunkedHead + "5\r\nhello\r\n0|\r\n\r\n",
		chunkedHead + "5\r\nhello\r\n0\r\n|\r\n",
		chunkedHead + "5\r\nhello\r\n0\r\n\r|\n",
		chunkedHead + "5\r\nhello\r\n0\r\nX: 1\r\n|\r\n",
		chunkedHead + "5\r\nhello\r\n0\r\nX: 1|2\r\n\r\n",
	} {
		before, _, _ := strings.Cut(raw, "|")
		conn := NewConn(&script{pieces: split(strings.Replace(raw, "|", "", 1), len(before))}, Server, nil)
		var h wire.Head
		if err := conn.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if p, ok := conn.Whole(); ok {
			t.Errorf("%q: taken whole, as %q", raw, p)
		}
		if body, err := readAll(conn); body != "hello" || err != nil {
			t.Errorf("%q: then %q, %v", raw, body, err)
		}
		if err := conn.EndExchange(); err != nil {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestHeadOutlivesItsBody(t *testing.T) {
	for _, headSize := range []int{100, 2000, 4000, 4090, 5000, 20_000, 31 << 10, 59 << 10} {
		for _, bodySize := range []int{0, 1, 100, 3000, 5000, 40_000, 200_000} {
			pad := strings.Repeat("p", headSize-len(post("X: \r\nContent-Length: 123456\r\n")))
			body := strings.Repeat("0123456789", bodySize/10+1)[:bodySize]
			var chunks strings.Builder
			for rest := body; rest != ""; {
				n := min(len(rest), 777)
				fmt.Fprintf(&chunks, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			chunks.WriteString("0\r\n\r\n")
			for name, raw := range map[string]string{
				"length":  post(fmt.Sprintf("X: %s\r\nContent-Length: %d\r\n", pad, bodySize)) + body,
				"chunked": post(fmt.Sprintf("X: %s\r\nTransfer-Encoding: chunked\r\n", pad)) + chunks.String(),
			} {
				c := whole(raw + get("Y: 1\r\n"))
				var h wire.Head
				if err := c.ReadRequest(&h); err != nil {
					t.Fatalf("head %d, body %d, %s: %v", headSize, bodySize, name, err)
				}
				before := textOf(&h)
				got, err := readAll(c)
				if err != nil || got != body {
					t.Errorf("head %d, body %d, %s: %d bytes, %v", headSize, bodySize, name, len(got), err)
				}
				if textOf(&h) != before {
					t.Errorf("head %d, body %d, %s: the head was overwritten", headSize, bodySize, name)
				}
				if err := c.EndExchange(); err != nil {
					t.Fatal(err)
				}
				if err := c.ReadRequest(&h); err != nil || textOf(&h) != "GET|a|/|Host:a|Y:1" {
					t.Errorf("head %d, body %d, %s: the next: %q, %v", headSize, bodySize, name, textOf(&h), err)
				}
				c.Release()
			}
		}
	}
}

func TestReadyOnlyIfNextHasSomethingToSay(t *testing.T) {
	// After each piece was taken, Next would wait for the following one, though
	// bytes of the coding are here already: who relays must flush before that.
	for _, pieces := range [][]string{
		{"5\r\nhello\r\n", "5\r\nworld\r\n", "0\r\n\r\n"},
		{"5\r\nhello\r", "\n5\r\nworld", "\r\n0\r\n\r\n"},
		{"5\r\nhello\r\n5", "\r\nworld\r\n0", "\r\n\r\n"},
		{"5\r\nhello\r\n5\r\n", "world\r\n0\r\nX: 1", "\r\n\r\n"},
		{"5\r\nhello\r\n5;x", "y\r\nworld\r\n0\r\nX: 1\r\n", "\r\n"},
	} {
		s := &script{pieces: split(chunkedHead)}
		c := NewConn(s, Server, nil)
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, piece := range pieces {
			if c.Ready() {
				t.Errorf("%q: ready before %q came", pieces, piece)
			}
			s.pieces = split(piece)
			p, err := c.Next()
			if c.Ready(); err == nil {
				got = append(got, string(p)) // asking must not spoil it
			}
		}
		if !c.Ready() || strings.Join(got, "") != "helloworld" {
			t.Errorf("%q: got %q, at the end ready is %t", pieces, got, c.Ready())
		}
	}
}

func TestDrainStopsAtItsLimit(t *testing.T) {
	for _, c := range []struct {
		size  int
		limit int64
		ok    bool
	}{{0, 0, true}, {10, 10, true}, {11, 10, false}, {100_000, 100_000, true}, {100_000, 50_000, false}} {
		conn := whole(post(fmt.Sprintf("Content-Length: %d\r\n", c.size)) + strings.Repeat("x", c.size))
		var h wire.Head
		if err := conn.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if err := conn.Drain(above(c.limit)); (err == nil) != c.ok {
			t.Errorf("%d bytes, limit %d: %v", c.size, c.limit, err)
		}
	}
}

// above makes Drain fail once more than limit bytes have come.
func above(limit int64) func(int64) bool {
	return func(come int64) bool { return come > limit }
}
