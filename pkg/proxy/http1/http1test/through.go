package http1test

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
)

// Requests sends each row of requests through a proxy, on a connection of its own of dial's. What the table
// accepts, the origin behind it is to see, and nothing else: taken returns what it has seen since the
// last call, each as "method target of host". What the table refuses is to be answered with its status.
func Requests(t *testing.T, rows []Row, dial func() net.Conn, taken func() []string) {
	t.Helper()
	for _, row := range rows {
		if strings.HasPrefix(row.Verdict[0], "accepted CONNECT") || strings.HasPrefix(row.Raw, "PRI * HTTP/2.0") {
			continue // it is no request to the origin, or not one of HTTP/1
		}
		wanted, statuses := row.passes()
		if got := statusesOf(dial(), row.Raw); !slices.Equal(got, statuses) {
			t.Errorf("%s\n%s\nanswered %d, want %d", row.Name, row.Rule, got, statuses)
		}
		same := func(seen, want string) bool { return seen == want || strings.Contains(want, "…") } // which is shortened
		if seen := taken(); !slices.EqualFunc(seen, wanted, same) {
			t.Errorf("%s\n%s\nthe origin sees %q, want %q", row.Name, row.Rule, seen, wanted)
		}
	}
}

// passes returns what the origin sees of a row of requests, and what their client is answered.
func (r *Row) passes() (seen []string, statuses []int) {
	for _, line := range r.Verdict {
		if accepted, ok := strings.CutPrefix(line, "accepted "); ok {
			first, _, _ := strings.Cut(accepted, ", HTTP/1")
			seen = append(seen, strings.ReplaceAll(first, "(none)", ""))
			statuses = append(statuses, 200)
		}
		if strings.HasSuffix(line, "the last of its connection") {
			return seen, statuses
		}
	}
	if status := r.Refused(); status > 0 {
		statuses = append(statuses, status)
	}
	return seen, statuses
}

// statusesOf sends bytes and then the end of the stream, and returns the statuses of the
// final answers to the end.
func statusesOf(nc net.Conn, raw string) (statuses []int) {
	defer func() { _ = nc.Close() }()
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		_, _ = io.WriteString(nc, raw) // what is refused early is not read to its end
		_ = nc.(*net.TCPConn).CloseWrite()
	})
	in := bufio.NewReader(nc)
	method, _, _ := strings.Cut(raw, " ")
	for {
		resp, err := readFinal(in, method)
		if err != nil {
			return statuses
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		statuses = append(statuses, resp.StatusCode)
	}
}

// readFinal reads the final answer to a method; to what is no method, that to a GET.
func readFinal(in *bufio.Reader, method string) (*http.Response, error) {
	if method != http.MethodHead {
		method = http.MethodGet
	}
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
}

// Responses lets each row of responses answer a request through a proxy: dial returns a connection to one
// whose host answers the next request with raw and ends. What the table accepts is to be passed on, what
// it refuses to be answered with 502, and what breaks off not to be taken for whole.
func Responses(t *testing.T, rows []Row, dial func(t *testing.T, raw string) net.Conn) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			status, whole := row.passed()
			method := http.MethodPost // which is not sent twice
			if row.To != "" {
				method = row.To
			}
			nc := dial(t, row.Raw)
			defer func() { _ = nc.Close() }()
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

// passed returns what a client is answered that is to get the response of a row.
func (r *Row) passed() (status int, whole bool) {
	status, whole = 502, true
	for _, line := range r.Verdict {
		word, rest, _ := strings.Cut(line, " ")
		if word != "accepted" && word != "begun" || strings.HasPrefix(rest, "10") && rest[:3] != "101" {
			continue
		}
		if rest[:3] != "101" { // nobody asked for that
			_, _ = fmt.Sscan(rest, &status)
		}
		return status, word == "accepted"
	}
	return status, whole
}

// AnswerAs answers one request with bytes, ends, and reads what its client still says.
func AnswerAs(nc net.Conn, raw string) error {
	if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
		return err
	}
	_, _ = io.WriteString(nc, raw) // the client may have had enough
	_ = nc.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, nc)
	return nil
}
