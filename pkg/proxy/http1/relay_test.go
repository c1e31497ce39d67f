package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// passOn writes the message that h begins, with the body that from holds, as a
// proxy does, and returns the bytes.
func passOn(from *Conn, to *Conn, h *wire.Head) ([]byte, error) {
	if err := to.WriteHead(h); err != nil {
		return nil, err
	}
	for {
		p, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := to.WriteBody(p); err != nil {
			return nil, err
		}
	}
	if err := to.EndBody(from.Trailers()); err != nil {
		return nil, err
	}
	if err := to.Flush(); err != nil {
		return nil, err
	}
	return to.nc.(*script).sent, nil
}

// texts are the fields in lines.
func texts(fields []wire.Field) []string {
	var all []string
	for _, f := range fields {
		all = append(all, string(f.Name)+": "+string(f.Value))
	}
	return all
}

// FuzzRequestPassedOn: a request that is taken and passed on is read by the next
// one as exactly one, with the same meaning, here and by net/http.
func FuzzRequestPassedOn(f *testing.F) {
	for _, a := range append(attacks(), harmless()...) {
		for _, raw := range a.raws {
			f.Add([]byte(raw))
		}
	}
	f.Add([]byte(chunkedHead + "5\r\nhello\r\n0\r\nX: 1\r\nTE: x\r\n\r\n"))
	f.Add([]byte(get("TE: trailers\r\nConnection: TE, X\r\nX: 1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		from := whole(string(raw))
		defer from.Release()
		var h wire.Head
		if from.ReadRequest(&h) != nil {
			return
		}
		wire.RemoveHopByHop(&h)
		want := fmt.Sprintf("%s %s %d %t %q", h.Method, h.Path, h.ContentLength, h.Streamed, texts(h.Fields))
		sent, err := passOn(from, NewConn(&script{}, Client, nil), &h)
		if errors.Is(err, errUnsendable) {
			t.Fatalf("what was taken cannot be sent: %q", raw)
		}
		if err != nil {
			return // the body is faulty or breaks off
		}
		next := whole(string(sent))
		defer next.Release()
		var again wire.Head
		if err := next.ReadRequest(&again); err != nil {
			t.Fatalf("%v\nfrom %q\nsent %q", err, raw, sent)
		}
		wire.RemoveHopByHop(&again)
		if h.Get(wire.Host) == nil { // the writer made one
			again.Del(wire.Host)
		}
		if got := fmt.Sprintf("%s %s %d %t %q", again.Method, again.Path, again.ContentLength, again.Streamed, texts(again.Fields)); got != want {
			t.Fatalf("got  %s\nwant %s\nfrom %q\nsent %q", got, want, raw, sent)
		}
		if _, err := readAll(next); err != nil || !slices.Equal(texts(next.Trailers()), texts(from.Trailers())) {
			t.Fatalf("%v, trailers %q\nfrom %q\nsent %q", err, texts(next.Trailers()), raw, sent)
		}
		if err := next.EndExchange(); err != nil || next.Begun() {
			t.Fatalf("%v, bytes left %t\nfrom %q\nsent %q", err, next.Begun(), raw, sent)
		}
	})
}

// FuzzResponsePassedOn: an answer that is taken is framed by net/http the same
// way; passed on to a client, net/http reads it with the same status and body and
// finds nothing behind it.
func FuzzResponsePassedOn(f *testing.F) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 204\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: X, close\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			f.Add([]byte(raw), method == "HEAD", false)
			f.Add([]byte(raw), method == "HEAD", true)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, toHead, to10 bool) {
		from := answers(string(raw))
		defer from.Release()
		var h wire.Head
		if from.ReadResponse(&h, toHead) != nil || h.Status < 200 {
			return
		}
		request := &http.Request{Method: map[bool]string{false: "GET", true: "HEAD"}[toHead]}
		wire.RemoveHopByHop(&h)
		client := NewConn(&script{}, Server, nil)
		client.toHead, client.to10 = toHead, to10
		sent, err := passOn(from, client, &h)
		if errors.Is(err, errUnsendable) {
			t.Fatalf("what was taken cannot be sent: %q", raw)
		}
		if err != nil {
			return // the body is faulty or breaks off
		}
		want := bodyOf(t, raw, request)
		got := bodyOf(t, sent, request)
		if got != want {
			t.Fatalf("%q\nof %q, but\n%q\nof %q", got, sent, want, raw)
		}
		ours := answers(string(sent))
		defer ours.Release()
		var again wire.Head
		if err := ours.ReadResponse(&again, toHead); err != nil || again.Status != h.Status {
			t.Fatalf("%d, %v\nfrom %q\nsent %q", again.Status, err, raw, sent)
		}
		if _, err := readAll(ours); err != nil || ours.Begun() {
			t.Fatalf("%v, bytes left %t\nfrom %q\nsent %q", err, ours.Begun(), raw, sent)
		}
		if again.Close != h.Close && !to10 {
			t.Fatalf("close %t, want %t\nfrom %q\nsent %q", again.Close, h.Close, raw, sent)
		}
	})
}

// bodyOf is the status and body that net/http reads.
func bodyOf(t *testing.T, raw []byte, request *http.Request) string {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), request)
	if err != nil {
		t.Fatalf("net/http: %v\n%q", err, raw)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil && !strings.Contains(err.Error(), "trailer") { // it forbids other names there
		t.Fatalf("net/http: %v\n%q", err, raw)
	}
	return fmt.Sprintf("%d %q", response.StatusCode, body)
}
