package proxy_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// host is the side of an instance that sends what frames it likes.
type host struct {
	*h2.Framer
	nc     net.Conn
	out    bytes.Buffer
	text   bytes.Buffer
	fields *hpack.Encoder
	asked  *atomic.Int64 // how many requests came, on all connections
}

// hostOf is an instance that greets and then does as serve says, on each connection. It
// returns how many heads of requests have been read from all.
func hostOf(t *testing.T, settings []h2.Setting, serve func(h *host)) (string, *atomic.Int64) {
	t.Helper()
	asked := new(atomic.Int64)
	return listener(t, func(nc net.Conn) {
		_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
		h := &host{nc: nc, asked: asked}
		h.Framer = h2.NewFramer(&h.out, nc)
		h.AllowIllegalReads, h.AllowIllegalWrites = true, true
		h.fields = hpack.NewEncoder(&h.text)
		if _, err := io.ReadFull(nc, make([]byte, len(h2.ClientPreface))); err != nil {
			return
		}
		_ = h.WriteSettings(settings...)
		_ = h.WriteSettingsAck()
		h.flush()
		serve(h)
		_, _ = io.Copy(io.Discard, nc) // until the other side has had enough
	}), asked
}

func (h *host) flush() bool {
	_, err := h.nc.Write(h.out.Bytes())
	h.out.Reset()
	return err == nil
}

// await returns the stream of the next request; 0: there is none any more.
func (h *host) await() uint32 {
	for {
		f, err := h.ReadFrame()
		if err != nil {
			return 0
		}
		if f.Header().Type == h2.FrameHeaders {
			h.asked.Add(1)
			return f.Header().StreamID
		}
	}
}

// each does what once says for each request.
func (h *host) each(once func(id uint32)) {
	for id := h.await(); id != 0; id = h.await() {
		once(id)
		h.flush()
	}
}

// head writes HEADERS of names and values.
func (h *host) head(id uint32, end bool, fields ...string) {
	h.text.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = h.fields.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = h.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: h.text.Bytes(), EndStream: end, EndHeaders: true})
}

// flood sends what once writes until the other side has had enough. It must have by a
// million.
func (h *host) flood(once func()) {
	for i := range 1_000_000 {
		if once(); i%20 == 19 && !h.flush() {
			return
		}
	}
}

func speaksHTTP2(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = mesh.ProtocolHTTP2 }

