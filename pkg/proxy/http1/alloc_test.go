package http1

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// endless is a peer that sends the same pieces, one per read, over and over, and
// takes whatever is written.
type endless struct {
	net.Conn // panics for what is not scripted
	pieces   [][]byte
	next     int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.pieces[e.next])
	e.next = (e.next + 1) % len(e.pieces)
	return n, nil
}

func (e *endless) Write(p []byte) (int, error) { return len(p), nil }

// typical is a request as a service sends it through the mesh.
const typical = "Host: orders.default:8080\r\nUser-Agent: Go-http-client/1.1\r\nAccept: */*\r\nConnection: keep-alive\r\n" +
	"Accept-Encoding: gzip\r\nAuthorization: Bearer eyJhbGciOiJIUzI1NiJ9\r\n" +
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Request-Id: 4711\r\n"

func requestsToRead() map[string][]string {
	head := "POST /v1/orders?limit=10 HTTP/1.1\r\n" + typical
	return map[string][]string{
		"no body":                     {"GET /v1/orders HTTP/1.1\r\n" + typical + "\r\n"},
		"absolute-form":               {"GET http://orders/v1 HTTP/1.1\r\n" + typical + "\r\n"},
		"length, with the head":       {head + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", 100)},
		"length, behind the head":     {head + "Content-Length: 100\r\n\r\n", strings.Repeat("x", 100)},
		"length, in a buffer its own": {head + "Content-Length: 40000\r\n\r\n", strings.Repeat("x", 20_000), strings.Repeat("y", 20_000)},
		"chunked, with the head":      {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5;x=y\r\nworld\r\n0\r\n\r\n"},
		"chunked, in pieces":          {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhe", "llo\r\n5\r", "\nworld\r\n0\r\n", "\r\n"},
		"a head in pieces":            {head[:20], head[20:], "Content-Length: 0\r\n\r", "\n"},
		"a head of 10 kB":             {head + "X: ", strings.Repeat("x", 2000), strings.Repeat("y", 8000), "\r\n\r\n"},
	}
}

func answersToRead() map[string][]string {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nServer: x\r\n"
	return map[string][]string{
		"no body":                 {"HTTP/1.1 204 No Content\r\n\r\n"},
		"length, with the head":   {head + "Content-Length: 100\r\n\r\n" + strings.Repeat("x", 100)},
		"length, behind the head": {head + "Content-Length: 40000\r\n\r\n", strings.Repeat("x", 20_000), strings.Repeat("y", 20_000)},
		"chunked, with the head":  {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"chunked, in pieces":      {head + "Transfer-Encoding: chunked\r\n\r\n4e20\r\n", strings.Repeat("x", 20_000), "\r\n5\r\nhello\r\n", "0\r\n\r\n"},
		"behind interim ones":     {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head + "Content-Length: 0\r\n\r\n"},
	}
}

func toPieces(texts []string) [][]byte {
	var pieces [][]byte
	for _, text := range texts {
		pieces = append(pieces, []byte(text))
	}
	return pieces
}

// assertNoAllocations runs what is to be done once per exchange on a connection
// that is kept alive.
func assertNoAllocations(t *testing.T, exchange func() error) {
	t.Helper()
	if underRace {
		t.Skip("the race detector empties pools")
	}
	if n := testing.AllocsPerRun(1000, func() {
		if err := exchange(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per exchange", n)
	}
}

// readBody takes a body as it comes.
func readBody(c *Conn) error {
	for {
		if _, err := c.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestReadingARequestAllocatesNothing(t *testing.T) {
	for name, texts := range requestsToRead() {
		for how, take := range map[string]func(*Conn) error{
			"by Next":  readBody,
			"by Whole": func(c *Conn) error { c.Whole(); return readBody(c) },
			"by Drain": func(c *Conn) error { return c.Drain(above(1 << 20)) },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				c := NewConn(&endless{pieces: toPieces(texts)}, Server, nil)
				defer c.Release()
				var h wire.Head
				assertNoAllocations(t, func() error {
					if err := c.ReadRequest(&h); err != nil {
						return err
					}
					wire.RemoveHopByHop(&h)
					if err := take(c); err != nil {
						return err
					}
					return c.EndExchange()
				})
			})
		}
	}
}

func TestReadingAResponseAllocatesNothing(t *testing.T) {
	for name, texts := range answersToRead() {
		t.Run(name, func(t *testing.T) {
			c := NewConn(&endless{pieces: toPieces(texts)}, Client, nil)
			defer c.Release()
			var h wire.Head
			assertNoAllocations(t, func() error {
				h.Reset()
				for h.Status < 200 {
					if err := c.ReadResponse(&h, false); err != nil {
						return err
					}
				}
				if err := readBody(c); err != nil {
					return err
				}
				return c.EndExchange()
			})
		})
	}
}

// heads are what the two roles write, by how the body is framed.
func headsToWrite(t *testing.T, role Role) map[string]wire.Head {
	t.Helper()
	of := func(raw string) wire.Head {
		var h wire.Head
		if err := whole(raw).ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		if role == Server {
			h.Method, h.Authority, h.Path, h.Status = nil, nil, nil, 200
		}
		return h
	}
	return map[string]wire.Head{
		"no body": of("GET /v1/orders HTTP/1.1\r\n" + typical + "Content-Length: 0\r\n\r\n"),
		"length":  of("POST /v1/orders HTTP/1.1\r\n" + typical + "TE: trailers\r\nContent-Length: 9000\r\n\r\n"),
		"chunked": of("POST /v1/orders HTTP/1.1\r\n" + typical + "Transfer-Encoding: chunked\r\n\r\n"),
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	const size = 9000
	for name, role := range map[string]Role{"a request": Client, "a response": Server} {
		for framing, h := range headsToWrite(t, role) {
			for how, piece := range map[string]int{"in small pieces": 100, "in large ones": 4500} {
				t.Run(name+", "+framing+", "+how, func(t *testing.T) {
					c := NewConn(&endless{}, role, nil)
					defer c.Release()
					body := make([]byte, size)
					assertNoAllocations(t, func() error {
						if err := c.WriteHead(&h); err != nil {
							return err
						}
						for i := 0; i < size && (h.Streamed || h.ContentLength > 0); i += piece {
							if err := c.WriteBody(body[i : i+piece]); err != nil {
								return err
							}
						}
						if err := c.EndBody(nil); err != nil {
							return err
						}
						return c.Flush()
					})
				})
			}
		}
	}
}
