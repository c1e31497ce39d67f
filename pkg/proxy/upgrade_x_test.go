package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

const (
	askWebSocket = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	switched     = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// upgrading is an instance that reads a request, writes an answer and then does with the
// connection what it is told; in is what came behind the request's head.
func upgrading(t *testing.T, answer string, then func(q *http.Request, in *bufio.Reader, nc *net.TCPConn)) string {
	t.Helper()
	return listen(t, func(nc net.Conn) {
		in := bufio.NewReader(nc)
		q, err := http.ReadRequest(in)
		if err != nil {
			return // a connection that was not used
		}
		_, _ = io.WriteString(nc, answer)
		then(q, in, nc.(*net.TCPConn))
	})
}

// echo sends back what comes until that ends.
func echo(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) { _, _ = io.Copy(nc, in) }

// upgrade sends bytes, and reads the head of the answer.
func upgrade(t *testing.T, r *rig, request string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	nc := r.dial().(*net.TCPConn)
	_, _ = io.WriteString(nc, request)
	in := bufio.NewReader(nc)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return nc, in, resp
}

func wantBytes(t *testing.T, in io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v, want %q", got[:n], err, want)
	}
}

func TestUpgradeIsPassedOnWithItsFieldsAndBecomesATunnel(t *testing.T) {
	heads := make(chan http.Header, 1)
	r := start(t, []string{upgrading(t, switched, func(q *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		heads <- q.Header
		echo(q, in, nc)
	})})
	nc, in, resp := upgrade(t, r, askWebSocket)
	for name, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Transfer-Encoding": "", "Content-Length": ""} {
		if got := resp.Header.Get(name); got != want || resp.StatusCode != 101 {
			t.Errorf("answered %d, %s: %q, want %q", resp.StatusCode, name, got, want)
		}
	}
	head := <-heads
	for name, want := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-Websocket-Version": "13"} {
		if got := head.Get(name); got != want {
			t.Errorf("the instance sees %s: %q, want %q", name, got, want)
		}
	}
	for range 3 {
		_, _ = io.WriteString(nc, "hello\x00\r\n\r\n")
		wantBytes(t, in, "hello\x00\r\n\r\n")
	}
}

// What only sidecars say to each other is not believed of an application, whatever it answers.
func TestFieldsOfSidecarsDoNotPassWithASwitch(t *testing.T) {
	for _, field := range []string{"fairlead-peer-failure", "fairlead-reason"} {
		r := start(t, []string{upgrading(t, strings.TrimSuffix(switched, "\r\n")+field+": not_delivered\r\n\r\n", echo)})
		if _, _, resp := upgrade(t, r, askWebSocket); resp.StatusCode != 101 || resp.Header.Get(field) != "" {
			t.Errorf("%d, %s: %q", resp.StatusCode, field, resp.Header.Get(field))
		}
	}
}

// A tunnel may last for hours: it takes no stream of those that requests share.
func TestATunnelToASidecarOfHTTP2HasAConnectionToItself(t *testing.T) {
	r := start(t, []string{upgrading(t, switched, echo)}, speaksHTTP2, behindSidecars)
	nc, in, resp := upgrade(t, r, askWebSocket)
	if resp.StatusCode != 101 {
		t.Fatalf("answered %d", resp.StatusCode)
	}
	_, _ = io.WriteString(nc, "hello")
	wantBytes(t, in, "hello")
}

func TestBytesThatComeTogetherWithAHeadAreNotLost(t *testing.T) {
	r := start(t, []string{upgrading(t, switched+"first", echo)})
	nc, in, _ := upgrade(t, r, askWebSocket+"second")
	wantBytes(t, in, "firstsecond")
	_, _ = io.WriteString(nc, "third")
	wantBytes(t, in, "third")
}

func TestLargeHeadAndBytesBehindItComeThrough(t *testing.T) {
	pad, data := strings.Repeat("p", 20_000), strings.Repeat("0123456789", 3_000)
	answer := strings.Replace(switched, "\r\n\r\n", "\r\nX: "+pad+"\r\n\r\n", 1)
	r := start(t, []string{upgrading(t, answer+data, echo)})
	_, in, _ := upgrade(t, r, strings.Replace(askWebSocket, "\r\n\r\n", "\r\nX: "+pad+"\r\n\r\n", 1)+data)
	wantBytes(t, in, data+data)
}

