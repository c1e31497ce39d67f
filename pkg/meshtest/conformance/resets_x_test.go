package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// cut says where a connection is to be broken.
type cut struct {
	atSidecar bool // the bytes that go to the sidecar count; else those that come from it
	after     int  // how many bytes pass; -1: it is not broken
	reset     bool // with a reset; else with an end
	frozen    bool // the connection stays, and nothing more passes
}

// breaker passes connections on to an address, and breaks the first on which so many bytes
// have come as a cut says.
type breaker struct {
	addr      string
	toSidecar bool // what its clients send goes to the sidecar
	l         net.Listener
	all       sync.WaitGroup

	mu    sync.Mutex
	to    string
	cut   cut
	armed bool
	bytes [2]int // since it was armed: from the sidecar, and to it
	open  map[net.Conn]bool
}

func newBreaker(t *testing.T, toSidecar bool) *breaker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{addr: l.Addr().String(), toSidecar: toSidecar, l: l, open: map[net.Conn]bool{}}
	b.all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			b.all.Go(func() { b.carry(near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.closeAll()
		b.all.Wait()
	})
	return b
}

func (b *breaker) carry(near net.Conn) {
	far, err := net.Dial("tcp", b.to)
	if err != nil {
		_ = near.Close()
		return
	}
	b.mu.Lock()
	b.open[near], b.open[far] = true, true
	b.mu.Unlock()
	sidecar, other := near, far
	if b.toSidecar {
		sidecar, other = far, near
	}
	var both sync.WaitGroup
	both.Go(func() { b.pass(other, sidecar, sidecar, 1) })
	b.pass(sidecar, other, sidecar, 0)
	both.Wait()
	b.mu.Lock()
	delete(b.open, near)
	delete(b.open, far)
	b.mu.Unlock()
}

// pass carries one way to its end, or to the cut.
func (b *breaker) pass(from, to, sidecar net.Conn, way int) {
	p := make([]byte, 32<<10)
	for {
		n, err := from.Read(p)
		b.mu.Lock()
		c, now := b.cut, false
		if mine := b.armed && c.atSidecar == (way == 1); mine && n > 0 {
			if now = c.after >= 0 && b.bytes[way]+n >= max(c.after, 1); now {
				n = min(n, c.after-b.bytes[way])
				b.armed = false
			}
		}
		b.bytes[way] += n
		b.mu.Unlock()
		_, failed := to.Write(p[:n])
		switch {
		case now && c.frozen:
			return // the other way goes on
		case now && c.reset:
			_ = sidecar.(*net.TCPConn).SetLinger(0)
			fallthrough
		case now, failed != nil:
			_, _ = from.Close(), to.Close()
			return
		case errors.Is(err, io.EOF):
			_ = to.(*net.TCPConn).CloseWrite()
			return
		case err != nil:
			_, _ = from.Close(), to.Close()
			return
		}
	}
}

// arm makes a cut hold, for what comes from now on.
func (b *breaker) arm(c cut) {
	b.mu.Lock()
	b.cut, b.armed, b.bytes = c, true, [2]int{}
	b.mu.Unlock()
}

// disarm returns how many bytes came from the sidecar and went to it since it was armed.
func (b *breaker) disarm() [2]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.armed = false
	return b.bytes
}

// closeAll ends all connections.
func (b *breaker) closeAll() {
	b.mu.Lock()
	for c := range b.open {
		_ = c.Close()
	}
	b.mu.Unlock()
}

// exchanged is a protocol, and one exchange of it.
type exchanged struct {
	listen, cluster string // what takes the place of the listener's filters, and what the cluster has besides
	// once does an exchange on a connection of its own. It returns whether it went well, and
	// an error if it ended as none may: too late, or with another's bytes.
	once func(addr string) (bool, error)
	host string
}

// patience is more than any exchange takes.
const patience = 15 * time.Second

const said = "hello, hello"

