package sidecar_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	frames "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

const httpOptions = `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`

// toHost runs a sidecar whose cluster has one host at an address, and more fields of its own. It
// returns the listener's address and the admin port's.
func toHost(t *testing.T, host, fields string) (listener, admin string) {
	t.Helper()
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	indented := "    " + strings.ReplaceAll(strings.TrimSpace(fields), "\n", "\n    ") + "\n"
	file := strings.Replace(bootstrap, "    connect_timeout: 1s\n", indented, 1)
	file = strings.Replace(strings.Replace(file, "%d", "0", 2), "%d", port, 1)
	a, cancel, ended := start(t, sidecar.Config{Bootstrap: write(t, file)})
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a.Listeners["web"].String(), a.Admin.String()
}

// speaking is typed_extension_protocol_options.
func speaking(options string) string {
	return "typed_extension_protocol_options:\n  " + httpOptions + ": {\"@type\": type.googleapis.com/" + httpOptions + ", " + options + "}"
}

// hostOf runs a server that speaks HTTP/1.1 or HTTP/2 in the clear, and counts its connections.
func hostOf(t *testing.T, http2 bool, h http.HandlerFunc) (address string, connections func() (begun, open int)) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(!http2)
	s.Config.Protocols.SetUnencryptedHTTP2(http2)
	var mu sync.Mutex
	begun, open := 0, 0
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch state {
		case http.StateNew:
			begun++
			open++
		case http.StateClosed, http.StateHijacked:
			open--
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return begun, open
	}
}

// frameHost is the host's end of one HTTP/2 connection.
func frameHost(t *testing.T) (net.Listener, func() *frames.Framer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, func() *frames.Framer {
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(nc, make([]byte, len(frames.ClientPreface))); err != nil {
			t.Fatal(err)
		}
		f := frames.NewFramer(nc, nc)
		if err := f.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		return f
	}
}

// answer answers a request with 204.
func answer(t *testing.T, f *frames.Framer, stream uint32) {
	t.Helper()
	var block strings.Builder
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "204"})
	if err := f.WriteHeaders(frames.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
}

// statusOf asks for a path, and returns the status and the reason.
func statusOf(t *testing.T, url string) (int, string) {
	t.Helper()
	a, err := http.Get(url)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	_ = a.Body.Close()
	return a.StatusCode, a.Header.Get("Fairlead-Reason")
}

