package proxy_test

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// trailers frames trailers as gRPC-Web has them.
func trailers(text string) string {
	return string(binary.BigEndian.AppendUint32([]byte{0x80}, uint32(len(text)))) + text
}

// decode decodes base64 that is padded anywhere.
func decode(t *testing.T, text string) string {
	t.Helper()
	if len(text)%4 != 0 {
		t.Fatalf("%q is not base64", text)
	}
	var all strings.Builder
	for at := 0; at < len(text); at += 4 {
		b, err := base64.StdEncoding.DecodeString(text[at : at+4])
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all.Write(b)
	}
	return all.String()
}

// eachWebClient runs a test for clients of either version, with either form of gRPC-Web. say
// and hear turn what gRPC says into what the form has, and back.
func eachWebClient(t *testing.T, app http.HandlerFunc, test func(t *testing.T, r *rig, c *http.Client, kind string, say, hear func(string) string), options ...option) {
	for _, in := range versions {
		for _, kind := range []string{"application/grpc-web+proto", "application/grpc-web-text+proto"} {
			t.Run(in.name+" "+kind, func(t *testing.T) {
				say, hear := func(s string) string { return s }, func(s string) string { return s }
				if strings.Contains(kind, "text") {
					say = func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
					hear = func(s string) string { return decode(t, s) }
				}
				r := start(t, []string{http2Version.backend(t, app)}, append(options, overGRPC)...)
				test(t, r, in.client(t), kind, say, hear)
			})
		}
	}
}

func TestGRPCWebIsAnsweredByGRPC(t *testing.T) {
	eachWebClient(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("Saw", fmt.Sprint(q.Header["Content-Type"], q.Header["Te"], q.Header["X-Grpc-Web"]))
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc+proto")
		_, _ = w.Write(body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"X-Bin", "AAEC")
	}, func(t *testing.T, r *rig, c *http.Client, kind string, say, hear func(string) string) {
		for _, size := range []int{0, 1, 2, 3, 5000, 20_000, 1 << 20} {
			for _, streamed := range []bool{false, true} {
				sent := message(strings.Repeat("x", size))
				var from io.Reader = strings.NewReader(say(sent))
				if streamed {
					from = io.MultiReader(from)
				}
				q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", from)
				q.Header.Set("Content-Type", kind)
				q.Header.Set("X-Grpc-Web", "1")
				a, got := do(t, c, q)
				got, ok := strings.CutPrefix(hear(got), sent)
				if a.StatusCode != 200 || a.Header.Get("Content-Type") != kind || !ok || len(a.Trailer) > 0 {
					t.Fatalf("%d bytes: %d %v, %d bytes back, trailers %v", size, a.StatusCode, a.Header, len(got), a.Trailer)
				}
				if got != trailers("grpc-status: 0\r\nx-bin: AAEC\r\n") && got != trailers("x-bin: AAEC\r\ngrpc-status: 0\r\n") {
					t.Errorf("behind the messages: %q", got)
				}
				if saw := a.Header.Get("Saw"); saw != "[application/grpc+proto] [trailers] [1]" {
					t.Errorf("the instance saw %s", saw)
				}
			}
		}
		r.afterAll(14)
		if m := r.metrics(); !strings.Contains(m, `fairlead_grpc_calls_total{destination="c",grpc_status="OK",source="test"} 14`) {
			t.Errorf("metrics %s", m)
		}
	})
}

func TestStatusWithoutAMessageIsInTheHeadOfGRPCWeb(t *testing.T) {
	eachWebClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "5")
	}, func(t *testing.T, r *rig, c *http.Client, kind string, say, _ func(string) string) {
		q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader(say(message("x"))))
		q.Header.Set("Content-Type", kind)
		if a, got := do(t, c, q); a.StatusCode != 200 || a.Header.Get("Grpc-Status") != "5" || got != "" || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/grpc-web") {
			t.Errorf("%d %v %q", a.StatusCode, a.Header, got)
		}
	})
}