func TestEachWayOfATunnelEndsByItself(t *testing.T) {
	t.Run("the client's first", func(t *testing.T) {
		r := start(t, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
			all, _ := io.ReadAll(in)
			_, _ = io.WriteString(nc, "got "+string(all))
		})})
		nc, in, _ := upgrade(t, r, askWebSocket)
		_, _ = io.WriteString(nc, "all of it")
		_ = nc.CloseWrite()
		if got, err := io.ReadAll(in); string(got) != "got all of it" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("the instance's first", func(t *testing.T) {
		rest := make(chan string, 1)
		r := start(t, []string{upgrading(t, switched+"bye", func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
			_ = nc.CloseWrite()
			all, _ := io.ReadAll(in)
			rest <- string(all)
		})})
		nc, in, _ := upgrade(t, r, askWebSocket)
		if got, err := io.ReadAll(in); string(got) != "bye" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		_, _ = io.WriteString(nc, "and one more thing")
		_ = nc.CloseWrite()
		if got := <-rest; got != "and one more thing" {
			t.Errorf("%q", got)
		}
	})
	t.Run("the instance's, at once with its answer", func(t *testing.T) {
		r := start(t, []string{upgrading(t, switched, func(*http.Request, *bufio.Reader, *net.TCPConn) {})})
		_, in, resp := upgrade(t, r, askWebSocket)
		if got, err := io.ReadAll(in); len(got) > 0 || err != nil || resp.StatusCode != 101 {
			t.Errorf("%d, %q, %v", resp.StatusCode, got, err)
		}
	})
}

func TestASideThatBreaksBreaksTheTunnel(t *testing.T) {
	reset := func(nc *net.TCPConn) {
		_ = nc.SetLinger(0)
		_ = nc.Close()
	}
	t.Run("the client", func(t *testing.T) {
		seen := make(chan error, 1)
		came := make(chan struct{})
		o := observe(t, unchanged, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, _ *net.TCPConn) {
			_, err := in.ReadByte()
			close(came)
			_, err2 := in.ReadByte()
			seen <- errors.Join(err, err2)
		})})
		nc, _, _ := upgrade(t, o.rig, askWebSocket)
		_, _ = io.WriteString(nc, "x")
		<-came // it is not lost with the reset
		reset(nc)
		if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the instance sees %v", err)
		}
		if s := o.span("server"); s.Attributes["fairlead.reason"] != "client_gone" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the instance", func(t *testing.T) {
		o := observe(t, unchanged, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
			_, _ = in.ReadByte()
			reset(nc)
		})})
		nc, in, _ := upgrade(t, o.rig, askWebSocket)
		_, _ = io.WriteString(nc, "x")
		if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
		if s := o.span("server"); s.Attributes["fairlead.reason"] != "response_broken" {
			t.Errorf("%+v", s)
		}
	})
}

func TestATunnelIsAccountedForAtItsEnd(t *testing.T) {
	o := observe(t, unchanged, []string{upgrading(t, switched, echo)})
	nc, in, _ := upgrade(t, o.rig, askWebSocket)
	_, _ = io.WriteString(nc, "hello")
	wantBytes(t, in, "hello")
	if m := o.metrics(); !strings.Contains(m, `fairlead_requests_in_flight{destination="c",source="test"} 1`) || strings.Contains(m, `code="101"`) {
		t.Errorf("while it lasts\n%s", m)
	}
	if hosts := o.set.Clusters()[0].Active(); hosts != 1 {
		t.Errorf("%d attempts under way", hosts)
	}
	_ = nc.CloseWrite()
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if s := o.span("server"); s.Attributes["http.response.status_code"] != "101" || s.Failed {
		t.Errorf("%+v", s)
	}
	lines := o.logged()
	if len(lines) != 1 || lines[0]["status"] != 101.0 || lines[0]["bytes_in"] != 5.0 || lines[0]["bytes_out"] != 5.0 || lines[0]["reason"] != nil {
		t.Errorf("%v", lines)
	}
	for _, want := range []string{`fairlead_requests_total{code="101",destination="c",reason="none",source="test"} 1`, `fairlead_requests_in_flight{destination="c",source="test"} 0`} {
		if m := o.metrics(); !strings.Contains(m, want) {
			t.Errorf("%s is missing\n%s", want, m)
		}
	}
	if failures := o.set.Clusters()[0].Hosts()[0].Status(0).Failures; failures != 0 || o.set.Clusters()[0].Active() != 0 {
		t.Errorf("%d failures, %d under way", failures, o.set.Clusters()[0].Active())
	}
}