func TestHostsArePingedAndToldTheWindowsOfTheirCluster(t *testing.T) {
	l, accept := frameHost(t)
	addr, _ := toHost(t, l.Addr().String(), speaking(`explicit_http_config: {http2_protocol_options: {initial_connection_window_size: 100000, `+
		`connection_keepalive: {interval: 0.02s, timeout: 20s, interval_jitter: {value: 50}}}}`))
	var asked sync.WaitGroup
	asked.Go(func() {
		if status, why := statusOf(t, "http://"+addr+"/"); status != 204 {
			t.Errorf("%d (%s)", status, why)
		}
	})
	defer asked.Wait()
	host := accept()
	pings, window := 0, uint32(0)
	for pings < 5 { // without a request under way
		f, err := host.ReadFrame()
		if err != nil {
			t.Fatalf("after %d PINGs: %v", pings, err)
		}
		switch f := f.(type) {
		case *frames.HeadersFrame:
			answer(t, host, f.StreamID)
		case *frames.WindowUpdateFrame:
			if f.StreamID == 0 && window == 0 {
				window = f.Increment
			}
		case *frames.PingFrame:
			if f.IsAck() {
				t.Fatal("an answer to what was not asked")
			}
			pings++
			if err := host.WritePing(true, f.Data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if window != 100000-65535 {
		t.Errorf("the connection's window grows by %d", window)
	}
}

func TestAConnectionToAHostThatDoesNotAnswerAPingEnds(t *testing.T) {
	l, accept := frameHost(t)
	addr, _ := toHost(t, l.Addr().String(), speaking(`explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 0.02s, timeout: 0.1s}}}`))
	var asked sync.WaitGroup
	asked.Go(func() { // the host never answers it
		if status, why := statusOf(t, "http://"+addr+"/"); status != 502 || why != "upstream_reset" {
			t.Errorf("%d (%s)", status, why)
		}
	})
	defer asked.Wait()
	for range 2 { // the request is a GET, which is tried once more
		host := accept()
		for {
			f, err := host.ReadFrame()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			if ping, ok := f.(*frames.PingFrame); ok && !ping.IsAck() {
				continue
			}
		}
	}
}

func TestClientsThatDoNotAnswerAPingAreLeft(t *testing.T) {
	nc, err := net.Dial("tcp", withOptions(t, "http2_protocol_options: {initial_connection_window_size: 100000, connection_keepalive: {interval: 0.02s, timeout: 0.1s}}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(nc, frames.ClientPreface)
	client := frames.NewFramer(nc, nc)
	if err := client.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	pings, window := 0, uint32(0)
	for {
		f, err := client.ReadFrame()
		if err != nil {
			if !errors.Is(err, io.EOF) || pings < 4 {
				t.Errorf("after %d PINGs, the last of which had no answer: %v", pings, err)
			}
			break
		}
		switch f := f.(type) {
		case *frames.WindowUpdateFrame:
			window = f.Increment
		case *frames.PingFrame:
			if pings++; pings < 4 {
				_ = client.WritePing(true, f.Data)
			}
		}
	}
	if window != 100000-65535 {
		t.Errorf("the connection's window grows by %d", window)
	}
}

// silent accepts connections and says nothing.
func silent(t *testing.T) (address string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 10)
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, nc)
			told <- struct{}{}
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, nc := range conns {
			_ = nc.Close()
		}
	})
	return l.Addr().String(), told
}

func TestOneMoreThanMayWaitForAConnectionIsRefusedAndCounted(t *testing.T) {
	host, accepted := silent(t)
	addr, admin := toHost(t, host, `connect_timeout: 60s
circuit_breakers: {thresholds: [{max_pending_requests: 1}]}
transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}`)
	ctx, cancel := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() {
		q, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
		if err != nil {
			t.Error(err)
			return
		}
		if a, err := http.DefaultClient.Do(q); err == nil {
			_ = a.Body.Close()
			t.Errorf("the first is answered with %d", a.StatusCode)
		}
	})
	<-accepted // the first waits for the host to say something
	if status, why := statusOf(t, "http://"+addr+"/"); status != 503 || why != "too_many_connecting" {
		t.Errorf("%d (%s)", status, why)
	}
	want := `fairlead_requests_total{code="503",destination="app",reason="too_many_connecting",source="web"} 1`
	if _, all := get(t, "http://"+admin+"/metrics"); !strings.Contains(all, want) {
		t.Error("it is not counted")
	}
	cancel()
	first.Wait()
	want = `fairlead_requests_total{code="0",destination="app",reason="client_gone",source="web"} 1`
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, all := get(t, "http://"+admin+"/metrics"); strings.Contains(all, want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not noticed that the first client has gone")
		}
	}
}

func TestConnectionsToHostsEndAsTheirClusterSays(t *testing.T) {
	for options, want := range map[string]int{
		"": 1,
		"common_http_protocol_options: {max_connection_duration: 0.05s, max_connection_duration_jitter: {value: 0}}, ": 3,
		"common_http_protocol_options: {idle_timeout: 0.05s}, ":                                                        3,
	} {
		for http2, protocol := range map[bool]string{false: "http_protocol_options", true: "http2_protocol_options"} {
			t.Run(protocol+" "+options, func(t *testing.T) {
				host, connections := hostOf(t, http2, func(http.ResponseWriter, *http.Request) {})
				addr, _ := toHost(t, host, speaking(options+"explicit_http_config: {"+protocol+": {}}"))
				for i := range 3 {
					if status, why := statusOf(t, "http://"+addr+"/"); status != 200 {
						t.Fatalf("%d (%s)", status, why)
					}
					if want == 1 {
						continue
					}
					for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
						if _, open := connections(); open == 0 {
							break
						}
						if time.Now().After(deadline) {
							t.Fatalf("connection %d is open", i+1)
						}
					}
				}
				if begun, _ := connections(); begun != want {
					t.Errorf("%d connections", begun)
				}
			})
		}
	}
}