// badHosts answer requests as no host should.
var badHosts = []struct {
	name     string
	settings []h2.Setting
	serve    func(h *host)
	method   string // GET if empty
	status   int
	reason   string
	asked    int64 // how many requests it sees for one; 0: whatever
	body     string
	breaks   bool // the body breaks off
}{
	{name: "a response to a request that was not sent", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.head(99, true, ":status", "200")
		h.flush()
	}},
	{name: "a response on a stream of its own", status: 502, reason: "upstream_reset", asked: 2, serve: func(h *host) {
		h.each(func(uint32) { h.head(2, true, ":status", "200") })
	}},
	{name: "DATA before the head", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { _ = h.WriteData(id, true, []byte("x")) })
	}},
	{name: "no status", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, true, "x", "y") })
	}},
	{name: "a pseudo-header field of requests", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, true, ":status", "200", ":path", "/") })
	}},
	{name: "a field about the connection", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, true, ":status", "200", "connection", "close") })
	}},
	{name: "another protocol (101)", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, false, ":status", "101", "x", "y") })
	}},
	{name: "an interim response that ends the stream", status: 502, reason: "upstream_protocol", asked: 1, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, true, ":status", "103") })
	}},
	{name: "nothing", status: 504, reason: "request_timeout", asked: 1, serve: func(h *host) { h.each(func(uint32) {}) }},
	{name: "only streams that may not begin", settings: []h2.Setting{{ID: h2.SettingMaxConcurrentStreams, Val: 0}}, status: 504, reason: "request_timeout",
		serve: func(h *host) { h.each(func(uint32) {}) }},
	{name: "an end before each request", serve: func(h *host) {
		_ = h.WriteGoAway(0, h2.ErrCodeNo, nil)
		h.flush()
		h.await()
	}},
	{name: "an end after each request, which it did not take", status: 502, reason: "upstream_reset", asked: 2, method: "POST", serve: func(h *host) {
		h.await()
		_ = h.WriteGoAway(0, h2.ErrCodeNo, nil)
		h.flush()
	}},
	{name: "an end, and then the answer", status: 200, asked: 1, body: "ok", serve: func(h *host) {
		id := h.await()
		_ = h.WriteGoAway(id, h2.ErrCodeNo, nil)
		h.head(id, false, ":status", "200")
		_ = h.WriteData(id, true, []byte("ok"))
		h.flush()
	}},
	{name: "an end that moves up again", status: 502, reason: "upstream_reset", asked: 2, serve: func(h *host) {
		id := h.await()
		_ = h.WriteGoAway(0, h2.ErrCodeNo, nil)
		_ = h.WriteGoAway(id, h2.ErrCodeNo, nil)
		h.head(id, true, ":status", "200")
		h.flush()
	}},
	{name: "ends of the connection without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.await()
		h.flood(func() { _ = h.WriteGoAway(1<<31-1, h2.ErrCodeNo, nil) })
	}},
	{name: "trailers that do not end the stream", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, false, ":status", "200"); h.head(id, false, "x", "y") })
	}},
	{name: "a second final head", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, false, ":status", "200"); h.head(id, true, ":status", "200") })
	}},
	{name: "trailers that are malformed", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) { h.head(id, false, ":status", "200"); h.head(id, true, "X", "y") })
	}},
	{name: "trailers before the content is as long as was said", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "200", "content-length", "5")
			h.head(id, true, "x", "y")
		})
	}},
	{name: "less than was said", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "200", "content-length", "5")
			_ = h.WriteData(id, true, []byte("four"))
		})
	}},
	{name: "more than was said", status: 200, asked: 1, breaks: true, serve: func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "200", "content-length", "5")
			_ = h.WriteData(id, true, []byte("sixsix"))
		})
	}},
	{name: "content behind the end", status: 200, asked: 1, body: "ok", serve: func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "200")
			_ = h.WriteData(id, true, []byte("ok"))
			_ = h.WriteData(id, true, []byte("and more"))
		})
	}},
	{name: "content that a HEAD does not have", method: "HEAD", status: 200, asked: 1, serve: func(h *host) {
		h.each(func(id uint32) {
			h.head(id, false, ":status", "200", "content-length", "2")
			_ = h.WriteData(id, true, []byte("ok"))
		})
	}},
	{name: "a promise", status: 502, reason: "upstream_reset", asked: 2, serve: func(h *host) {
		h.each(func(id uint32) {
			h.text.Reset()
			_ = h.fields.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
			_ = h.WritePushPromise(h2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: h.text.Bytes(), EndHeaders: true})
		})
	}},
	{name: "another protocol", status: 502, reason: "upstream_reset", serve: func(h *host) {
		_, _ = io.WriteString(h.nc, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	}},
	{name: "PING without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.flood(func() { _ = h.WritePing(false, [8]byte{}) })
	}},
	{name: "SETTINGS without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.flood(func() { _ = h.WriteSettings() })
	}},
	{name: "windows of all streams that change without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		var many []h2.Setting
		for i := range 2000 {
			many = append(many, h2.Setting{ID: h2.SettingInitialWindowSize, Val: uint32(i)})
		}
		h.await()
		h.flood(func() { _ = h.WriteSettings(many...) })
	}},
	{name: "a header block without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		id := h.await()
		_ = h.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
		h.flood(func() { _ = h.WriteContinuation(id, false, []byte("\x00\x01x\x01y")) })
	}},
	{name: "a header block of empty frames", status: 502, reason: "upstream_reset", serve: func(h *host) {
		id := h.await()
		_ = h.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
		h.flood(func() { _ = h.WriteContinuation(id, false, nil) })
	}},
	{name: "empty DATA without end", status: 200, breaks: true, serve: func(h *host) {
		id := h.await()
		h.head(id, false, ":status", "200")
		h.flush()
		h.flood(func() { _ = h.WriteData(id, false, nil) })
	}},
	{name: "DATA for a stream that has ended", status: 200, body: "", serve: func(h *host) {
		id := h.await()
		h.head(id, true, ":status", "200")
		h.flood(func() { _ = h.WriteData(id, true, nil) })
	}},
	{name: "heads for a stream that has ended", status: 200, body: "", serve: func(h *host) {
		id := h.await()
		h.head(id, true, ":status", "200")
		h.flood(func() { h.head(id, true, "x", "y") })
	}},
	{name: "frames of unknown types", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.flood(func() { _ = h.WriteRawFrame(0xbe, 0, 0, nil) })
	}},
	{name: "PRIORITY without end", status: 502, reason: "upstream_reset", serve: func(h *host) {
		h.flood(func() { _ = h.WritePriority(1, h2.PriorityParam{}) })
	}},
	{name: "heads that decode to a hundred times their size", status: 502, asked: 1, reason: "upstream_protocol", serve: func(h *host) {
		h.each(func(id uint32) {
			h.text.Reset()
			_ = h.fields.WriteField(hpack.HeaderField{Name: "bomb", Value: strings.Repeat("x", 3000)})
			_ = h.WriteHeaders(h2.HeadersFrameParam{StreamID: id, EndHeaders: true,
				BlockFragment: append(append([]byte{0x88}, h.text.Bytes()...), bytes.Repeat([]byte{0x80 | 62}, 12_000)...)})
		})
	}},
}

