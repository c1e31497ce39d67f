package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// strictOrigin answers with 200 what a strict parser takes for a request, and keeps its
// first line. Anything else is an error of the test.
type strictOrigin struct {
	t    *testing.T
	addr string
	mu   sync.Mutex
	seen []string // guarded by mu
}

func newStrictOrigin(t *testing.T) *strictOrigin {
	t.Helper()
	o := &strictOrigin{t: t}
	o.addr = listen(t, o.serve)
	return o
}

func (o *strictOrigin) serve(nc net.Conn) {
	c := http1.NewConn(nc, http1.Server, nil)
	defer c.Release()
	for c.Await(nil) == nil {
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			o.t.Errorf("the origin is sent what it refuses: %v", err)
			return
		}
		if err := c.Drain(1 << 20); err != nil {
			return // the client broke its body off, and so must the proxy
		}
		o.mu.Lock()
		o.seen = append(o.seen, fmt.Sprintf("%s %s of %s", h.Method, h.Path, h.Authority))
		o.mu.Unlock()
		answer := wire.Head{Status: 200, ContentLength: 0}
		if c.EndExchange() != nil || c.WriteHead(&answer) != nil || c.Flush() != nil {
			return
		}
	}
}

// taken returns what was seen since the last call.
func (o *strictOrigin) taken() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.seen
	o.seen = nil
	return seen
}

// listen gives each connection to serve, and closes it afterwards, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// TestTableOfRequestsThroughTheEngine: what the table accepts, a strict origin sees, and
// nothing else; what it refuses is answered with the table's status.
func TestTableOfRequestsThroughTheEngine(t *testing.T) {
	origin := newStrictOrigin(t)
	r := start(t, []string{origin.addr})
	for _, row := range http1test.Read(t, "http1/testdata/requests.txt") {
		var wanted []string // what the origin sees
		var statuses []int  // what the client is answered
		last := false
		for _, line := range row.Verdict {
			accepted, ok := strings.CutPrefix(line, "accepted ")
			if ok {
				first, _, _ := strings.Cut(accepted, ", HTTP/1")
				wanted = append(wanted, strings.ReplaceAll(first, "(none)", ""))
				statuses = append(statuses, 200)
			}
			if last = strings.HasSuffix(line, "the last of its connection"); last {
				break
			}
		}
		if strings.HasPrefix(row.Verdict[0], "accepted CONNECT") || strings.HasPrefix(row.Raw, http2.Preface) {
			continue // it is no request to the origin, or not one of HTTP/1
		}
		if status := row.Refused(); status > 0 && !last {
			statuses = append(statuses, status)
		}
		got := answers(t, r, row.Raw)
		if !slices.Equal(got, statuses) {
			t.Errorf("%s\n%s\nanswered %d, want %d", row.Name, row.Rule, got, statuses)
		}
		seen := origin.taken()
		for i := range wanted {
			if i >= len(seen) || seen[i] != wanted[i] && !strings.Contains(wanted[i], "…") {
				t.Errorf("%s\n%s\nthe origin sees %q, want %q", row.Name, row.Rule, seen, wanted)
				break
			}
		}
		if len(seen) > len(wanted) {
			t.Errorf("%s\n%s\nthe origin sees %q, want %q", row.Name, row.Rule, seen, wanted)
		}
	}
}

// answers sends bytes and then the end of the stream, and returns the statuses of the
// final answers to the end.
func answers(t *testing.T, r *rig, raw string) []int {
	t.Helper()
	nc := r.dial().(*net.TCPConn)
	defer func() { _ = nc.Close() }()
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		_, _ = io.WriteString(nc, raw) // what is refused early is not read to its end
		_ = nc.CloseWrite()
	})
	in := bufio.NewReader(nc)
	to := &http.Request{Method: http.MethodGet}
	if strings.HasPrefix(raw, "HEAD ") {
		to.Method = http.MethodHead
	}
	var statuses []int
	for {
		resp, err := http.ReadResponse(in, to)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode >= 200 {
			statuses = append(statuses, resp.StatusCode)
		}
	}
}

// TestTableOfResponsesThroughTheEngine: what the table accepts is passed on, what it
// refuses is answered with 502, and what breaks off is not taken for whole.
func TestTableOfResponsesThroughTheEngine(t *testing.T) {
	for _, row := range http1test.Read(t, "http1/testdata/responses.txt") {
		t.Run(row.Name, func(t *testing.T) {
			status, whole := 502, true
			for _, line := range row.Verdict {
				word, rest, _ := strings.Cut(line, " ")
				if word != "accepted" && word != "begun" || strings.HasPrefix(rest, "10") && rest[:3] != "101" {
					continue
				}
				if rest[:3] != "101" { // nobody asked for that
					_, _ = fmt.Sscan(rest, &status)
				}
				whole = word == "accepted"
				break
			}
			method := "POST" // which is not sent twice
			if row.To != "" {
				method = row.To
			}
			addr := listen(t, func(nc net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(nc, row.Raw)
				_ = nc.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, nc)
			})
			nc := start(t, []string{addr}).dial()
			_, _ = io.WriteString(nc, method+" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
			resp, err := readFinal(bufio.NewReader(nc), method)
			if err != nil {
				t.Fatalf("%s\nno answer: %v", row.Rule, err)
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != status || (err == nil) != whole {
				t.Errorf("%s\nanswered %d, whole %t (%v), want %d, whole %t", row.Rule, resp.StatusCode, err == nil, err, status, whole)
			}
		})
	}
}

// readFinal reads the final answer.
func readFinal(in *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
}