func TestAConnectionToAHostCarriesAsManyStreamsAsTheClusterSays(t *testing.T) {
	const most, at = 2, 6
	here, goOn := make(chan struct{}, at), make(chan struct{})
	host, connections := hostOf(t, true, func(http.ResponseWriter, *http.Request) {
		here <- struct{}{}
		<-goOn
	})
	addr, _ := toHost(t, host, speaking("explicit_http_config: {http2_protocol_options: {max_concurrent_streams: "+strconv.Itoa(most)+"}}"))
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			if status, why := statusOf(t, "http://"+addr+"/"); status != 200 {
				t.Errorf("%d (%s)", status, why)
			}
		})
	}
	for range at {
		<-here
	}
	if begun, _ := connections(); begun != at/most {
		t.Errorf("%d connections for %d streams", begun, at)
	}
	close(goOn)
	all.Wait()
}

// Both sides may say by the field Priority what is urgent (RFC 9218 §5), which an intermediary
// passes on (§8: it "SHOULD forward" a response's), whatever is spoken on its two sides.
func TestPriorityIsPassedOnBothWays(t *testing.T) {
	for _, host2 := range []bool{false, true} {
		address, _ := hostOf(t, host2, func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Priority", "u=5")
			_, _ = io.WriteString(w, q.Header.Get("Priority"))
		})
		options := "explicit_http_config: {http_protocol_options: {}}"
		if host2 {
			options = "explicit_http_config: {http2_protocol_options: {}}"
		}
		listener, _ := toHost(t, address, "connect_timeout: 1s\n"+speaking(options))
		for _, client2 := range []bool{false, true} {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetHTTP1(!client2)
			transport.Protocols.SetUnencryptedHTTP2(client2)
			t.Cleanup(transport.CloseIdleConnections)
			q, err := http.NewRequest(http.MethodGet, "http://"+listener+"/", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Priority", "u=1, i")
			resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(q)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if string(b) != "u=1, i" || resp.Header.Get("Priority") != "u=5" {
				t.Errorf("HTTP/2 to the client: %t, to the host: %t: the host sees %q, and the client %q", client2, host2, b, resp.Header.Get("Priority"))
			}
		}
	}
}

