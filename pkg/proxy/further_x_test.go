package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// said answers a request with what it was.
func said(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	_, _ = fmt.Fprintf(w, "%s %s %q", q.Method, q.URL.Path, body)
}

// What follows the first request of a connection is answered where it is read, if it is here whole.
func TestAFurtherRequestIsAnsweredHoweverItComes(t *testing.T) {
	r := start(t, []string{backend(t, said)})
	for name, test := range map[string]struct {
		pieces []string
		want   []string
	}{
		"whole":                       {[]string{"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"}, []string{`GET /a ""`}},
		"whole, behind an empty line": {[]string{"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"}, []string{`GET /a ""`}},
		"in the middle of its head":   {[]string{"GET /a HTTP/1.1\r\nHo", "st: a\r\n\r\n"}, []string{`GET /a ""`}},
		"with its body":               {[]string{"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"}, []string{`PUT /a "abc"`}},
		"and then its body":           {[]string{"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "abc"}, []string{`PUT /a "abc"`}},
		"with some of its body":       {[]string{"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na", "bc"}, []string{`PUT /a "abc"`}},
		"in chunks": {[]string{"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
			[]string{`PUT /a "abc"`}},
		"with a body as large as several buffers": {[]string{"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000)},
			[]string{`PUT /a "` + strings.Repeat("x", 100000) + `"`}},
		"with the next ones": {[]string{"GET /a HTTP/1.1\r\nHost: a\r\n\r\nPUT /b HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nbGET /c HTTP/1.1\r\nHost: a\r\n\r\n"},
			[]string{`GET /a ""`, `PUT /b "b"`, `GET /c ""`}},
		"with the beginning of the next one": {[]string{"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGE", "T /b HTTP/1.1\r\nHost: a\r\n\r\n"},
			[]string{`GET /a ""`, `GET /b ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, r.addr)
			in := bufio.NewReader(c)
			getOn(t, c, in)
			for range 2 { // and the one after that, too
				for _, piece := range test.pieces {
					if _, err := io.WriteString(c, piece); err != nil {
						t.Fatal(err)
					}
					time.Sleep(20 * time.Millisecond) // so that it is read by itself
				}
				for _, want := range test.want {
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						t.Fatal(err)
					}
					if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
						t.Errorf("%.100q, %v", body, err)
					}
				}
			}
		})
	}
}

func TestAFurtherRequestIsTheLastWhereOneIs(t *testing.T) {
	for name, test := range map[string]struct {
		request string
		half    bool // the client ends its side with the request
	}{
		"the client says so":       {request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
		"the client ends its side": {request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", half: true},
		"the request is malformed": {request: "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
		"no tunnel comes of it":    {request: "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", half: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, []string{backend(t, said)})
			c := dialRaw(t, r.addr)
			in := bufio.NewReader(c)
			getOn(t, c, in)
			if _, err := io.WriteString(c, test.request); err != nil {
				t.Fatal(err)
			}
			if test.half {
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if resp, err := http.ReadResponse(in, nil); err != nil {
				t.Error(err)
			} else {
				_, _ = io.Copy(io.Discard, resp.Body)
			}
			if n, err := io.Copy(io.Discard, in); n != 0 || err != nil {
				t.Errorf("%d more bytes, %v", n, err)
			}
		})
	}
}

// A socket is closed only once nobody is in a call on it, and a further request is answered in one.
func TestADrainCutsOffWhatAFurtherRequestWaitsFor(t *testing.T) {
	reached := make(chan struct{}, 1)
	r := start(t, []string{backend(t, func(_ http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/patient" {
			reached <- struct{}{}
			<-q.Context().Done() // it is broken off
		}
	})})
	c := dialRaw(t, r.addr)
	in := bufio.NewReader(c)
	getOn(t, c, in)
	if _, err := io.WriteString(c, "GET /patient HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-reached
	r.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if cut := r.server.Drain(ctx); cut != 1 {
		t.Errorf("%d connections are cut off", cut)
	}
	if n, err := io.Copy(io.Discard, in); n != 0 {
		t.Errorf("the client sees %d bytes, %v", n, err)
	}
}

// The watchdog closes its socket while it is written to in a call on it, and must come back from that.
func TestAClientThatTakesNothingOfAFurtherAnswerIsCutOff(t *testing.T) {
	broken := make(chan struct{}, 2)
	r := startWith(t, stallsSoon, []string{backend(t, func(w http.ResponseWriter, q *http.Request) {
		var err error
		for q.URL.Path == "/endless" && err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		if err != nil {
			broken <- struct{}{}
		}
	})})
	for range 2 { // and the watchdog goes on
		c := dialRaw(t, r.addr)
		getOn(t, c, bufio.NewReader(c))
		if _, err := io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-broken:
		case <-time.After(patience):
			t.Fatal("the instance still sends")
		}
	}
}
