package sidecar_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// slowly skips what takes longer than a test should, unless that is asked for.
func slowly(t *testing.T) {
	t.Helper()
	if os.Getenv("FAIRLEAD_SLOW") == "" {
		t.Skip("it waits out bounds of ten seconds and more: FAIRLEAD_SLOW=1 runs it")
	}
}

// logged are the lines of an access log that say that something went wrong, or was sent twice.
func logged(t *testing.T, log string) (wrong []string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var e struct {
			Status, Retries int
			Reason          string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Status != 200 || e.Retries != 0 || e.Reason != "" {
			wrong = append(wrong, line)
		}
	}
	return wrong
}

func TestASidecarLearnsWhenAHostClosesItsIdleConnectionsAndIsFirst(t *testing.T) {
	slowly(t)
	t.Parallel()
	const patience = 5 * time.Second // which is that of Node.js
	var first atomic.Int32           // how often the host was it
	at := tcpServer(t, func(nc *net.TCPConn) {
		for in := bufio.NewReader(nc); ; {
			_ = nc.SetDeadline(time.Now().Add(patience))
			q, err := http.ReadRequest(in)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				first.Add(1)
			}
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(nc.RemoteAddr().String()), nc.RemoteAddr())
			_ = q.Body.Close()
		}
	})
	var log bytes.Buffer
	r := serve(t, sidecar.Config{AccessLog: &log, AccessLogFormat: accesslog.JSON}, webListener(webRoute("/", "app", "20s")), webCluster("app", at, false, "10s"))
	before := ""
	call := func() (another bool) {
		t.Helper()
		status, connection := get(t, "http://"+r.web.String()+"/")
		if status != 200 {
			t.Fatalf("%d %s", status, connection)
		}
		another, before = connection != before, connection
		return another
	}
	for range 4 { // it is found closed long after it was
		call()
		time.Sleep(7 * time.Second)
	}
	if first.Load() == 0 {
		t.Fatal("the host has closed none, and so there was nothing to learn")
	}
	call()
	if call() {
		t.Error("a connection that was just used is not used again")
	}
	had := first.Load()
	for range 3 {
		time.Sleep(4400 * time.Millisecond) // four fifths are 4 s
		if !call() {
			t.Error("a connection is used that its host is about to close")
		}
	}
	if n := first.Load() - had; n != 0 {
		t.Errorf("the host was first %d times", n)
	}
	for range 3 { // as the host closes it
		time.Sleep(patience)
		call()
	}
	r.cancel()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if wrong := logged(t, log.String()); len(wrong) > 0 {
		t.Errorf("the log: %s", wrong)
	}
}

// fallsSilent is a host of HTTP/2 whose first connection says this and then nothing, not even that it is
// there; the others are well. It returns what it is told at the end.
func fallsSilent(t *testing.T, says func(p *h2Peer)) (net.Addr, <-chan frames.ErrCode) {
	t.Helper()
	var connections atomic.Int32
	told := make(chan frames.ErrCode, 1)
	return tcpServer(t, func(nc *net.TCPConn) {
		_ = nc.SetDeadline(time.Now().Add(5 * time.Minute))
		p := h2Host(nc)
		if connections.Add(1) > 1 {
			_ = p.WriteSettings()
			for {
				q, err := p.request()
				if err != nil {
					return
				}
				p.head(q.StreamID, false, ":status", "200")
				_ = p.WriteData(q.StreamID, true, []byte("well"))
			}
		}
		says(p)
		for {
			frame, err := p.listen()
			if err != nil {
				return
			}
			if f, ok := frame.(*frames.GoAwayFrame); ok {
				told <- f.ErrCode
			}
		}
	}), told
}