func TestTheRequestsTimeoutDoesNotEndATunnel(t *testing.T) {
	r := start(t, []string{upgrading(t, switched, echo)}, timeout(time.Second))
	nc, in, _ := upgrade(t, r, askWebSocket)
	time.Sleep(1500 * time.Millisecond)
	_, _ = io.WriteString(nc, "still here")
	wantBytes(t, in, "still here")
}

func TestTheTimeoutHoldsUntilTheProtocolIsSwitched(t *testing.T) {
	r := start(t, []string{upgrading(t, "", echo)}, timeout(300*time.Millisecond))
	if _, _, resp := upgrade(t, r, askWebSocket); resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestATunnelInWhichNothingMovesIsEnded(t *testing.T) {
	ended := make(chan error, 1)
	o := observe(t, func(c *proxy.Config) { c.TunnelIdleTimeout = 1500 * time.Millisecond }, []string{upgrading(t, switched, func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		_, err := io.Copy(struct{ io.Writer }{nc}, in)
		ended <- err
	})})
	nc, in, _ := upgrade(t, o.rig, askWebSocket)
	for range 8 { // what moves keeps it
		_, _ = io.WriteString(nc, "x")
		wantBytes(t, in, "x")
		time.Sleep(250 * time.Millisecond)
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %q, %v, which it may take for the instance's end", rest, err)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the instance sees %v, which it may take for the client's end", err)
	}
	if lines := o.span("server"); lines.Attributes["fairlead.reason"] != "idle_timeout" {
		t.Errorf("%+v", lines)
	}
}

func TestATunnelEndsWhenTheTimeToDrainIsOver(t *testing.T) {
	o := observe(t, unchanged, []string{upgrading(t, switched, echo)})
	nc, in, _ := upgrade(t, o.rig, askWebSocket)
	grace, over := context.WithCancel(t.Context())
	defer over()
	cut := make(chan int, 1)
	go func() { cut <- o.server.Drain(grace) }()
	time.Sleep(200 * time.Millisecond)
	_, _ = io.WriteString(nc, "x") // it has the time
	wantBytes(t, in, "x")
	over()
	if n := <-cut; n != 1 {
		t.Errorf("%d cut off", n)
	}
	if _, err := in.ReadByte(); err == nil {
		t.Error("it goes on")
	}
	if s := o.span("server"); s.Attributes["fairlead.reason"] != "stopped" {
		t.Errorf("%+v", s)
	}
}

func TestAnAnswerOtherThan101IsAnOrdinaryOne(t *testing.T) {
	r := start(t, []string{upgrading(t, "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno", func(_ *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		if _, err := http.ReadRequest(in); err == nil {
			_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
		}
	})})
	nc, in, resp := upgrade(t, r, askWebSocket)
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 426 || string(body) != "no" || err != nil {
		t.Errorf("%d %q, %v", resp.StatusCode, body, err)
	}
	_, _ = io.WriteString(nc, "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(body) != "next" || err != nil {
		t.Errorf("%d %q, %v", resp.StatusCode, body, err)
	}
}

