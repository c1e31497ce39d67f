package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// version is a version of HTTP that one side speaks.
type version struct {
	name     string
	protocol mesh.Protocol
}

var versions = []version{{"HTTP/1.1", mesh.ProtocolHTTP}, {"HTTP/2", mesh.ProtocolHTTP2}}

// only lets a transport or a server speak one version in the clear.
func (v version) only() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(v.protocol == mesh.ProtocolHTTP)
	p.SetUnencryptedHTTP2(v.protocol == mesh.ProtocolHTTP2)
	return p
}

// backend runs a handler on a real server that speaks the version.
func (v version) backend(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	return v.backendOn(t, h, func(net.Conn) {})
}

// backendOn is backend, and tells of each connection.
func (v version) backendOn(t *testing.T, h http.HandlerFunc, accepted func(net.Conn)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Proto != v.name && q.Proto != v.name+".0" {
			t.Errorf("the instance was sent %s", q.Proto)
		}
		h(w, q)
	}))
	s.Config.Protocols = v.only()
	s.Config.ConnContext = func(ctx context.Context, nc net.Conn) context.Context { accepted(nc); return ctx }
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// client is a real client that speaks the version.
func (v version) client(t *testing.T) *http.Client {
	transport := &http.Transport{DisableCompression: true, Protocols: v.only()}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// eachPair runs a test for every version in and out, in the clear and over TLS: with a
// client and the proxy's address, in front of an instance that is the handler.
func eachPair(t *testing.T, h http.HandlerFunc, test func(t *testing.T, c *http.Client, url string)) {
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				r := start(t, []string{out.backend(t, h)}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				test(t, in.client(t), "http://"+r.addr)
			})
			t.Run(in.name+" to "+out.name+" over TLS", func(t *testing.T) {
				i := newIdentities(t)
				r := startWith(t, i.listen, []string{out.secureBackend(t, i, h)}, i.upstream("app.example"),
					func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				test(t, in.secureClient(t, i), "https://"+r.addr)
			})
		}
	}
}

// do sends a request and reads the whole answer.
func do(t *testing.T, c *http.Client, q *http.Request) (*http.Response, string) {
	t.Helper()
	a, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatalf("the body breaks off after %d bytes: %v", len(body), err)
	}
	return a, string(body)
}

func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	q, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestEveryVersionGoesToEveryVersion(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Saw", fmt.Sprint(q.Method, q.URL, q.Host, q.Header["X-Mine"], q.Header["Cookie"], q.ContentLength, q.TransferEncoding))
		w.Header()["X-Twice"] = []string{"1", "2"}
		w.WriteHeader(201)
		_, _ = w.Write(body)
	}, func(t *testing.T, c *http.Client, url string) {
		for _, size := range []int{0, 1, 100, 4000, 5000, 16_384, 70_000, 3 << 20} {
			for _, streamed := range []bool{false, true} {
				body := strings.Repeat("x", size)
				var from io.Reader = strings.NewReader(body)
				length := size
				if streamed {
					from, length = io.MultiReader(from), -1
				}
				q := newRequest(t, "POST", url+"/a?b=c", from)
				q.Host = "orders.shop"
				q.Header["X-Mine"] = []string{"yes", "no"}
				q.Header["Cookie"] = []string{"a=1", "b=2"}
				a, got := do(t, c, q)
				if a.StatusCode != 201 || got != body {
					t.Fatalf("%d bytes: status %d, %d bytes back", size, a.StatusCode, len(got))
				}
				saw := a.Header.Get("X-Saw")
				if !strings.HasPrefix(saw, "POST/a?b=corders.shop[yes no]") || !streamed && !strings.HasSuffix(saw, fmt.Sprintf(" %d []", length)) {
					t.Errorf("%d bytes, streamed %t: the instance saw %q", size, streamed, saw)
				}
				if !strings.Contains(saw, "[a=1; b=2]") && !strings.Contains(saw, "[a=1 b=2]") {
					t.Errorf("cookies: %q", saw)
				}
				if twice := a.Header["X-Twice"]; len(twice) != 2 || twice[0] != "1" || twice[1] != "2" {
					t.Errorf("X-Twice: %q", twice)
				}
			}
		}
	})
}

func TestTrailersPassBetweenAllVersions(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(200)
		_, _ = fmt.Fprintf(w, "%d %s", len(body), q.Trailer.Get("X-Check"))
		w.Header().Set("X-Sum", "42")
	}, func(t *testing.T, c *http.Client, url string) {
		for _, size := range []int{3, 100_000, 1 << 20} {
			q := newRequest(t, "POST", url, io.MultiReader(bytes.NewReader(make([]byte, size))))
			q.Trailer = http.Header{"X-Check": {"ok"}}
			a, got := do(t, c, q)
			if want := fmt.Sprintf("%d ok", size); got != want || a.Trailer.Get("X-Sum") != "42" {
				t.Errorf("got %q and trailers %v, want %q", got, a.Trailer, want)
			}
		}
	})
}