// Clients learn when a response was made, be it that its host did not say so (RFC 9110 §6.6.1). What a
// host says stays as it is, and what is gRPC gets no field that its client would see as metadata.
func TestAResponseThatItsHostDidNotDateIsDated(t *testing.T) {
	for _, host2 := range []bool{false, true} {
		address, _ := hostOf(t, host2, func(w http.ResponseWriter, q *http.Request) {
			w.Header()["Date"] = nil // net/http adds none
			switch q.URL.Path {
			case "/dated":
				w.Header().Set("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
			case "/call":
				w.Header().Set("Content-Type", "application/grpc")
			}
		})
		options := "explicit_http_config: {http_protocol_options: {}}"
		if host2 {
			options = "explicit_http_config: {http2_protocol_options: {}}"
		}
		listener, _ := toHost(t, address, "connect_timeout: 1s\n"+speaking(options))
		for _, client2 := range []bool{false, true} {
			client := clientTo(t, listener, client2)
			for path, want := range map[string]int{"/dated": 1, "/undated": 1, "/call": 0} {
				q, err := http.NewRequest(http.MethodPost, "http://"+listener+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if path == "/call" {
					q.Header.Set("Content-Type", "application/grpc")
					q.Header.Set("TE", "trailers")
				}
				resp, err := client.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				dates := resp.Header["Date"]
				if len(dates) != want {
					t.Errorf("HTTP/2 to the client: %t, to the host: %t: %s has the dates %q, want %d", client2, host2, path, dates, want)
					continue
				}
				for _, date := range dates {
					if at, err := http.ParseTime(date); err != nil || (path == "/dated") != (at.Year() == 1994) {
						t.Errorf("HTTP/2 to the client: %t, to the host: %t: %s has the date %q", client2, host2, path, date)
					}
				}
			}
		}
	}
}

// A client of HTTP/2 says with the head that there is no body; HTTP/1.1 has Content-Length for it, without
// which there are servers that refuse a POST with 411 (RFC 9110 §8.6).
// HTTP/2 has no reason phrase (RFC 9113 §8.3.2), and clients of HTTP/1.1 show theirs to people.
func TestAStatusThatCameOverHTTP2HasItsReasonPhraseInHTTP1(t *testing.T) {
	address, _ := hostOf(t, true, func(w http.ResponseWriter, q *http.Request) {
		status, _ := strconv.Atoi(q.URL.Path[1:])
		w.WriteHeader(status)
	})
	listener, _ := toHost(t, address, "connect_timeout: 1s\n"+speaking("explicit_http_config: {http2_protocol_options: {}}"))
	client := clientTo(t, listener, false)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for status := 200; status < 600; status++ {
		want := http.StatusText(status)
		switch status {
		case 413: // RFC 9110 §15.5.14
			want = "Content Too Large"
		case 414: // §15.5.15
			want = "URI Too Long"
		case 416: // §15.5.17
			want = "Range Not Satisfiable"
		case 422: // §15.5.21
			want = "Unprocessable Content"
		case 207, 208, 226, 418, 423, 424, 425, 451, 506, 507, 510: // of extensions; one is a joke
			continue
		}
		resp, err := client.Get(fmt.Sprintf("http://%s/%d", listener, status))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if _, got, _ := strings.Cut(resp.Status, " "); resp.StatusCode != status || got != want {
			t.Errorf("%d became %q, want %q", status, resp.Status, want)
		}
	}
}

func TestAHostOfHTTP1IsToldThatAPostOfHTTP2HasNoBody(t *testing.T) {
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	listener, _ := toHost(t, host.Addr().String(), "connect_timeout: 1s")
	nc, err := net.Dial("tcp", listener)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	h2Client(nc).head(1, true, ":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a")
	taken, err := host.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	_ = taken.SetDeadline(time.Now().Add(10 * time.Second))
	q, err := http.ReadRequest(bufio.NewReader(taken))
	if err != nil {
		t.Fatal(err)
	}
	if got := q.Header["Content-Length"]; q.Method != http.MethodPost || len(got) != 1 || got[0] != "0" {
		t.Errorf("the host sees a %s with the lengths %q", q.Method, got)
	}
}

// Who speaks HTTP/1.0, or says an empty Host, names no authority; then HTTP/2 names none
// either (RFC 9113 §8.3.1), and the next sidecar takes that.
func TestARequestThatNamesNoAuthorityGoesThroughTwoSidecars(t *testing.T) {
	for _, host2 := range []bool{false, true} {
		address, _ := hostOf(t, host2, func(w http.ResponseWriter, q *http.Request) { _, _ = fmt.Fprintf(w, "%s of %q", q.Proto, q.Host) })
		options, proto := "explicit_http_config: {http_protocol_options: {}}", "HTTP/1.1"
		if host2 {
			options, proto = "explicit_http_config: {http2_protocol_options: {}}", "HTTP/2.0"
		}
		second, _ := toHost(t, address, "connect_timeout: 1s\n"+speaking(options))
		first, _ := toHost(t, second, "connect_timeout: 1s\n"+speaking("explicit_http_config: {http2_protocol_options: {}}"))
		for _, head := range []string{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"} {
			nc, err := net.Dial("tcp", first)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(nc, head)
			got, err := io.ReadAll(nc)
			_ = nc.Close()
			if want := proto + ` of ""`; err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(string(got), want) {
				t.Errorf("%q is answered with %q, %v; want 200 and %s", head, got, err, want)
			}
		}
	}
}