func TestHostThatBreaksHTTP2CostsItsOwnRequestsOnly(t *testing.T) {
	for _, test := range badHosts {
		t.Run(test.name, func(t *testing.T) {
			good := start(t, []string{versions[1].backend(t, (&victim{}).ServeHTTP)}, speaksHTTP2)
			addr, asked := hostOf(t, test.settings, test.serve)
			most := patience
			if test.reason == "request_timeout" {
				most = time.Second // which it runs into
			}
			r := start(t, []string{addr}, timeout(most), withoutBreaker, speaksHTTP2)
			other := versions[1].client(t)
			serveOther(t, other, good.addr)
			used := measure()
			method := test.method
			if method == "" {
				method = "GET"
			}
			for i, in := range versions {
				before := asked.Load()
				q := newRequest(t, method, "http://"+r.addr+"/", nil)
				a, err := in.client(t).Do(q)
				if err != nil {
					if test.breaks {
						continue // so soon that the client has not seen the head
					}
					t.Fatalf("%s: %v", in.name, err)
				}
				got, err := io.ReadAll(a.Body)
				_ = a.Body.Close()
				if test.status == 0 { // it depends on what comes first
					if a.StatusCode != 502 && a.StatusCode != 503 || !slices.Contains([]string{"upstream_reset", "connect_failed"}, a.Header.Get("Fairlead-Reason")) {
						t.Errorf("%s: %d %v %q", in.name, a.StatusCode, a.Header, got)
					}
					continue
				}
				if a.StatusCode == 503 && a.Header.Get("Fairlead-Reason") == "connect_failed" && test.reason == "upstream_reset" {
					continue // its connections ended before they could take a request
				}
				if a.StatusCode != test.status || a.Header.Get("Fairlead-Reason") != test.reason || (err != nil) != test.breaks ||
					test.reason == "" && !test.breaks && string(got) != test.body {
					t.Errorf("%s: %d %q, %q %v", in.name, a.StatusCode, a.Header.Get("Fairlead-Reason"), got, err)
				}
				if n := asked.Load() - before; test.asked != 0 && n != test.asked {
					t.Errorf("%s: the request was sent %d times, not %d", in.name, n, test.asked)
				}
				if i == 0 {
					serveOther(t, other, good.addr)
				}
			}
			used.end()
			if used.memory > heap*48<<20 {
				t.Errorf("%d MB were used", used.memory>>20)
			}
			inFlight(t, map[string]float64{"c": 0}, r.counts)
			serveOther(t, other, good.addr)
		})
	}
}

