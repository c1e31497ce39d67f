package http1

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// answering is a server's connection that has read a request of that kind.
func answering(t *testing.T, raw string) (*Conn, *script) {
	t.Helper()
	s := &script{pieces: split(raw)}
	c := NewConn(s, Server, nil)
	var h wire.Head
	if err := c.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestFramingOfAResponse(t *testing.T) {
	const (
		toGet  = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
		toHead = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
		to10   = "GET / HTTP/1.0\r\n\r\n"
	)
	for _, c := range []struct {
		rule, request string
		head          wire.Head
		body          string // written, if it may be
		want          string
	}{
		{"RFC 9112 §6.2: a known length", toGet, wire.Head{Status: 200, ContentLength: 2}, "hi",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"},
		{"an empty body is told", toGet, wire.Head{Status: 200, ContentLength: 0}, "",
			"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"RFC 9112 §6.1: no known length", toGet, wire.Head{Status: 200, ContentLength: wire.NoLength}, "hi",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"RFC 9112 §6.1: no chunks to HTTP/1.0, whose body ends with the connection", to10, wire.Head{Status: 200, ContentLength: wire.NoLength, Streamed: true}, "hi",
			"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"},
		{"RFC 9112 §9.3: an HTTP/1.0 client is told that the connection stays", to10, wire.Head{Status: 200, ContentLength: 2}, "hi",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nhi"},
		{"RFC 9112 §9.6: and everyone that it does not", toGet, wire.Head{Status: 200, ContentLength: 2, Close: true}, "hi",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"},
		{"RFC 9110 §9.3.2: to HEAD the length, but no body", toHead, wire.Head{Status: 200, ContentLength: 2}, "",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"},
		{"RFC 9112 §6.3, 1: to HEAD no body, however framed", toHead, wire.Head{Status: 200, ContentLength: wire.NoLength, Streamed: true}, "",
			"HTTP/1.1 200 OK\r\n\r\n"},
		{"RFC 9110 §8.6: no length in a 204", toGet, wire.Head{Status: 204, ContentLength: 0}, "",
			"HTTP/1.1 204 No Content\r\n\r\n"},
		{"RFC 9112 §6.1: no coding in a 204", toGet, wire.Head{Status: 204, ContentLength: wire.NoLength, Streamed: true}, "",
			"HTTP/1.1 204 No Content\r\n\r\n"},
		{"RFC 9110 §15.4.5: a 304 may tell the length of what it does not send", toGet, wire.Head{Status: 304, ContentLength: 9}, "",
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"},
		{"RFC 9110 §15.2: an interim one has no framing", toGet, wire.Head{Status: 103, ContentLength: wire.NoLength, Reason: []byte("Early Hints")}, "",
			"HTTP/1.1 103 Early Hints\r\n\r\n"},
		{"RFC 9112 §4: the reason is passed on, and may be empty", toGet, wire.Head{Status: 299, ContentLength: 0, Reason: []byte("Fine é")}, "",
			"HTTP/1.1 299 Fine é\r\nContent-Length: 0\r\n\r\n"},
		{"RFC 9112 §4: its space stays without it", toGet, wire.Head{Status: 299, ContentLength: 0}, "",
			"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
	} {
		conn, s := answering(t, c.request)
		if err := conn.WriteHead(&c.head); err != nil {
			t.Fatalf("%s: %v", c.rule, err)
		}
		if c.body != "" {
			if err := conn.WriteBody([]byte(c.body)); err != nil {
				t.Errorf("%s: %v", c.rule, err)
			}
		} else if err := conn.WriteBody([]byte("x")); err == nil && c.head.Status >= 200 {
			t.Errorf("%s: a body is written where there is none", c.rule)
			continue
		}
		if c.head.ContentLength == 0 && c.head.Status != 204 {
			// What was refused above counts: the connection is to be closed.
			if err := conn.EndBody(nil); err == nil {
				t.Errorf("%s: more than was announced goes unnoticed", c.rule)
			}
		} else if err := conn.EndBody(nil); err != nil {
			t.Errorf("%s: %v", c.rule, err)
		}
		if err := conn.Flush(); err != nil || string(s.sent) != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.rule, err, s.sent, c.want)
		}
		if n := conn.Written(); n != int64(len(s.sent)) || conn.Written() != 0 {
			t.Errorf("%s: %d bytes told, %d written", c.rule, n, len(s.sent))
		}
		if strings.Contains(c.want, "Connection: close") != c.head.Close {
			t.Errorf("%s: close is %t", c.rule, c.head.Close)
		}
	}
}

func TestHeadsThatWouldBeReadAsOthersAreNotWritten(t *testing.T) {
	field := func(name, value string) []wire.Field {
		return []wire.Field{{Name: []byte(name), Value: []byte(value), ID: wire.Lookup([]byte(name))}}
	}
	request := func(change func(*wire.Head)) wire.Head {
		h := wire.Head{Method: []byte("GET"), Authority: []byte("a"), Path: []byte("/"), ContentLength: wire.NoLength}
		change(&h)
		return h
	}
	for what, h := range map[string]wire.Head{
		"a value with a line's end":    request(func(h *wire.Head) { h.Fields = field("X", "1\r\nY: 2") }),
		"a value with LF":              request(func(h *wire.Head) { h.Fields = field("X", "1\n") }),
		"a value with NUL":             request(func(h *wire.Head) { h.Fields = field("X", "\x00") }),
		"a name with a colon":          request(func(h *wire.Head) { h.Fields = field("X: 1\r\nY", "2") }),
		"a name with a space":          request(func(h *wire.Head) { h.Fields = field("X ", "2") }),
		"no name":                      request(func(h *wire.Head) { h.Fields = field("", "2") }),
		"HTTP/2's :path":               request(func(h *wire.Head) { h.Fields = field(":path", "/") }),
		"a Content-Length of its own":  request(func(h *wire.Head) { h.Fields = field("content-length", "5") }),
		"a Transfer-Encoding likewise": request(func(h *wire.Head) { h.Fields = field("Transfer-Encoding", "chunked") }),
		"a method with a space":        request(func(h *wire.Head) { h.Method = []byte("GET /smuggled") }),
		"no method":                    request(func(h *wire.Head) { h.Method = nil }),
		"a target with a space":        request(func(h *wire.Head) { h.Path = []byte("/ HTTP/1.1\r\nX: ") }),
		"a target with a line's end":   request(func(h *wire.Head) { h.Path = []byte("/\r\n") }),
		"no target at all":             request(func(h *wire.Head) { h.Path, h.Authority = nil, nil }),
		"an authority with a new line": request(func(h *wire.Head) { h.Authority = []byte("a\r\nX: 1") }),
	} {
		s := &script{}
		c := NewConn(s, Client, nil)
		if err := c.WriteHead(&h); !errors.Is(err, errUnsendable) {
			t.Errorf("%s: %v", what, err)
		}
		if err := c.Flush(); err != nil || len(s.sent) > 0 {
			t.Errorf("%s: %q was written, %v", what, s.sent, err)
		}
	}
	for what, h := range map[string]wire.Head{
		"a reason with a line's end": {Status: 200, Reason: []byte("OK\r\nX: 1")},
		"a status of two digits":     {Status: 99},
		"a status of four":           {Status: 1000},
		"a length of its own":        {Status: 200, Fields: field("Content-Length", "5")},
	} {
		c, s := answering(t, get(""))
		if err := c.WriteHead(&h); !errors.Is(err, errUnsendable) {
			t.Errorf("%s: %v", what, err)
		}
		if err := c.Flush(); err != nil || len(s.sent) > 0 {
			t.Errorf("%s: %q was written, %v", what, s.sent, err)
		}
	}
}

func TestARequestAlwaysHasOneHostAndNamesItsTEAndItsLength(t *testing.T) {
	for raw, want := range map[string]string{
		get(""):                               "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n":              "GET / HTTP/1.1\r\nHost: \r\n\r\n",
		"GET / HTTP/1.1\r\nHost:\r\n\r\n":     "GET / HTTP/1.1\r\nHost: \r\n\r\n",
		"GET http://b/c HTTP/1.0\r\n\r\n":     "GET /c HTTP/1.1\r\nHost: b\r\n\r\n",
		"CONNECT b:1 HTTP/1.0\r\n\r\n":        "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n",
		get("TE: trailers\r\n"):               "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", // RFC 9110 §10.1.4
		get("TE: gzip\r\nConnection: TE\r\n"): "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		// RFC 9110 §8.6: where content would have a meaning, it is said that there is none.
		"POST / HTTP/1.1\r\nHost: a\r\n\r\n":   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: a\r\n\r\n":    "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"PATCH / HTTP/1.1\r\nHost: a\r\n\r\n":  "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n": "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		in := whole(raw)
		var h wire.Head
		if err := in.ReadRequest(&h); err != nil {
			t.Fatal(err)
		}
		wire.RemoveHopByHop(&h)
		s := &script{}
		out := NewConn(s, Client, nil)
		if err := out.WriteHead(&h); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if err := out.Flush(); err != nil || string(s.sent) != want {
			t.Errorf("%q: %v\n got %q\nwant %q", raw, err, s.sent, want)
		}
	}
}

func TestMoreOrLessThanTheLengthIsNotWritten(t *testing.T) {
	for body, ok := range map[string]bool{"": false, "hell": false, "hello": true, "hello!": false} {
		c, s := answering(t, get(""))
		if err := c.WriteHead(&wire.Head{Status: 200, ContentLength: 5}); err != nil {
			t.Fatal(err)
		}
		err := c.WriteBody([]byte(body))
		if err == nil {
			err = c.EndBody(nil)
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", body, err)
		}
		if err := c.Flush(); err != nil || strings.HasSuffix(string(s.sent), "!") {
			t.Errorf("%q: %v, %q", body, err, s.sent)
		}
	}
}

func TestTrailersThatCannotBeSentAreLeftOut(t *testing.T) {
	c, s := answering(t, get(""))
	if err := c.WriteHead(&wire.Head{Status: 200, ContentLength: wire.NoLength}); err != nil {
		t.Fatal(err)
	}
	if err := c.EndBody([]wire.Field{
		{Name: []byte("X"), Value: []byte("1")},
		{Name: []byte("Y"), Value: []byte("1\r\n\r\nHTTP/1.1 200 OK")},
		{Name: []byte("Content-Length"), Value: []byte("5"), ID: wire.ContentLength},
		{Name: []byte("Z"), Value: []byte("2")},
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil || !strings.HasSuffix(string(s.sent), "\r\n\r\n0\r\nX: 1\r\nZ: 2\r\n\r\n") {
		t.Errorf("%v, %q", err, s.sent)
	}
}

func TestBodiesOfAnySizeInAnyPiecesArriveWhole(t *testing.T) {
	for _, size := range []int{0, 1, direct - 1, direct, sockio.Small, sockio.Large + 1, 200_000} {
		for _, piece := range []int{1, 100, direct - 1, direct, 5000, 200_000} {
			if size/piece > 10_000 {
				continue
			}
			for _, length := range []int64{int64(size), wire.NoLength} {
				body := strings.Repeat("0123456789", size/10+1)[:size]
				c, s := answering(t, get(""))
				if err := c.WriteHead(&wire.Head{Status: 200, ContentLength: length}); err != nil {
					t.Fatal(err)
				}
				for rest := body; rest != ""; {
					n := min(piece, len(rest))
					if err := c.WriteBody([]byte(rest[:n])); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := errors.Join(c.EndBody(nil), c.Flush()); err != nil {
					t.Fatal(err)
				}
				client := answers(string(s.sent))
				var h wire.Head
				if err := client.ReadResponse(&h, false); err != nil {
					t.Fatal(err)
				}
				if got, err := readAll(client); err != nil || got != body || client.Begun() {
					t.Errorf("%d bytes by %d, length %d: %d came, %v", size, piece, length, len(got), err)
				}
			}
		}
	}
}

func TestAPeerThatTakesNothingMoreIsTold(t *testing.T) {
	for _, size := range []int{10, 10_000} {
		c, s := answering(t, get(""))
		s.failAt = 20
		if err := c.WriteHead(&wire.Head{Status: 200, ContentLength: int64(size)}); err != nil {
			t.Fatal(err)
		}
		err := c.WriteBody(make([]byte, size))
		if err == nil {
			err = errors.Join(c.EndBody(nil), c.Flush())
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