func TestWhatIsOfferedToTheInstance(t *testing.T) {
	for _, c := range []struct{ rule, line, fields, want string }{
		{"RFC 9110 §7.8: a list, in the client's order", "GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: websocket, IRC/6.9\r\nUpgrade: RTA/x11\r\n", "websocket, IRC/6.9, RTA/x11"},
		{"RFC 9110 §7.6.1: without the option it is not meant", "GET / HTTP/1.1", "Upgrade: websocket\r\n", ""},
		{"RFC 9110 §7.8: an HTTP/1.0 request's is ignored", "GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", ""},
		{"RFC 9113 §3.1: h2c has no upgrade any more", "GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", ""},
		{"whatever its spelling", "GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: H2C , h2, HTTP/2.0\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", ""},
		{"neither another protocol's version 2 nor another version of HTTP is it", "GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: IRC/2, HTTP/3.0\r\n", "IRC/2, HTTP/3.0"},
		{"but others beside it are offered", "GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", "websocket"},
		{"more than anybody offers", "GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: 1,2,3,4,5,6,7,8,9\r\n", ""},
		{"nothing", "GET / HTTP/1.1", "Connection: upgrade\r\nUpgrade: ,\r\n", ""},
	} {
		heads := make(chan *http.Request, 1)
		r := start(t, []string{upgrading(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", func(q *http.Request, _ *bufio.Reader, _ *net.TCPConn) { heads <- q })})
		_, _, resp := upgrade(t, r, c.line+"\r\nHost: a\r\n"+c.fields+"\r\n")
		q := <-heads
		meant := q.Header.Get("Connection") == "Upgrade"
		if resp.StatusCode != 200 || q.Header.Get("Upgrade") != c.want || meant != (c.want != "") || q.Header.Get("Http2-Settings") != "" {
			t.Errorf("%s: status %d, the instance sees %v", c.rule, resp.StatusCode, q.Header)
		}
	}
}

func TestTrailersAreAskedForBesideAnUpgrade(t *testing.T) {
	heads := make(chan http.Header, 1)
	r := start(t, []string{upgrading(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", func(q *http.Request, _ *bufio.Reader, _ *net.TCPConn) { heads <- q.Header })})
	upgrade(t, r, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, te\r\nTE: trailers\r\nUpgrade: websocket\r\n\r\n")
	if h := <-heads; h.Get("Connection") != "Upgrade, TE" || h.Get("Te") != "trailers" {
		t.Errorf("%v", h)
	}
}

func TestAnInstanceThatSwitchesAsItWasNotAskedToIsRefused(t *testing.T) {
	plain := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct{ name, request, answer, detail string }{
		{"unasked", plain, switched, "unasked"},
		{"asked for HTTP/2 only", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "unasked"},
		{"to another protocol", askWebSocket, strings.Replace(switched, "websocket", "h2c", 1), "does not offer"},
		{"to no protocol", askWebSocket, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", "does not offer"},
		{"without the option", askWebSocket, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", "does not offer"},
		{"before it has the body", "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 100000\r\n\r\nhello", switched, "whole request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(t, []string{upgrading(t, c.answer, func(_ *http.Request, in *bufio.Reader, _ *net.TCPConn) { _, _ = io.Copy(io.Discard, in) })})
			_, _, resp := upgrade(t, r, c.request)
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 502 || resp.Header.Get("fairlead-reason") != "upstream_protocol" || !strings.Contains(string(body), c.detail) {
				t.Errorf("%d %q", resp.StatusCode, body)
			}
		})
	}
}

func TestARequestWithABodyMayBeUpgraded(t *testing.T) {
	for _, size := range []int{5, 200_000} {
		body := strings.Repeat("b", size)
		r := start(t, []string{listen(t, func(nc net.Conn) {
			in := bufio.NewReader(nc)
			q, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if got, err := io.ReadAll(q.Body); string(got) != body || err != nil {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			_, _ = io.WriteString(nc, switched)
			_, _ = io.Copy(nc, in)
		})})
		_, in, resp := upgrade(t, r, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n%sbehind", size, body))
		if resp.StatusCode != 101 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		wantBytes(t, in, "behind")
	}
}

func TestAnUpgradeThatGotNoAnswerIsOfferedToAnotherInstance(t *testing.T) {
	broken := listen(t, func(nc net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(nc)) })
	r := start(t, []string{broken, upgrading(t, switched, echo)}, withoutBreaker)
	for range 4 {
		nc, in, resp := upgrade(t, r, askWebSocket)
		if resp.StatusCode != 101 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		_, _ = io.WriteString(nc, "x")
		wantBytes(t, in, "x")
		_ = nc.Close()
	}
}

func TestManyBytesBothWaysComeThroughATunnelAsTheyWere(t *testing.T) {
	r := start(t, []string{upgrading(t, switched, echo)})
	nc, in, _ := upgrade(t, r, askWebSocket)
	const size = 48 << 20 // many times what the kernel carries in one go
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i * 31 >> 3)
	}
	go func() {
		for sent := 0; sent < size; sent += len(block) {
			if _, err := nc.Write(block); err != nil {
				t.Error(err)
				return
			}
			if sent == size/2 {
				time.Sleep(1500 * time.Millisecond) // long enough for the kernel to give it back
			}
		}
		_ = nc.CloseWrite()
	}()
	_ = nc.SetDeadline(time.Now().Add(60 * time.Second))
	got := make([]byte, len(block))
	n := 0
	for ; ; n += len(got) {
		m, err := io.ReadFull(in, got)
		if errors.Is(err, io.EOF) && m == 0 {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", n+m, err)
		}
		if !bytes.Equal(got, block) {
			t.Fatalf("other bytes at %d", n)
		}
	}
	if n != size {
		t.Errorf("%d bytes, want %d", n, size)
	}
}

func TestASlowReaderHoldsUpOnlyItsOwnTunnel(t *testing.T) {
	sent := make(chan int, 1)
	r := start(t, []string{upgrading(t, switched, func(q *http.Request, in *bufio.Reader, nc *net.TCPConn) {
		if q.URL.Path != "/chat" {
			echo(q, in, nc)
			return
		}
		_ = nc.SetWriteDeadline(time.Now().Add(2 * time.Second))
		n, _ := nc.Write(make([]byte, 256<<20))
		sent <- n
	})})
	slow, _, _ := upgrade(t, r, askWebSocket)
	nc, in, _ := upgrade(t, r, strings.Replace(askWebSocket, "/chat", "/other", 1))
	for range 100 {
		_, _ = io.WriteString(nc, "x")
		wantBytes(t, in, "x")
	}
	if n := <-sent; n >= 256<<20 {
		t.Error("all of it was taken in")
	}
	_ = slow.Close()
}

// TestWebSocket is a conversation of a client and a server that know nothing of a proxy.
func TestWebSocket(t *testing.T) {
	addr := backend(t, func(w http.ResponseWriter, q *http.Request) {
		c, err := websocket.Accept(w, q, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(q.Context())
			if err != nil {
				if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Errorf("the server: %v", err)
				}
				return
			}
			if string(message) == "close" {
				_ = c.Close(websocket.StatusGoingAway, "as you like")
				return
			}
			// In fragments, as a writer that is written to in pieces makes them.
			out, err := c.Writer(q.Context(), kind)
			if err != nil {
				t.Error(err)
				return
			}
			for piece := message; len(piece) > 0; {
				n := min(len(piece), 60_000)
				_, _ = out.Write(piece[:n])
				piece = piece[n:]
			}
			_ = out.Close()
		}
	})
	r := start(t, []string{addr})
	for name, mode := range map[string]websocket.CompressionMode{"plain": websocket.CompressionDisabled, "compressed": websocket.CompressionContextTakeover} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			open := func() *websocket.Conn {
				c, resp, err := websocket.Dial(ctx, "ws://"+r.addr+"/chat", &websocket.DialOptions{Subprotocols: []string{"echo"}, CompressionMode: mode})
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != 101 || c.Subprotocol() != "echo" {
					t.Errorf("status %d, subprotocol %q", resp.StatusCode, c.Subprotocol())
				}
				c.SetReadLimit(-1)
				return c
			}
			c := open()
			for _, size := range []int{0, 1, 125, 126, 127, 65_535, 65_536, 5 << 20} {
				message := bytes.Repeat([]byte("é"), size/2+1)[:size]
				if err := c.Write(ctx, websocket.MessageBinary, message); err != nil {
					t.Fatal(err)
				}
				if kind, got, err := c.Read(ctx); err != nil || kind != websocket.MessageBinary || !bytes.Equal(got, message) {
					t.Fatalf("%d bytes: %v, %d bytes, %v", size, kind, len(got), err)
				}
			}
			reading := c.CloseRead(ctx) // so that the pong is seen
			if err := c.Ping(ctx); err != nil {
				t.Errorf("ping: %v", err)
			}
			if err := c.Close(websocket.StatusNormalClosure, "enough"); err != nil {
				t.Errorf("closing: %v", err)
			}
			<-reading.Done()

			c = open()
			if err := c.Write(ctx, websocket.MessageText, []byte("close")); err != nil {
				t.Fatal(err)
			}
			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway || !strings.Contains(err.Error(), "as you like") {
				t.Errorf("the server's close: %v", err)
			}
			_ = c.CloseNow()
		})
	}
}