// RFC 9113 §8.7: REFUSED_STREAM says that nothing was acted upon; what other codes say
// only allows a request to be sent again that may be sent twice. §8.1.1: PROTOCOL_ERROR for one stream
// says that the request is malformed; a client could bring others' breakers to open by what only the
// host refuses.
func TestResetRequestIsSentAgainWhereThatIsSafe(t *testing.T) {
	for code := h2.ErrCode(0); code <= 14; code++ {
		for _, method := range []string{"GET", "POST"} {
			addr, asked := hostOf(t, nil, func(h *host) { h.each(func(id uint32) { _ = h.WriteRSTStream(id, code) }) })
			r := start(t, []string{addr}, withoutBreaker, speaksHTTP2)
			want := int64(1)
			if method == "GET" || code == h2.ErrCodeRefusedStream {
				want = 2
			}
			a, body := r.do(method, "/", nil)
			if a.StatusCode != http.StatusBadGateway || a.Header.Get("Fairlead-Reason") != "upstream_reset" || asked.Load() != want {
				t.Errorf("%s and %s: %d %q, sent %d times, not %d", code, method, a.StatusCode, a.Header.Get("Fairlead-Reason"), asked.Load(), want)
			}
			if code <= h2.ErrCodeHTTP11Required && code != h2.ErrCodeRefusedStream && !strings.Contains(body, "reset the request's stream: "+code.String()+" (") {
				t.Errorf("%s and %s: %q", code, method, body)
			}
			failures := uint64(want)
			if code == h2.ErrCodeProtocol {
				failures = 0
			}
			if got := r.set.Clusters()[0].Hosts()[0].Status(0).Failures; got != failures {
				t.Errorf("%s and %s: %d failures of the host, not %d", code, method, got, failures)
			}
		}
	}
}

// RFC 9113 §6.8: "Any protocol activity that uses higher-numbered streams can be safely retried using a
// new connection." Hosts end connections after a number of requests, and so several at a time: it is no
// failure of theirs, and what they left out several times is answered all the same.
func TestRequestsThatAHostLeavesOutAsItEndsConnectionsAreAnswered(t *testing.T) {
	const requests = 4
	var conns atomic.Int64
	addr, asked := hostOf(t, nil, func(h *host) { // the first takes one of four, the second one of three
		first := h.await()
		for range requests - conns.Add(1) {
			h.await()
		}
		_ = h.WriteGoAway(first, h2.ErrCodeNo, nil)
		h.head(first, true, ":status", "200")
		h.flush()
	})
	r := start(t, []string{addr}, withoutBreaker, speaksHTTP2)
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			if a, body := r.do("POST", "/", nil); a.StatusCode != http.StatusOK {
				t.Errorf("%d %q", a.StatusCode, body)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n != requests*(requests+1)/2 {
		t.Errorf("%d requests came", n)
	}
	if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Failures != 0 {
		t.Errorf("%d failures of the host", s.Failures)
	}
}

// That the connection ended is this side's doing: what the host did is said with it.
func TestARefusalSaysHowItsHostBreaksHTTP2(t *testing.T) {
	addr, _ := hostOf(t, nil, func(h *host) {
		h.each(func(id uint32) {
			_ = h.WritePushPromise(h2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: []byte{0x82}, EndHeaders: true})
		})
	})
	r := start(t, []string{addr}, withoutBreaker, speaksHTTP2)
	a, body := r.do("GET", "/", nil)
	if a.StatusCode != http.StatusBadGateway || a.Header.Get("Fairlead-Reason") != "upstream_reset" || !strings.Contains(body, "PUSH_PROMISE, which was not asked for") {
		t.Errorf("%d %v %q", a.StatusCode, a.Header, body)
	}
}

