package controlplane_test

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 wants it
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// overHTTP2 is a WebSocket, or whatever else its two ends take it for, of a client of HTTP/2.
type overHTTP2 struct {
	io.Reader
	*io.PipeWriter // ends its way by Close
	fields         http.Header
}

// extended asks for /path of a service by an extended CONNECT (RFC 8441), of x/net's client.
//
//nolint:staticcheck // it is deprecated, and net/http's refuses :protocol
func (b beside) extended(ctx context.Context, t *testing.T, host, path string) (overHTTP2, int) {
	t.Helper()
	transport := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	body, mine := io.Pipe()
	q, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://"+b.addresses.Listeners[sidecar.Outbound].String()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = host
	q.Header[":protocol"] = []string{"websocket"}
	q.Header.Set("Sec-Websocket-Version", "13")
	q.Header.Set("Sec-Websocket-Protocol", "chat")
	a, err := transport.RoundTrip(q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(mine.Close(), a.Body.Close()) })
	return overHTTP2{a.Body, mine, a.Header}, a.StatusCode
}

// frame is one of WebSocket's, masked with nothing, as clients send it (RFC 6455 §5.2).
func frame(opcode byte, payload string) []byte {
	return append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

// ofHTTP1 is an application that speaks HTTP/1.1 and no other: at /chat a WebSocket that doubles what
// it hears, at /raw what says the lines that it hears again, and at their end how many they were.
func ofHTTP1(t *testing.T) string {
	t.Helper()
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/chat":
			c, err := websocket.Accept(w, q, &websocket.AcceptOptions{Subprotocols: []string{"chat"}})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.CloseNow() }()
			for {
				kind, message, err := c.Read(q.Context())
				if err != nil {
					if status := websocket.CloseStatus(err); status != websocket.StatusNormalClosure {
						t.Errorf("the application reads %v", err)
					}
					return
				}
				_ = c.Write(q.Context(), kind, append(message, message...))
			}
		case "/raw":
			nc, in, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = nc.Close() }()
			key := q.Header.Get("Sec-Websocket-Key")
			if key == "" {
				t.Errorf("what the application is asked: %v", q.Header)
			}
			// Who is to check the answer to the key is the sidecar, for its client has none.
			_, _ = fmt.Fprintf(in, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(key))
			_ = in.Flush()
			lines := 0
			for {
				line, err := in.ReadString('\n')
				if err != nil {
					_, _ = fmt.Fprintf(nc, "%d lines, and %v\n", lines, err)
					return
				}
				lines++
				_, _ = io.WriteString(nc, line)
			}
		default:
			_, _ = io.WriteString(w, "o1")
		}
	}))
	t.Cleanup(served.Close)
	return served.Listener.Addr().String()
}

// Its client speaks HTTP/2, the application HTTP/1.1, and both sidecars and the control plane lie between.
func TestAWebSocketOfAnHTTP2ClientReachesAnHTTP1Application(t *testing.T) {
	addresses := runControlPlane(t)
	orders := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "orders", InstanceID: "o1", AppAddr: ofHTTP1(t)})
	eventually(t, "it is registered", func() bool { return registered(t, addresses, "orders") == "o1" })
	shop := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop", InstanceID: "s1"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	chat, status := shop.extended(ctx, t, "orders", "/chat")
	if status != 200 || chat.fields.Get("Sec-Websocket-Protocol") != "chat" || chat.fields.Get("Sec-Websocket-Accept") != "" || chat.fields.Get("Upgrade") != "" {
		t.Fatalf("%d %v", status, chat.fields)
	}
	for _, said := range []string{"well", strings.Repeat("x", 60)} {
		_, _ = chat.Write(frame(1, said))
		want := append([]byte{0x81, byte(2 * len(said))}, said+said...)
		got := make([]byte, len(want))
		if n, err := io.ReadFull(chat, got); string(got) != string(want) {
			t.Fatalf("%q, %v", got[:n], err)
		}
	}
	// RFC 6455 §5.5.1: a Close frame is answered with one, and then the server ends the connection.
	_, _ = chat.Write(frame(8, "\x03\xe8"))
	if rest, err := io.ReadAll(chat); string(rest) != "\x88\x02\x03\xe8" || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if err := chat.Close(); err != nil { // its way is its own to end
		t.Error(err)
	}

	raw, status := shop.extended(ctx, t, "orders", "/raw")
	if status != 200 {
		t.Fatalf("%d %v", status, raw.fields)
	}
	in := bufio.NewReader(raw)
	line := func(want string) {
		t.Helper()
		if got, err := in.ReadString('\n'); got != want || err != nil {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	_, _ = io.WriteString(raw, "one\n")
	line("one\n")

	// The sidecar of the application drains, and keeps what runs.
	stopped := make(chan struct{})
	go func() { defer close(stopped); orders.stop() }()
	eventually(t, "others have nowhere to go", func() bool {
		status, reason, _ := shop.through("orders", "/")
		return status == 503 && (reason == "no_usable_endpoint" || reason == "no_endpoints")
	})
	_, _ = io.WriteString(raw, "two\n")
	line("two\n")
	select {
	case <-stopped:
		t.Error("the sidecar has ended under a tunnel")
	default:
	}
	// The client ends its way, and the application has something to say yet.
	if err := raw.Close(); err != nil {
		t.Error(err)
	}
	line("2 lines, and EOF\n")
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("it ends with %v", err)
	}
	<-stopped
}

// accept is what answers a key (RFC 6455 §4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as the RFC wants it
	return base64.StdEncoding.EncodeToString(sum[:])
}