// overHTTP returns an exchange of HTTP in a version, with a body each way and trailers.
func overHTTP(transport func() *http.Transport, scheme, contentType string) func(string) (bool, error) {
	return func(addr string) (bool, error) {
		tr := transport()
		defer tr.CloseIdleConnections()
		c := &http.Client{Transport: tr, Timeout: patience}
		q, err := http.NewRequest("POST", scheme+"://"+addr+"/", strings.NewReader(said))
		if err != nil {
			return false, err
		}
		q.Header.Set("Content-Type", contentType)
		q.Header.Set("Te", "trailers")
		a, err := c.Do(q)
		if err != nil {
			return false, late(err)
		}
		defer func() { _ = a.Body.Close() }()
		body, err := io.ReadAll(a.Body)
		if err != nil {
			return false, late(err)
		}
		if a.StatusCode != http.StatusOK || contentType == "application/grpc" && a.Trailer.Get("Grpc-Status") != "0" {
			return false, nil
		}
		if string(body) != said {
			return false, fmt.Errorf("%q was taken for whole", body)
		}
		return true, nil
	}
}

// late returns an error only if it is one of time.
func late(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// talk sends pieces, and wants an answer to each that ends as is said; then it ends the connection.
func talk(addr string, pieces ...string) (bool, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return false, err
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(nc)
	for i := 0; i < len(pieces); i += 2 {
		if _, err := io.WriteString(nc, pieces[i]); err != nil {
			return false, late(err)
		}
		var got []byte
		for !bytes.HasSuffix(got, []byte(pieces[i+1])) {
			c, err := in.ReadByte()
			if err != nil {
				return false, late(err)
			}
			got = append(got, c)
			if len(got) > 4000 {
				return false, fmt.Errorf("%q", got)
			}
		}
		if head := strings.HasPrefix(string(got), "HTTP/1.1 "); head && !strings.HasPrefix(string(got), "HTTP/1.1 101 ") {
			return false, nil
		} else if !head && string(got) != pieces[i+1] {
			return false, fmt.Errorf("%q came, not %q", got, pieces[i+1])
		}
	}
	return true, nil
}

// hosts returns an instance of HTTP of both versions that sends back what it gets, over TLS if there
// is a file of an identity.
func hosts(t *testing.T, identity string) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", q.Header.Get("Content-Type"))
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(body)
		w.Header().Set("Grpc-Status", "0")
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetHTTP2(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	if identity == "" {
		s.Start()
	} else {
		pair, err := tls.LoadX509KeyPair(identity, identity)
		if err != nil {
			t.Fatal(err)
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}} //nolint:gosec // a test
		s.EnableHTTP2 = true
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// speaking returns an instance that reads to the end of each piece and answers it, until its
// client ends.
func speaking(t *testing.T, pieces ...string) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", serving(t, func(nc net.Conn) {
		_ = nc.SetDeadline(time.Now().Add(2 * patience))
		for i := 0; i < len(pieces); i += 2 {
			var got []byte
			for p := make([]byte, 1); !bytes.HasSuffix(got, []byte(pieces[i])); got = append(got, p...) {
				if _, err := nc.Read(p); err != nil {
					return
				}
			}
			if _, err := io.WriteString(nc, pieces[i+1]); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, nc)
	}))
}

const relayed = `
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: in
          cluster: app
  clusters:`

const clusterTLS = `
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context: {validation_context: {trusted_ca: {filename: %q}}}`