// RFC 9113 §6.9: "A receiver MAY respond with a stream error or connection error of type
// FLOW_CONTROL_ERROR if it is unable to accept a frame." The client takes nothing, so that no
// window is opened again, however fast the proxy is.
func TestHostThatSendsMoreThanAWindowAllowsIsReset(t *testing.T) {
	ended := make(chan h2.ErrCode, 1)
	addr, _ := hostOf(t, nil, func(h *host) {
		id := h.await()
		h.head(id, false, ":status", "200")
		go func() {
			for range 200 {
				_ = h.WriteData(id, false, make([]byte, 16<<10))
				if !h.flush() {
					return
				}
			}
		}()
		for {
			f, err := h.ReadFrame()
			if err != nil {
				close(ended)
				return
			}
			switch f := f.(type) {
			case *h2.RSTStreamFrame:
				ended <- f.ErrCode
				return
			case *h2.GoAwayFrame:
				ended <- f.ErrCode
				return
			}
		}
	})
	r := start(t, []string{addr}, timeout(15*time.Second), withoutBreaker, speaksHTTP2)
	a := r.attack(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
	id := a.open("GET", "/", true)
	a.flush()
	if code, ok := <-ended; !ok || code != h2.ErrCodeFlowControl {
		t.Errorf("it is ended with %s", code)
	}
	// For what came before: more than 65,535, if the proxy found much of it at once.
	_ = a.WriteWindowUpdate(0, 1<<20)
	_ = a.WriteWindowUpdate(id, 1<<20)
	a.flush()
	answered := false
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatalf("the client's stream is not reset: %v", err)
		}
		switch f := f.(type) {
		case *h2.HeadersFrame:
			answered = true
		case *h2.RSTStreamFrame:
			if f.StreamID != id || !answered {
				t.Errorf("stream %d is reset, answered: %t", f.StreamID, answered)
			}
			return
		}
	}
}

// RFC 9113 §8.1: "A server can send a complete response prior to the client sending an entire request if
// the response does not depend on any portion of the request that has not been sent and received." One
// that closes then is found out by whoever writes to it, who must not keep the answer from whoever reads.
func TestAnswerOfAHostThatClosesInTheMiddleOfTheRequestComes(t *testing.T) {
	const pieces, piece = 4, 16_000
	addr, _ := hostOf(t, nil, func(h *host) {
		id := h.await()
		for range 2 {
			_, _ = h.ReadFrame()
		}
		_ = h.WriteGoAway(id, h2.ErrCodeNo, nil) // so that the next request does not come here
		h.head(id, false, ":status", "413")
		for n := range pieces {
			_ = h.WriteData(id, n == pieces-1, make([]byte, piece))
		}
		h.flush()
		_ = h.nc.Close() // much of the request is unread
	})
	r := start(t, []string{addr}, withoutBreaker, speaksHTTP2)
	for _, in := range versions {
		for range 150 {
			c := in.client(t)
			a, err := c.Do(newRequest(t, "POST", "http://"+r.addr+"/", strings.NewReader(strings.Repeat("x", 400_000))))
			if err != nil {
				t.Fatalf("%s: %v", in.name, err)
			}
			n, err := io.Copy(io.Discard, a.Body)
			_ = a.Body.Close()
			if a.StatusCode != http.StatusRequestEntityTooLarge || n != pieces*piece || err != nil {
				t.Fatalf("%s: %d %q, %d bytes, %v", in.name, a.StatusCode, a.Header.Get("Fairlead-Reason"), n, err)
			}
			c.CloseIdleConnections()
		}
	}
}

