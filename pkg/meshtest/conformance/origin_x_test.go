package conformance_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// origin is a server of HTTP/1.1 that reads what is sent to it as strictly as can be, with no
// line of the proxy's: it takes one spelling of everything, and what it has to guess at is a
// fault. It answers each request with what it understood (echoOf), and remembers it.
type origin struct {
	port int

	mu     sync.Mutex
	conns  int      // that were opened
	seen   []string // what the requests were, in the order in which they were whole
	broken int      // requests that were not whole when their connection ended
	faults []string // what no proxy should send
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{}
	o.port = serving(t, func(nc net.Conn) {
		o.mu.Lock()
		o.conns++
		o.mu.Unlock()
		o.serve(nc)
	})
	return o
}

// since returns what was seen after the first n requests, and the faults until now.
func (o *origin) since(n int) (seen, faults []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen[n:len(o.seen):len(o.seen)], o.faults
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

// serve reads one request after the other until its client has no more.
func (o *origin) serve(nc net.Conn) {
	var raw bytes.Buffer
	in := bufio.NewReader(io.TeeReader(nc, &raw))
	for {
		q, err := strictHead(in)
		early := strings.HasPrefix(q.target, "/early")
		if err == nil {
			if early {
				q.body = "…"
				o.answer(nc, q) // before the body
			}
			if q.expects {
				_, _ = io.WriteString(nc, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			q.body, err = strictBody(in, q)
		}
		if err == nil && !early && in.Buffered() > 0 {
			// A proxy waits for the answer before it sends another.
			err = fmt.Errorf("%d bytes come behind the end of a request", in.Buffered())
		}
		o.mu.Lock()
		switch {
		case err == nil || errors.Is(err, io.EOF):
		case errors.Is(err, errBroken):
			o.broken++
		default:
			o.faults = append(o.faults, fmt.Sprintf("%v, in %q", err, raw.Bytes()[max(0, raw.Len()-2000):]))
		}
		o.mu.Unlock()
		if err != nil {
			return
		}
		if !early {
			o.answer(nc, q)
		}
		raw.Reset()
	}
}

func (o *origin) answer(nc net.Conn, q strictRequest) {
	echo := q.String()
	o.mu.Lock()
	o.seen = append(o.seen, echo)
	o.mu.Unlock()
	body := echo
	if q.method == "HEAD" {
		body = ""
	}
	_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nEcho: %s\r\nContent-Length: %d\r\n\r\n%s", echo, len(echo), body)
}

// strictRequest is what the origin understood.
type strictRequest struct {
	method, target, host string
	length               int64 // of the body; -1: chunked
	expects              bool
	body                 string
}

// String is one line of ASCII that says what the request is.
func (q strictRequest) String() string {
	if len(q.body) > 100 {
		q.body = fmt.Sprintf("%.20s… %d bytes", q.body, len(q.body))
	}
	return fmt.Sprintf("%s %s of %s, %+q", q.method, q.target, q.host, q.body)
}

// errBroken says that a connection ended inside of a request.
var errBroken = errors.New("the connection ended inside of a request")

// strictLine returns a line without its CR LF (RFC 9112 §2.2).
func strictLine(in *bufio.Reader, first bool) (string, error) {
	line, err := in.ReadString('\n')
	switch {
	case err != nil && first && line == "":
		return "", io.EOF // between requests, or it makes no difference
	case err != nil:
		return "", errBroken
	case len(line) < 2 || line[len(line)-2] != '\r':
		return "", fmt.Errorf("a bare LF behind %q", line)
	}
	line = line[:len(line)-2]
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		return "", fmt.Errorf("a control in %q", line)
	}
	return line, nil
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// strictHead reads a request line and fields. io.EOF: there is no further request.
func strictHead(in *bufio.Reader) (q strictRequest, err error) {
	line, err := strictLine(in, true)
	if err != nil {
		return q, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[2] != "HTTP/1.1" {
		return q, fmt.Errorf("%q is no request line", line)
	}
	q.method, q.target = parts[0], parts[1]
	if !strings.HasPrefix(q.target, "/") && (q.target != "*" || q.method != "OPTIONS") ||
		strings.ContainsFunc(q.target, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' }) {
		return q, fmt.Errorf("%q is no target for an origin", q.target)
	}
	fields, err := strictFields(in)
	if err != nil {
		return q, err
	}
	hosts := fields["host"]
	if len(hosts) != 1 || strings.ContainsAny(hosts[0], " \t,/@?#\\<>\"") {
		return q, fmt.Errorf("hosts %q", hosts)
	}
	q.host = hosts[0]
	for _, name := range []string{"http2-settings", "proxy-connection", "keep-alive", "te"} {
		for _, v := range fields[name] {
			if name != "te" || v != "trailers" {
				return q, fmt.Errorf("%s: %q was for the next hop only", name, v)
			}
		}
	}
	for _, option := range strings.Split(strings.Join(fields["connection"], ","), ",") {
		switch strings.ToLower(strings.TrimSpace(option)) {
		case "", "close", "keep-alive", "te", "upgrade":
		default:
			return q, fmt.Errorf("the connection's option %q was for the next hop only", option)
		}
	}
	q.expects = strings.Join(fields["expect"], ",") == "100-continue"
	switch lengths, codings := fields["content-length"], fields["transfer-encoding"]; {
	case len(lengths)+len(codings) > 1:
		return q, fmt.Errorf("lengths %q, codings %q", lengths, codings)
	case len(codings) == 1:
		if q.length = -1; codings[0] != "chunked" {
			return q, fmt.Errorf("coding %q", codings[0])
		}
	case len(lengths) == 1:
		if n := lengths[0]; n == "" || len(n) > 18 || strings.Trim(n, "0123456789") != "" {
			return q, fmt.Errorf("length %q", n)
		}
		q.length, err = strconv.ParseInt(lengths[0], 10, 64)
	}
	return q, err
}

// strictFields reads fields to the empty line, their names in lower case.
func strictFields(in *bufio.Reader) (map[string][]string, error) {
	fields := map[string][]string{}
	for {
		line, err := strictLine(in, false)
		if err != nil || line == "" {
			return fields, err
		}
		name, value, found := strings.Cut(line, ":")
		if !found || !isToken(name) {
			return nil, fmt.Errorf("%q is no field", line)
		}
		name = strings.ToLower(name)
		fields[name] = append(fields[name], strings.Trim(value, " \t"))
	}
}

// strictBody reads the body that a head says there is.
func strictBody(in *bufio.Reader, q strictRequest) (string, error) {
	body, trailers, err := strictContent(in, q.length)
	for _, name := range []string{"content-length", "transfer-encoding", "host", "connection", "trailer", "te"} {
		if len(trailers[name]) > 0 {
			return "", fmt.Errorf("a trailer %s", name)
		}
	}
	return body, err
}

// strictContent reads a body of a length, or of chunks if that is negative, and its trailers.
func strictContent(in *bufio.Reader, length int64) (body string, trailers map[string][]string, err error) {
	if length >= 0 {
		b, err := io.ReadAll(io.LimitReader(in, length))
		if err != nil || int64(len(b)) < length {
			return "", nil, errBroken
		}
		return string(b), nil, nil
	}
	var all []byte
	for {
		line, err := strictLine(in, false)
		if err != nil {
			return "", nil, err
		}
		if line == "" || len(line) > 8 || strings.Trim(line, "0123456789abcdefABCDEF") != "" {
			return "", nil, fmt.Errorf("chunk size %q", line)
		}
		size, err := strconv.ParseInt(line, 16, 64)
		if err != nil {
			return "", nil, err
		}
		if size == 0 {
			break
		}
		chunk := make([]byte, size+2)
		if _, err := io.ReadFull(in, chunk); err != nil {
			return "", nil, errBroken
		}
		if string(chunk[size:]) != "\r\n" {
			return "", nil, fmt.Errorf("%q behind a chunk", chunk[size:])
		}
		all = append(all, chunk[:size]...)
	}
	trailers, err = strictFields(in)
	return string(all), trailers, err
}

// The origin is of use only if it takes nothing that could be read in two ways.
func TestOriginRefusesWhatCouldBeReadInTwoWays(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, raw := range []string{
		"GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		head + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", head + "Content-Length: +1\r\n\r\nx", head + "Content-Length: 1, 1\r\n\r\nx",
		head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", head + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		head + "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\n0;x\r\n\r\n",
		head + "Transfer-Encoding: chunked\r\n\r\n 0\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
		head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n",
		head + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
	} {
		o := &origin{}
		near, far := net.Pipe()
		go func() { _, _ = io.WriteString(near, raw); _ = near.Close() }()
		o.serve(far)
		_ = far.Close()
		_ = near.Close()
		if len(o.faults) == 0 {
			t.Errorf("%q is no fault", raw)
		}
	}
	o := &origin{}
	near, far := net.Pipe()
	go func() {
		_, _ = io.WriteString(near, head+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")
		in := bufio.NewReader(near)
		for range 4 {
			_, _ = in.ReadString('\n')
		}
		_, _ = io.CopyN(io.Discard, in, int64(len(`POST / of a, "hello"`)))
		_, _ = io.WriteString(near, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell")
		_ = near.Close()
	}()
	o.serve(far)
	if len(o.faults) > 0 || len(o.seen) != 1 || o.seen[0] != `POST / of a, "hello"` || o.broken != 1 {
		t.Errorf("%+v", o)
	}
}