func TestInterimResponsesPassBetweenAllVersions(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(103)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "done")
	}, func(t *testing.T, c *http.Client, url string) {
		hints := 0
		q := newRequest(t, "GET", url, nil)
		q = q.WithContext(httptrace.WithClientTrace(q.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == 103 && h.Get("Link") == "</a.css>" {
					hints++
				}
				return nil
			},
		}))
		if a, got := do(t, c, q); a.StatusCode != 200 || got != "done" || hints != 1 {
			t.Errorf("%d %q, %d hints", a.StatusCode, got, hints)
		}
	})
}

// The connection to the instance is others', too: while the final head is to come, they
// are served.
func TestAnInterimResponseHoldsUpNobodyInAnyVersion(t *testing.T) {
	release := make(chan struct{})
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			w.WriteHeader(103)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}, func(t *testing.T, c *http.Client, url string) {
		release = make(chan struct{})
		do(t, c, newRequest(t, "GET", url+"/", nil)) // so that there is a connection, and none is waited for
		hinted := make(chan struct{})
		q := newRequest(t, "GET", url+"/slow", nil)
		q = q.WithContext(httptrace.WithClientTrace(q.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { close(hinted); return nil }}))
		ended := make(chan string)
		go func() {
			a, err := c.Do(q)
			if err != nil {
				ended <- err.Error()
				return
			}
			got, _ := io.ReadAll(a.Body)
			_ = a.Body.Close()
			ended <- string(got)
		}()
		<-hinted
		if a, got := do(t, c, newRequest(t, "GET", url+"/", nil)); a.StatusCode != 200 || got != "done" {
			t.Errorf("meanwhile: %d %q", a.StatusCode, got)
		}
		close(release)
		if got := <-ended; got != "done" {
			t.Errorf("%q", got)
		}
	})
}

func TestResponsesWithoutABodyHaveNoneInAnyVersion(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		if status, err := strconv.Atoi(q.URL.Path[1:]); err == nil {
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Length", "5")
		if q.Method != "HEAD" {
			_, _ = io.WriteString(w, "hello")
		}
	}, func(t *testing.T, c *http.Client, url string) {
		for _, test := range []struct {
			method, path string
			status       int
			length       int64
			body         string
		}{
			{"HEAD", "/", 200, 5, ""}, {"GET", "/204", 204, 0, ""}, {"GET", "/304", 304, 0, ""}, {"GET", "/200", 200, 0, ""}, {"GET", "/", 200, 5, "hello"},
		} {
			a, got := do(t, c, newRequest(t, test.method, url+test.path, nil))
			if a.StatusCode != test.status || got != test.body || a.ContentLength != test.length && a.ContentLength != -1 {
				t.Errorf("%s %s: %d, length %d, %q", test.method, test.path, a.StatusCode, a.ContentLength, got)
			}
		}
	})
}

func TestBodiesStreamBothWaysAtOnceInAllVersions(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		w.WriteHeader(200)
		_ = rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := q.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = rc.Flush()
			if err != nil {
				return
			}
		}
	}, func(t *testing.T, c *http.Client, url string) {
		pr, pw := io.Pipe()
		a, err := c.Do(newRequest(t, "POST", url, pr))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
		got := make([]byte, 10)
		for i := range 50 {
			sent := fmt.Sprintf("message%03d", i)
			_, _ = io.WriteString(pw, sent)
			if _, err := io.ReadFull(a.Body, got); err != nil || string(got) != sent {
				t.Fatalf("message %d: %q, %v", i, got, err)
			}
		}
		_ = pw.Close()
		if rest, err := io.ReadAll(a.Body); len(rest) > 0 || err != nil {
			t.Errorf("behind the end: %q, %v", rest, err)
		}
	})
}

func TestManyRequestsAtOnceGetTheirOwnAnswersInAllVersions(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		n, _ := strconv.Atoi(q.URL.Path[1:])
		_, _ = w.Write(bytes.Repeat([]byte(q.URL.Path), n))
	}, func(t *testing.T, c *http.Client, url string) {
		var all sync.WaitGroup
		for i := range 150 {
			all.Go(func() {
				for n := range 5 {
					path := fmt.Sprintf("/%d", i*40+n)
					a, err := c.Get(url + path)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(a.Body)
					_ = a.Body.Close()
					if err != nil || string(got) != strings.Repeat(path, i*40+n) {
						t.Errorf("%s: %d bytes, %v", path, len(got), err)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestClientThatGivesUpEndsTheRequestAtTheInstanceInAllVersions(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan struct{}, 1)
	eachPair(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/body" {
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
		}
		begun <- struct{}{}
		<-q.Context().Done()
		ended <- struct{}{}
	}, func(t *testing.T, c *http.Client, url string) {
		for _, path := range []string{"/head", "/body"} {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				a, err := c.Do(newRequest(t, "GET", url+path, nil).WithContext(ctx))
				if err == nil {
					_, _ = io.Copy(io.Discard, a.Body)
					_ = a.Body.Close()
				}
			}()
			<-begun
			cancel()
			<-done
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatalf("%s: the instance was not told", path)
			}
		}
	})
}

func TestResponseThatBreaksOffIsNotTakenForWholeInAnyVersion(t *testing.T) {
	eachPair(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 100_000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, c *http.Client, url string) {
		a, err := c.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
		if n, err := io.Copy(io.Discard, a.Body); err == nil {
			t.Errorf("%d bytes, and no error", n)
		}
	})
}

