package proxy_test

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// restless lets connections rest as soon as they are idle when they are looked at.
func restless(c *proxy.Config) { c.RestAfter = time.Nanosecond }

// looks is long enough for connections to be looked at, twice.
const looks = 600 * time.Millisecond

func TestAConnectionThatRestedGoesOnWhereItWas(t *testing.T) {
	for name, test := range map[string]struct {
		first bool // there was a request before
		bytes string
		want  string
	}{
		"with its first request":          {false, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"},
		"with HTTP/2's preface":           {false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00"},
		"with a further request":          {true, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK"},
		"with a body":                     {true, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK"},
		"with what is no request":         {true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 "},
		"with a head that is not allowed": {true, "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startWith(t, restless, []string{backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })})
			c := dialRaw(t, r.addr)
			in := bufio.NewReader(c)
			if test.first {
				getOn(t, c, in)
			}
			for range 2 {
				time.Sleep(looks)
				if test.first {
					getOn(t, c, in)
				}
			}
			time.Sleep(looks)
			// Byte by byte, so that it is looked at in the middle of it, too.
			for _, b := range []byte(test.bytes) {
				_, _ = c.Write([]byte{b})
			}
			got := make([]byte, len(test.want))
			if _, err := io.ReadFull(in, got); err != nil || string(got) != test.want {
				t.Fatalf("%q, %v", got, err)
			}
		})
	}
}

func TestNoRequestIsLostToAConnectionThatIsAboutToRest(t *testing.T) {
	r := startWith(t, restless, []string{backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })})
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			in := bufio.NewReader(c)
			for range 20 {
				// The looks come every 250 ms, so many of these come with one.
				time.Sleep(time.Duration(rand.Int64N(int64(260 * time.Millisecond))))
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				a, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := io.ReadAll(a.Body); err != nil || a.StatusCode != 200 || string(b) != "ok" {
					t.Errorf("%s %q %v", a.Status, b, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestRequestsOfAConnectionAreCountedAcrossItsRests(t *testing.T) {
	r := startWith(t, func(c *proxy.Config) { restless(c); c.MaxRequestsPerConnection = 3 },
		[]string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	c := dialRaw(t, r.addr)
	in := bufio.NewReader(c)
	for n := range 3 {
		if a := getOn(t, c, in); a.Close != (n == 2) {
			t.Fatalf("request %d: close %t", n+1, a.Close)
		}
		time.Sleep(looks)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestAConnectionThatRestsEndsAsAnIdleOneDoes(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*proxy.Config)
		end    func(t *testing.T, r *rig, c net.Conn)
	}{
		"when it was idle for too long": {
			func(c *proxy.Config) { restless(c); c.IdleTimeout = 2 * looks },
			func(*testing.T, *rig, net.Conn) {},
		},
		"when the server drains": {restless, func(t *testing.T, r *rig, _ net.Conn) {
			if n := r.server.Drain(t.Context()); n != 0 {
				t.Errorf("%d were cut off", n)
			}
		}},
		"when others need its place": {
			func(c *proxy.Config) { restless(c); c.MaxConnections = 1 },
			func(t *testing.T, r *rig, _ net.Conn) {
				other := dialRaw(t, r.addr)
				getOn(t, other, bufio.NewReader(other))
			},
		},
		"when its client ends it": {restless, func(t *testing.T, _ *rig, c net.Conn) {
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startWith(t, test.change, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
			c := dialRaw(t, r.addr)
			in := bufio.NewReader(c)
			getOn(t, c, in)
			time.Sleep(looks)
			test.end(t, r, c)
			if _, err := in.ReadByte(); err == nil {
				t.Fatal("it said something")
			} else if errTimeout := (net.Error)(nil); errors.As(err, &errTimeout) && errTimeout.Timeout() {
				t.Fatal("it did not end")
			}
		})
	}
}

// dialRaw connects; what takes longer than the patience fails.
func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// getOn does a GET on a connection.
func getOn(t *testing.T, c net.Conn, in *bufio.Reader) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	a, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, a.Body); err != nil || a.StatusCode != 200 {
		t.Fatalf("%s %v", a.Status, err)
	}
	return a
}