// A status of HTTP's that has no body leaves no place for trailers.
func TestAGRPCWebResponseThatHasNoBodyGoesAsItIs(t *testing.T) {
	for _, status := range []int{204, 304} {
		r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(status)
		})}, overGRPC)
		for _, v := range versions {
			for _, kind := range []string{"application/grpc-web", "application/grpc-web-text"} {
				q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader(""))
				q.Header.Set("Content-Type", kind)
				if a, body := do(t, v.client(t), q); a.StatusCode != status || body != "" {
					t.Errorf("%s by %s: %d %q, not %d", kind, v.name, a.StatusCode, body, status)
				}
			}
		}
	}
}

func TestMessagesOfAGRPCWebStreamComeOneByOne(t *testing.T) {
	next := make(chan struct{}, 1)
	eachWebClient(t, func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		w.Header().Set("Content-Type", "application/grpc+proto")
		for n := range 5 {
			<-next
			_, _ = io.WriteString(w, message(strings.Repeat("y", n)))
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}, func(t *testing.T, r *rig, c *http.Client, kind string, say, hear func(string) string) {
		q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader(say(message("x"))))
		q.Header.Set("Content-Type", kind)
		next <- struct{}{}
		a, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
		for n := range 5 {
			want := message(strings.Repeat("y", n))
			got := make([]byte, len(say(want)))
			if _, err := io.ReadFull(a.Body, got); err != nil || hear(string(got)) != want {
				t.Fatalf("message %d: %q, %v", n, got, err)
			}
			if n < 4 {
				next <- struct{}{}
			}
		}
		rest, err := io.ReadAll(a.Body)
		if err != nil || hear(string(rest)) != trailers("grpc-status: 0\r\n") {
			t.Errorf("the end: %q, %v", rest, err)
		}
	})
}

func TestGRPCWebThatBreaksOffEndsWithAStatus(t *testing.T) {
	eachWebClient(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/grpc+proto")
		_, _ = io.WriteString(w, message("hello"))
		_ = http.NewResponseController(w).Flush()
		if q.URL.Path == "/late" {
			<-q.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, r *rig, c *http.Client, kind string, say, hear func(string) string) {
		for path, want := range map[string]string{"/reset": "grpc-status: 13\r\n", "/late": "grpc-status: 4\r\n"} {
			q := newRequest(t, "POST", "http://"+r.addr+path, strings.NewReader(say(message("x"))))
			q.Header.Set("Content-Type", kind)
			q.Header.Set("Grpc-Timeout", "300m")
			_, got := do(t, c, q)
			if got = hear(got); !strings.HasPrefix(got, message("hello")+"\x80") || !strings.Contains(got, want) {
				t.Errorf("%s: %q", path, got)
			}
		}
	})
}

func TestGRPCWebOfAnHTTP1InstanceThatBreaksOffEndsWithAStatus(t *testing.T) {
	h1 := versions[0]
	for _, in := range versions {
		for _, kind := range []string{"application/grpc-web", "application/grpc-web-text"} {
			r := start(t, []string{h1.backend(t, func(w http.ResponseWriter, q *http.Request) {
				w.Header().Set("Content-Type", kind)
				_, _ = io.WriteString(w, "AAAAAAF4")
				_ = http.NewResponseController(w).Flush()
				<-q.Context().Done()
			})})
			q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader("AAAAAAF4"))
			q.Header.Set("Content-Type", kind)
			q.Header.Set("Grpc-Timeout", "200m")
			_, got := do(t, in.client(t), q)
			got, ok := strings.CutPrefix(got, "AAAAAAF4")
			if strings.Contains(kind, "text") {
				got = decode(t, got)
			}
			if !ok || !strings.HasPrefix(got, "\x80\x00\x00") || !strings.Contains(got, "grpc-status: 4\r\ngrpc-message: ") {
				t.Errorf("%s, %s: %q", in.name, kind, got)
			}
		}
	}
}