func TestRequestTimeoutIsKeptInAllVersions(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	h := func(http.ResponseWriter, *http.Request) { asked.Add(1); <-release }
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				release = make(chan struct{})
				r := start(t, []string{out.backend(t, h)}, timeout(100*time.Millisecond), func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				t.Cleanup(func() { close(release) })
				a, got := do(t, in.client(t), newRequest(t, "GET", "http://"+r.addr, nil))
				if a.StatusCode != 504 || a.Header.Get("Fairlead-Reason") != "request_timeout" {
					t.Errorf("%d %v %q", a.StatusCode, a.Header, got)
				}
			})
		}
	}
}

func TestLargeUploadThatIsNotReadHoldsTheClientBackInAllVersions(t *testing.T) {
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				held := make(chan struct{})
				addr := out.backend(t, func(w http.ResponseWriter, q *http.Request) {
					<-held
					n, err := io.Copy(io.Discard, q.Body)
					_, _ = fmt.Fprint(w, n, err)
				})
				r := start(t, []string{addr}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				const size = 64 << 20
				var sent atomic.Int64
				body := &countingReader{left: size, sent: &sent}
				answer := make(chan string, 1)
				go func() {
					a, err := in.client(t).Do(newRequest(t, "POST", "http://"+r.addr, body))
					if err != nil {
						answer <- err.Error()
						return
					}
					defer func() { _ = a.Body.Close() }()
					got, _ := io.ReadAll(a.Body)
					answer <- string(got)
				}()
				var before int64 = -1
				for now := sent.Load(); now != before || now == 0; now = sent.Load() {
					before = now
					time.Sleep(200 * time.Millisecond)
				}
				if before > size/2 {
					t.Errorf("%d bytes were taken that nobody reads", before)
				}
				close(held)
				if got := <-answer; got != fmt.Sprint(size, "<nil>") && got != fmt.Sprint(int64(size), error(nil)) {
					t.Errorf("the instance got %s", got)
				}
			})
		}
	}
}

type countingReader struct {
	left int
	sent *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.left)
	r.left -= n
	r.sent.Add(int64(n))
	return n, nil
}

func TestInstanceThatIsGoneIsReplacedInAllVersions(t *testing.T) {
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				alive := out.backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })
				r := start(t, []string{deadAddress(t), alive}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				c := in.client(t)
				for range 20 {
					if a, got := do(t, c, newRequest(t, "POST", "http://"+r.addr, strings.NewReader("hi"))); a.StatusCode != 200 || got != "hi" {
						t.Fatalf("%d %q", a.StatusCode, got)
					}
				}
			})
		}
	}
}

// Neither is answered as if it were the other: h2spec wants no word of HTTP/1.1 to a preface that is not valid.
func TestWhatBeginsAsNoVersionDoesIsRefusedAsHTTP2(t *testing.T) {
	r := start(t, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	for sent, inHTTP1 := range map[string]bool{
		"INVALID CONNECTION PREFACE\r\n\r\n": false,
		"SSH FOO BAR BAZ\r\n":                false,
		"GET / HTPP/1.1\r\n\r\n":             true,
		"GET a HTTP/1.1\r\n\r\n":             true,
		"GET a b HTTP\r\n\r\n":               true,
		"GET http://a/ FTP\r\n\r\n":          true,
		"OPTIONS * FTP\r\n\r\n":              true,
		"GET /\r\n\r\n":                      true,
		"EHLO client.example\r\n\r\n":        true,
		"\x16\x03 a b c\r\n\r\n":             true,
	} {
		got := r.raw(sent)
		if strings.HasPrefix(got, "HTTP/1.1 400 ") != inHTTP1 {
			t.Errorf("%q: %q", sent, got)
		}
		if inHTTP1 {
			continue
		}
		f := h2.NewFramer(io.Discard, strings.NewReader(got))
		for told := false; !told; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Errorf("%q: no GOAWAY with PROTOCOL_ERROR in %q: %v", sent, got, err)
				break
			}
			away, ok := frame.(*h2.GoAwayFrame)
			told = ok && away.ErrCode == h2.ErrCodeProtocol
		}
	}
}