// A connection may end anywhere.
func TestConnectionOfAHostMayEndAnywhere(t *testing.T) {
	var whole []byte
	record := &host{nc: nil}
	record.Framer = h2.NewFramer(&record.out, nil)
	record.fields = hpack.NewEncoder(&record.text)
	_ = record.WriteSettings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 10})
	_ = record.WriteSettingsAck()
	record.head(1, false, ":status", "200", "x", "y")
	_ = record.WriteData(1, false, []byte("hello"))
	_ = record.WriteData(1, false, nil)
	record.head(1, true, "x", "y")
	whole = record.out.Bytes()
	for cut := range len(whole) + 1 {
		for _, method := range []string{"GET", "POST"} {
			var asked atomic.Int64
			addr := listener(t, func(nc net.Conn) {
				buf := make([]byte, 4096)
				// HEADERS that end all, or DATA that does where those were sent already.
				for n := 0; !bytes.Contains(buf[:n], []byte("\x01\x05\x00\x00\x00\x01")) && !bytes.Contains(buf[:n], []byte("\x00\x00\x00\x00\x01\x00\x00\x00\x01")); {
					m, err := nc.Read(buf[n:])
					if err != nil {
						return
					}
					n += m
				}
				asked.Add(1)
				_, _ = nc.Write(whole[:cut])
				_ = nc.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, nc)
			})
			r := start(t, []string{addr}, withoutBreaker, speaksHTTP2)
			q := newRequest(t, method, "http://"+r.addr+"/", nil)
			q.Close = true
			a, err := r.client().Do(q)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(a.Body)
			_ = a.Body.Close()
			switch {
			case a.StatusCode == 200 && err == nil:
				if cut < len(whole) || string(body) != "hello" {
					t.Errorf("%s, %d bytes of %d: %q was taken for whole", method, cut, len(whole), body)
				}
			case a.StatusCode == 200:
				if cut == len(whole) {
					t.Errorf("%s: it breaks off after %q: %v", method, body, err)
				}
			case a.StatusCode != 502:
				t.Errorf("%s, %d bytes: %d %s", method, cut, a.StatusCode, body)
			}
			if method == "POST" && asked.Load() != 1 {
				t.Errorf("%d bytes: a POST was sent %d times", cut, asked.Load())
			}
			inFlight(t, map[string]float64{"c": 0}, r.counts)
		}
	}
}

// An instance may shrink windows that are in use, below nothing (RFC 9113 §6.9.2).
func TestWindowsOfAHostMayBecomeNegative(t *testing.T) {
	const size = 200_000
	got := make(chan int, 1)
	addr, _ := hostOf(t, nil, func(h *host) {
		id, n, shrunk := uint32(0), 0, false
		for {
			f, err := h.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *h2.HeadersFrame:
				id = f.StreamID
			case *h2.DataFrame:
				n += len(f.Data())
				if n >= 65_535 && !shrunk {
					shrunk = true
					_ = h.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1000}) // of which 65,535 are used
					_ = h.WriteWindowUpdate(0, 1<<20)
					for range 400 { // it takes 65 of them until a byte may come
						_ = h.WriteWindowUpdate(id, 1000)
					}
				}
				if f.StreamEnded() {
					got <- n
					h.head(id, true, ":status", "200")
				}
			}
			h.flush()
		}
	})
	r := start(t, []string{addr}, speaksHTTP2)
	if a, text := r.do("POST", "/", strings.NewReader(strings.Repeat("x", size))); a.StatusCode != 200 || <-got != size {
		t.Errorf("%d %q", a.StatusCode, text)
	}
}

// An instance that sends interim responses without end, to a client that does not read
// them, fills no memory.
func TestInterimResponsesWithoutEndAreBounded(t *testing.T) {
	addr, asked := hostOf(t, nil, func(h *host) {
		for id := h.await(); h.flush(); {
			h.head(id, false, ":status", "103", "link", strings.Repeat("x", 4000))
			time.Sleep(10 * time.Microsecond)
		}
	})
	r := startWith(t, hasty, []string{addr}, timeout(3*time.Second), withoutBreaker, speaksHTTP2)
	used := measure()
	a := r.attack()
	a.open("GET", "/", true)
	a.flush()
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	inFlight(t, map[string]float64{"c": 0}, r.counts)
	used.end()
	if used.memory > heap*32<<20 {
		t.Errorf("%d MB were used", used.memory>>20)
	}
}
