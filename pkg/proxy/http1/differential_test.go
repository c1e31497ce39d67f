package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// FuzzDifferential: what is taken here, net/http takes too, and frames it the same
// way. Known cases in which it is net/http that refuses, none of them framing:
//
//   - a path with a '%' that no two hex digits follow: passed on as it is, for the
//     instance to judge (RFC 9112 §3.2: no auto-correction);
//   - an authority that its URL parser does not take, such as a port by name;
//   - white space before a chunk's extension (RFC 9110 §5.6.3: it is to be removed).
//
// Known cases in which net/http takes what is refused here: lines that end in LF
// alone, folded fields, several or comma-separated equal lengths, Content-Length
// beside chunked, white space behind a chunk's size, Transfer-Encoding in
// HTTP/1.0, several empty lines before the request, HTTP/1.x for any x, a fragment
// or other bytes above 0x7e in the target, userinfo, "#" in a target, a Host that is
// no host.
func FuzzDifferential(f *testing.F) {
	f.Add([]byte(pipeline))
	f.Add([]byte(chunkedHead + "5;x\r\nhello\r\n0\r\nX: 1\r\n\r\n" + pipeline))
	for _, r := range http1test.Read(f, "testdata/requests.txt") {
		if len(r.Raw) < 300 {
			f.Add([]byte(r.Raw + "0\r\n\r\n" + pipeline))
		}
	}
	for _, a := range append(attacks(), harmless()...) {
		for _, raw := range a.raws {
			f.Add([]byte(raw))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) { compare(t, raw) })
}

func compare(t *testing.T, raw []byte) {
	t.Helper()
	ours := whole(string(raw))
	theirs := bufio.NewReader(bytes.NewReader(raw))
	for range 20 {
		var h wire.Head
		if ours.ReadRequest(&h) != nil {
			return
		}
		skipEmptyLine(theirs)
		req, err := http.ReadRequest(theirs)
		if err != nil {
			if isKnownStricter(&h) {
				return
			}
			t.Fatalf("net/http refuses what is taken: %v\n%q", err, raw)
		}
		length := h.ContentLength
		if length == wire.NoLength && !h.Streamed {
			length = 0
		}
		if req.Method != string(h.Method) || req.ContentLength != length || (len(req.TransferEncoding) == 1) != h.Streamed {
			t.Fatalf("%s, %d, chunked %t against net/http's %s, %d, %v\n%q",
				h.Method, length, h.Streamed, req.Method, req.ContentLength, req.TransferEncoding, raw)
		}
		if req.RequestURI != "*" && string(h.Method) != "CONNECT" && !strings.HasSuffix(req.RequestURI, strings.TrimPrefix(string(h.Path), "/")) && string(h.Path) != "*" {
			t.Fatalf("path %q against %q", h.Path, req.RequestURI)
		}
		if h.Get(wire.Host) != nil && req.Host != string(h.Authority) {
			t.Fatalf("authority %q against %q\n%q", h.Authority, req.Host, raw)
		}
		body, err := readAll(ours)
		if err != nil {
			return
		}
		other, err := io.ReadAll(req.Body)
		if err != nil {
			if strings.Contains(err.Error(), "trailer") { // it forbids other names there
				return
			}
			if strings.Contains(err.Error(), "chunk length") && spaceBeforeExtension.Match(raw) {
				return
			}
			t.Fatalf("net/http refuses a body that is taken: %v\n%q", err, raw)
		}
		if string(other) != body {
			t.Fatalf("body %q against net/http's %q\n%q", body, other, raw)
		}
		if ours.EndExchange() != nil {
			return
		}
	}
}

var spaceBeforeExtension = regexp.MustCompile(`[0-9A-Fa-f][ \t]+;`)

// skipEmptyLine takes the one empty line that net/http's Server skips, unlike its
// ReadRequest.
func skipEmptyLine(r *bufio.Reader) {
	if p, err := r.Peek(2); err == nil && string(p) == "\r\n" {
		_, _ = r.Discard(2)
	}
}

func isKnownStricter(h *wire.Head) bool {
	if i := bytes.IndexByte(h.Path, '%'); i >= 0 {
		return true
	}
	_, port, _ := bytes.Cut(h.Authority, []byte(":"))
	return bytes.ContainsAny(port, "abcdefghijklmnopqrstuvwxyz-") || bytes.HasPrefix(h.Authority, []byte("["))
}

func TestWhatIsTakenHereNetHTTPReadsTheSame(t *testing.T) {
	for _, raw := range []string{
		pipeline,
		get("") + get("X: 1\r\n"),
		post("Content-Length: 3\r\n") + "abc" + get(""),
		chunkedHead + "1\r\na\r\n0\r\n\r\n" + get(""),
		chunkedHead + "0\r\nX: 1\r\n\r\n" + get(""),
		post("Transfer-Encoding: CHUNKED\r\n") + "1\r\na\r\n0\r\n\r\n" + get(""),
	} {
		compare(t, []byte(raw))
	}
}

func TestWhatIsWrittenIsReadBackTheSame(t *testing.T) {
	for i, raw := range []string{
		get(""),
		get("X: 1\r\nx: 2\r\nY:\r\n"),
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://b/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n",
		post("Content-Length: 0\r\n"),
		post("Content-Length: 5\r\n") + "hello",
		post("Content-Length: 9000\r\n") + strings.Repeat("x", 9000),
		chunkedHead + "0\r\n\r\n",
		chunkedHead + "5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
		chunkedHead + "1388\r\n" + strings.Repeat("y", 5000) + "\r\n0\r\n\r\n",
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			first := relay(t, raw)
			if again := relay(t, first); again != first {
				t.Errorf("written %q\nread and written again %q", first, again)
			}
			if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(first))); err != nil {
				t.Errorf("%q: %v", first, err)
			}
			if a, b := told(&script{pieces: split(raw)}, false, false), told(&script{pieces: split(first)}, false, false); !strings.Contains(raw, "http://") &&
				!strings.Contains(raw, "HTTP/1.0") && a != b {
				t.Errorf("read %s\nwritten and read %s", a, b)
			}
		})
	}
}

// relay reads one request and returns what a client writes to send it on.
func relay(t *testing.T, raw string) string {
	t.Helper()
	in := whole(raw)
	var h wire.Head
	if err := in.ReadRequest(&h); err != nil {
		t.Fatal(err)
	}
	s := &script{}
	out := NewConn(s, Client, nil)
	if err := out.WriteHead(&h); err != nil {
		t.Fatal(err)
	}
	for {
		p, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := out.WriteBody(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.EndBody(in.Trailers()); err != nil {
		t.Fatal(err)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	return string(s.sent)
}