func TestAConnectionOfAHostThatFallsSilentIsGivenUpThoughNoTimeoutEndsItsRequests(t *testing.T) {
	slowly(t)
	for name, test := range map[string]struct {
		says func(p *h2Peer)
		code frames.ErrCode
	}{
		"PING is not answered": {func(p *h2Peer) { _ = p.WriteSettings(); _ = p.WriteSettingsAck() }, frames.ErrCodeNo},
		"SETTINGS do not come": {func(*h2Peer) {}, frames.ErrCodeSettingsTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, told := fallsSilent(t, test.says)
			r := serve(t, sidecar.Config{}, webListener(webRoute("/", "app", "0s")), webCluster("app", at, true, "60s"))
			call := func(method string) string {
				q, err := http.NewRequest(method, "http://"+r.web.String()+"/", http.NoBody)
				if err != nil {
					return err.Error()
				}
				a, err := http.DefaultClient.Do(q)
				if err != nil {
					return err.Error()
				}
				return read(a)
			}
			posted := make(chan string, 1)
			go func() { posted <- call(http.MethodPost) }()
			eventually(t, "the first request is under way", func() bool { return r.series(t, "fairlead_upstream_active") == 1 })
			// What may have been acted upon is sent again only where that does no harm (RFC 9110 §9.2.2).
			if got := call(http.MethodGet); got != "200  well" {
				t.Errorf("GET: %q", got)
			}
			if got := <-posted; !strings.HasPrefix(got, "502 upstream_reset ") {
				t.Errorf("POST: %q", got)
			}
			select {
			case code := <-told:
				if code != test.code {
					t.Errorf("the host is told %v", code)
				}
			case <-time.After(patience):
				t.Error("the host is told nothing")
			}
		})
	}
}

// process is a running binary of the sidecar.
type process struct {
	web, admin net.Addr
	pid        int
}

// binary compiles the sidecar.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sidecar")
	if out, err := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", path, "../../cmd/sidecar").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// execBinary runs it with a file until the test ends.
func execBinary(t *testing.T, path, listener string, clusters ...string) process {
	t.Helper()
	web, admin := freeport.For(t), freeport.For(t)
	text := document([]string{strings.Replace(listener, "port_value: 0", fmt.Sprintf("port_value: %d", web), 1)}, clusters...)
	text = strings.Replace(text, "port_value: 0", fmt.Sprintf("port_value: %d", admin), 1)
	cmd := exec.Command(path, "--bootstrap", write(t, text), "--access-log", "off", "--drain-timeout", "1s")
	var said lockedbuf.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, said.String())
		}
	})
	p := process{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: web}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: admin}, cmd.Process.Pid}
	eventually(t, "it listens", func() bool {
		nc, err := net.Dial("tcp", p.web.String())
		if err == nil {
			_ = nc.Close()
		}
		return err == nil
	})
	return p
}

// resident is how much memory a process has, in bytes.
func (p process) resident(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		t.Skip("there is no /proc")
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	kB, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

// settled waits until a process's memory has not grown less for some seconds, and returns it.
func (p process) settled(t *testing.T) int {
	t.Helper()
	least := p.resident(t)
	for since := time.Now(); time.Since(since) < 6*time.Second; time.Sleep(100 * time.Millisecond) {
		if now := p.resident(t); now < least-least/100 {
			least, since = now, time.Now()
		}
	}
	return p.resident(t)
}

const unbounded = `
    circuit_breakers: {thresholds: [{max_connections: 4294967295, max_requests: 4294967295, max_pending_requests: 4294967295}]}`

func TestTenThousandIdleConnectionsMayWakeAtOnce(t *testing.T) {
	slowly(t)
	const connections = 10_000
	bin := binary(t)
	host := execBinary(t, bin, webListener(`{match: {prefix: "/"}, direct_response: {status: 200, body: {inline_string: "hello"}}}`))
	p := execBinary(t, bin, webListener(webRoute("/", "app", "60s")), webCluster("app", host.web, false, "30s")+unbounded)
	all := make([]net.Conn, connections)
	defer func() {
		for _, nc := range all {
			if nc != nil {
				_ = nc.Close()
			}
		}
	}()
	in := bufio.NewReader(nil)
	answered := func(nc net.Conn) bool {
		in.Reset(nc)
		a, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Errorf("no answer: %v", err)
			return false
		}
		if got := read(a); got != "200  hello" {
			t.Errorf("%s", got)
			return false
		}
		return true
	}
	for i := range all {
		nc, err := net.Dial("tcp", p.web.String())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = nc
		_ = nc.SetDeadline(time.Now().Add(5 * time.Minute))
		say(t, nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if !answered(nc) {
			t.FailNow()
		}
	}
	idle := p.settled(t)
	for range 2 {
		var writing sync.WaitGroup
		for i := range 8 {
			writing.Go(func() {
				for j := i; j < connections; j += 8 {
					_, _ = io.WriteString(all[j], "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				}
			})
		}
		writing.Wait()
		awake, n := p.resident(t), 0
		for _, nc := range all {
			if answered(nc) {
				n++
			}
		}
		again := p.settled(t)
		t.Logf("%d are answered; MB: idle %d, awake %d, idle again %d", n, idle>>20, awake>>20, again>>20)
		if n != connections {
			t.Errorf("of %d, %d are answered", connections, n)
		}
		if most := 85 << 20; idle > most || again > idle+idle/4 {
			t.Errorf("they hold %d bytes, and %d when they have been awake", idle, again)
		}
	}
}

// deaf is a listener that takes no more connections: the kernel drops what would open one.
func deaf(t *testing.T) net.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}
	for range 16 {
		nc, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { _ = nc.Close() })
	}
	t.Skip("the kernel queues without bound")
	return nil
}