func TestConnectionGoesOnThoughTheInstanceDidNotWantTheBody(t *testing.T) {
	for _, out := range versions {
		r := start(t, []string{out.backend(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/early" {
				w.Header().Set("Connection", "close") // or HTTP/1.1 would read the body away
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(200)
				_ = http.NewResponseController(w).Flush()
				return
			}
			_, _ = io.Copy(w, q.Body)
		})}, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		from := bufio.NewReader(c)
		for n := range 3 {
			_, _ = io.WriteString(c, "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			a, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(a.Body); err != nil {
				t.Fatal(err)
			}
			if a.Close {
				t.Fatalf("to %s, %d: the client is told that the connection ends", out.name, n)
			}
			_, _ = io.WriteString(c, "5\r\nhello\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
			a, err = http.ReadResponse(from, nil)
			if err != nil {
				t.Fatalf("to %s, %d: %v", out.name, n, err)
			}
			if b, err := io.ReadAll(a.Body); err != nil || string(b) != "hi" {
				t.Fatalf("to %s, %d: %q, %v", out.name, n, b, err)
			}
		}
	}
}

func TestGRPCWebTextThatIsNoBase64IsRefused(t *testing.T) {
	for _, in := range versions {
		r := start(t, []string{http2Version.backend(t, func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) })}, overGRPC, withBreaker)
		for _, body := range []string{"AAAA?", "AAAAA", "AAAA\n", strings.Repeat("AAAA", 100_000) + "?"} {
			q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader(body))
			q.Header.Set("Content-Type", "application/grpc-web-text")
			a, _ := do(t, in.client(t), q)
			if a.StatusCode != 200 || a.Header.Get("Grpc-Status") != "13" || a.Header.Get("Fairlead-Reason") != "bad_request" || !strings.Contains(a.Header.Get("Grpc-Message"), "base64") {
				t.Errorf("%s: %d %v", in.name, a.StatusCode, a.Header)
			}
		}
		if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 0 {
			t.Errorf("%d failures", s.Failures)
		}
	}
}

func TestGRPCWebGoesAsItIsToInstancesThatSpeakHTTP1(t *testing.T) {
	h1 := versions[0]
	r := start(t, []string{h1.backend(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", q.Header.Get("Content-Type"))
		_, _ = io.Copy(w, q.Body)
	})}, withBreaker, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = mesh.ProtocolHTTP })
	for _, kind := range []string{"application/grpc-web", "application/grpc-web-text"} {
		q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader("AA?"))
		q.Header.Set("Content-Type", kind)
		if a, got := do(t, h1.client(t), q); a.StatusCode != 200 || a.Header.Get("Content-Type") != kind || got != "AA?" {
			t.Errorf("%d %v %q", a.StatusCode, a.Header, got)
		}
	}
	r.afterAll(2)
	if m := r.metrics(); strings.Contains(m, "fairlead_grpc_calls_total{") {
		t.Errorf("a status was counted that is in the body:\n%s", m)
	}
}

func TestConnectionGoesOnBehindGRPCWeb(t *testing.T) {
	r := start(t, []string{http2Version.backend(t, func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(q.Header.Get("Content-Type"), "application/grpc") {
			answerCall(0, "")(w, q)
			return
		}
		_, _ = io.Copy(w, q.Body)
	})}, overGRPC)
	c := versions[0].client(t)
	for n := range 6 {
		kind, body := "application/grpc-web-text", base64.StdEncoding.EncodeToString([]byte(message("x")))
		if n%2 == 1 {
			kind, body = "text/plain", "plain"
		}
		q := newRequest(t, "POST", "http://"+r.addr+"/a.B/C", strings.NewReader(body))
		q.Header.Set("Content-Type", kind)
		if a, got := do(t, c, q); a.StatusCode != 200 || n%2 == 1 && got != "plain" || n%2 == 0 && !strings.HasPrefix(decode(t, got), message("hello")+"\x80") {
			t.Errorf("%d: %d %q", n, a.StatusCode, got)
		}
	}
}