// exchanges are those of all protocols.
func exchanges(t *testing.T) map[string]exchanged {
	t.Helper()
	pem := identity(t)
	speaks := func(version2, secure bool) func() *http.Transport {
		return func() *http.Transport {
			tr := &http.Transport{DisableCompression: true, DisableKeepAlives: !version2, Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // a test
			tr.Protocols.SetHTTP1(!version2)
			tr.Protocols.SetHTTP2(version2 && secure)
			tr.Protocols.SetUnencryptedHTTP2(version2 && !secure)
			return tr
		}
	}
	const ask = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	const question, answer = "\x81\x85\x01\x02\x03\x04igohn", "\x81\x05hello"
	listener, upstream := fmt.Sprintf(listenerTLS, pem), fmt.Sprintf(clusterTLS, pem)
	return map[string]exchanged{
		"HTTP/1.1":          {once: overHTTP(speaks(false, false), "http", "text/plain"), host: hosts(t, "")},
		"HTTP/2":            {cluster: overHTTP2, once: overHTTP(speaks(true, false), "http", "text/plain"), host: hosts(t, "")},
		"HTTP/1.1 to 2":     {cluster: overHTTP2, once: overHTTP(speaks(false, false), "http", "text/plain"), host: hosts(t, "")},
		"HTTP/2 to 1.1":     {once: overHTTP(speaks(true, false), "http", "text/plain"), host: hosts(t, "")},
		"gRPC":              {cluster: overHTTP2, once: overHTTP(speaks(true, false), "http", "application/grpc"), host: hosts(t, "")},
		"HTTP/1.1 over TLS": {listen: listener, cluster: upstream, once: overHTTP(speaks(false, true), "https", "text/plain"), host: hosts(t, pem)},
		"HTTP/2 over TLS":   {listen: listener, cluster: overHTTP2 + upstream, once: overHTTP(speaks(true, true), "https", "text/plain"), host: hosts(t, pem)},
		"WebSocket": {
			once: func(addr string) (bool, error) {
				return talk(addr, ask, "\r\n\r\n", question, answer, question, answer)
			},
			host: speaking(t, "\r\n\r\n", switched, question, answer, question, answer),
		},
		"TCP": {
			listen: relayed,
			once:   func(addr string) (bool, error) { return talk(addr, question, answer, question, answer) },
			host:   speaking(t, question, answer, question, answer),
		},
	}
}

// process starts a sidecar with changes to its bootstrap file, in front of an address.
func (e exchanged) process(t *testing.T, bin, to string) (s side, pid int) {
	t.Helper()
	_, port, err := net.SplitHostPort(to)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	s = side{freeport.For(t), freeport.For(t)}
	text := fmt.Sprintf(bootstrap, s.admin, s.port, "", e.cluster, n)
	switch from, end := strings.Index(text, "\n    - filters:"), strings.Index(text, "\n  clusters:"); {
	case strings.HasSuffix(e.listen, "clusters:"):
		text = text[:from] + e.listen + text[end+len("\n  clusters:"):]
	case e.listen != "":
		text = strings.Replace(text, "\n    - filters:", e.listen, 1)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pid = run(t, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off", "--log-level", "error")
	await(t, s.port)
	return s, pid
}

// held is what a process has, that it may leak.
type held struct {
	files, goroutines, underWay int
	heap                        int // bytes in use, buffers among them, behind collections that empty the pools
}

// inUse collects what a process does not use, twice as pools keep it once, and returns how
// many bytes of its heap are in use.
func (s side) inUse(t *testing.T) (heap int) {
	t.Helper()
	for range 2 {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", s.admin))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_, after, found := strings.Cut(string(text), "# HeapAlloc = ")
		if err != nil || !found {
			t.Fatalf("the heap's profile has no HeapAlloc: %v", err)
		}
		if heap, err = strconv.Atoi(after[:strings.IndexByte(after, '\n')]); err != nil {
			t.Fatal(err)
		}
	}
	return heap
}

func (s side) held(t *testing.T, pid int) (h held) {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	h.files = len(files)
	number := func(line string) int {
		n, _ := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		return int(n)
	}
	for _, line := range s.lines(t, "go_goroutines ") {
		h.goroutines = number(line)
	}
	for _, family := range []string{"fairlead_requests_in_flight{", "fairlead_tcp_connections_active{"} {
		for _, line := range s.lines(t, family) {
			h.underWay += number(line)
		}
	}
	return h
}

// TestResetAtEveryByte breaks exchanges of every protocol, at both of the sidecar's sides, in both
// directions, behind every byte, by an end and by a reset. The next exchange works, each ends,
// none is taken for whole that is not, and at the end nothing is left of them all.
func TestResetAtEveryByte(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar")
	all := exchanges(t)
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e := all[name]
		t.Run(name, func(t *testing.T) {
			client, host := newBreaker(t, true), newBreaker(t, false)
			host.to = e.host
			s, pid := e.process(t, bin, host.addr)
			client.to = fmt.Sprintf("127.0.0.1:%d", s.port)
			works := func(after string) {
				t.Helper()
				var err error
				for range 5 { // the first may find a connection that is about to break
					var ok bool
					if ok, err = e.once(client.addr); ok || err != nil {
						break
					}
					err = errors.New("it does not go well")
				}
				if err != nil {
					t.Fatalf("an exchange fails %s: %v", after, err)
				}
			}
			for range 20 {
				works("at first")
			}
			host.closeAll()
			base := s.settled(t, pid, held{1 << 20, 1 << 20, 0, 1 << 30})
			// How long it is, on connections of its own.
			client.arm(cut{after: -1})
			host.arm(cut{after: -1})
			works("that is measured")
			sizes := map[*breaker][2]int{client: client.disarm(), host: host.disarm()}
			broken, whole := 0, 0
			for _, b := range []*breaker{client, host} {
				for way, n := range sizes[b] {
					for after := 0; after <= n; after += 1 + n/4000 {
						for _, reset := range []bool{false, true} {
							host.closeAll() // so that a connection to the host begins, too
							b.arm(cut{atSidecar: way == 1, after: after, reset: reset})
							ok, err := e.once(client.addr)
							b.disarm()
							if err != nil {
								t.Fatalf("cut at the %s's side (to the sidecar: %t) after %d bytes of %d (reset: %t): %v",
									map[*breaker]string{client: "client", host: "host"}[b], way == 1, after, n, reset, err)
							}
							if broken++; ok {
								whole++
							}
							works(fmt.Sprintf("after a cut behind %d bytes of %d (reset: %t)", after, n, reset))
						}
					}
				}
			}
			client.closeAll()
			host.closeAll()
			got := s.settled(t, pid, base)
			t.Logf("%d exchanges were cut, %d of them where nothing was missing or another connection took over; lengths %v and %v; files %d → %d, goroutines %d → %d, kB in use %d → %d",
				broken, whole, sizes[client], sizes[host], base.files, got.files, base.goroutines, got.goroutines, base.heap>>10, got.heap>>10)
		})
	}
}

// TestClientsThatFallSilentHoldUpNobody lets the bytes of clients of every protocol stop behind
// some byte, in either direction, with their connections open. All others are served
// meanwhile, and nothing is left once the connections are gone.
func TestClientsThatFallSilentHoldUpNobody(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar")
	for name, e := range exchanges(t) {
		t.Run(name, func(t *testing.T) {
			client := newBreaker(t, true)
			s, pid := e.process(t, bin, e.host)
			direct := fmt.Sprintf("127.0.0.1:%d", s.port)
			client.to = direct
			works := func() {
				t.Helper()
				if ok, err := e.once(direct); !ok || err != nil {
					t.Fatalf("an exchange of another client fails: %v", err)
				}
			}
			for range 20 {
				works()
			}
			base := s.settled(t, pid, held{1 << 20, 1 << 20, 0, 1 << 30})
			client.arm(cut{after: -1})
			if ok, err := e.once(client.addr); !ok || err != nil {
				t.Fatalf("an exchange that is measured fails: %v", err)
			}
			silent := 0
			var all sync.WaitGroup
			for way, n := range client.disarm() {
				for after := 1; after < n; after += 1 + n/40 {
					client.arm(cut{atSidecar: way == 1, after: after, frozen: true})
					ended := make(chan struct{})
					all.Go(func() { defer close(ended); _, _ = e.once(client.addr) })
					for armed := true; armed; time.Sleep(time.Millisecond) {
						select {
						case <-ended:
							armed = false // it was shorter this time
						default:
							client.mu.Lock()
							armed = client.armed
							client.mu.Unlock()
						}
					}
					works()
					silent++
				}
			}
			client.closeAll()
			all.Wait()
			got := s.settled(t, pid, base)
			t.Logf("%d clients fell silent; files %d → %d, goroutines %d → %d, kB in use %d → %d", silent, base.files, got.files, base.goroutines, got.goroutines, base.heap>>10, got.heap>>10)
		})
	}
}

// settled waits until a process holds no more than what is allowed, but for a few, and returns it.
func (s side) settled(t *testing.T, pid int, allowed held) held {
	t.Helper()
	const (
		spareFiles, spareGoroutines = 4, 10   // the connection that asks, workers that wait for more
		spareHeap                   = 2 << 20 // a buffer of each of some hundred of the thousands of exchanges is more
	)
	got := s.held(t, pid)
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); got = s.held(t, pid) {
		if got.underWay == 0 && got.files <= allowed.files+spareFiles && got.goroutines <= allowed.goroutines+spareGoroutines {
			if got.heap = s.inUse(t); got.heap <= allowed.heap+spareHeap {
				return got
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%+v are held, %+v are allowed", got, allowed)
	return got
}