// More wait than may connect at once, and those too wait no longer than for a connection.
func TestWhoWaitsForAConnectionIsToldInTime(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		r := serve(t, sidecar.Config{}, webListener(webRoute("/deaf", "deaf", "60s"), webRoute("/", "well", "20s")),
			webCluster("deaf", deaf(t), http2, "0.5s")+unbounded, webCluster("well", webServer(t), false, "10s"))
		client := clientOf(t, 1)
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				want := "503 connect_timeout fairlead: the instance did not accept the connection in time (connect_timeout)\n"
				if got := ask(client, "http://"+r.web.String()+"/deaf", 0); got != want {
					t.Errorf("a host of HTTP/2: %t: %q", http2, got)
				}
			})
		}
		if got := ask(client, "http://"+r.web.String()+"/well", 0); got != "200  web /well" {
			t.Errorf("another host: %s", got)
		}
		all.Wait()
		eventually(t, "nothing is under way", func() bool {
			return r.series(t, "fairlead_requests_in_flight")+r.series(t, "fairlead_upstream_active") == 0
		})
	}
}

func TestMoreThanMayWaitForAConnectionAreToldAtOnce(t *testing.T) {
	slowly(t)
	const (
		connecting, waiting  = 128, 10_000
		connections, streams = 42, 256
	)
	p := execBinary(t, binary(t), webListener(webRoute("/deaf", "deaf", "0s"), webRoute("/", "well", "20s")),
		webCluster("deaf", deaf(t), false, "600s")+unbounded, webCluster("well", webServer(t), false, "10s"))
	r := running{web: p.web, admin: p.admin}
	var refused, other atomic.Int64
	var reading sync.WaitGroup
	var open []net.Conn
	for range connections {
		nc, err := net.Dial("tcp", p.web.String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
		c := h2Client(nc)
		for i := range streams {
			c.head(uint32(2*i+1), true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/deaf")
		}
		reading.Go(func() {
			for {
				frame, err := c.next()
				if err != nil {
					return
				}
				if head, ok := frame.(*frames.MetaHeadersFrame); ok {
					for _, f := range head.Fields {
						if f.Name == "fairlead-reason" && f.Value == "too_many_connecting" && head.PseudoValue("status") == "503" {
							refused.Add(1)
							other.Add(-1)
						}
					}
					other.Add(1)
				}
			}
		})
	}
	const want = connections*streams - connecting - waiting
	eventually(t, "those that are too many are told", func() bool { return refused.Load() >= want })
	if status, body := get(t, "http://"+p.web.String()+"/well"); status != 200 || body != "web /well" {
		t.Errorf("another host: %d %s", status, body)
	}
	if n := r.series(t, "fairlead_upstream_active"); n != connecting+waiting {
		t.Errorf("%g wait", n)
	}
	if refused.Load() != want || other.Load() != 0 {
		t.Errorf("%d were told, and %d something else, of %d", refused.Load(), other.Load(), want)
	}
	for _, nc := range open {
		_ = nc.Close()
	}
	reading.Wait()
	eventually(t, "nothing is left of those that went away", func() bool {
		return r.series(t, "fairlead_requests_in_flight")+r.series(t, "fairlead_upstream_active") == 0
	})
}
