package sidecar_test

import (
	"bufio"
	"bytes"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 wants it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	frames "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// overTCP is a tunnel of HTTP/1.1.
type overTCP struct {
	*net.TCPConn
	in *bufio.Reader
}

func (o overTCP) Read(p []byte) (int, error) { return o.in.Read(p) }

// switching are hosts that switch to whatever they are asked for, and hand the tunnel over
// until the end of the test.
func switching(t *testing.T, http2 bool) (net.Addr, <-chan tunnel) {
	t.Helper()
	made, done := make(chan tunnel, 1), make(chan struct{})
	at := tcpServer(t, func(nc *net.TCPConn) {
		if http2 {
			p := h2Host(nc)
			_ = p.WriteSettings(frames.Setting{ID: frames.SettingEnableConnectProtocol, Val: 1})
			head, err := p.request()
			if err != nil {
				return
			}
			p.head(head.StreamID, false, ":status", "200")
			made <- &stream{h2Peer: p, id: head.StreamID}
		} else {
			in := bufio.NewReader(nc)
			q, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			sum := sha1.Sum([]byte(q.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
			_, _ = fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(sum[:]))
			made <- overTCP{nc, in}
		}
		<-done
	})
	t.Cleanup(func() { close(done) })
	return at, made
}

// tunnelTo asks for a WebSocket, and gets it.
func tunnelTo(t *testing.T, at net.Addr, http2 bool) tunnel {
	t.Helper()
	client, status, why, text := askForTunnel(t, at, http2)
	if http2 && status != 200 || !http2 && status != 101 {
		t.Fatalf("%d %s %q", status, why, text)
	}
	return client
}

// askForTunnel asks for a WebSocket, at /app. If it does not get one, what is read is the answer's text.
func askForTunnel(t *testing.T, at net.Addr, http2 bool) (client tunnel, status int, why, text string) {
	t.Helper()
	nc := dial(t, at)
	if http2 {
		s := &stream{h2Peer: h2Client(nc), id: 1}
		s.head(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/app", "sec-websocket-version", "13")
		frame, err := s.next()
		head, ok := frame.(*frames.MetaHeadersFrame)
		if !ok {
			t.Fatalf("%v, %v", frame, err)
		}
		for _, f := range head.Fields {
			switch f.Name {
			case ":status":
				status, _ = strconv.Atoi(f.Value)
			case "fairlead-reason":
				why = f.Value
			}
		}
		if status != 200 {
			body, _ := io.ReadAll(s)
			text = string(body)
		}
		return s, status, why, text
	}
	say(t, nc, "GET /app HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	in := bufio.NewReader(nc)
	a, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.StatusCode == http.StatusSwitchingProtocols {
		if got := a.Header.Get("Sec-Websocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("Sec-WebSocket-Accept is %q", got)
		}
	} else {
		body, _ := io.ReadAll(a.Body)
		text = string(body)
	}
	return overTCP{nc, in}, a.StatusCode, a.Header.Get("Fairlead-Reason"), text
}

// drains are what makes a sidecar stop.
var drains = map[string]func(t *testing.T, r running){
	"SIGTERM": func(t *testing.T, _ running) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	},
	"the admin port": func(t *testing.T, r running) {
		a, err := http.Post("http://"+r.admin.String()+"/drain", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
	},
}

// eachTranslated tests tunnels whose two sides speak different versions of HTTP, with either drain.
func eachTranslated(t *testing.T, drainTimeout time.Duration, test func(t *testing.T, r running, client, host tunnel, drain func(), log *bytes.Buffer)) {
	for how, drain := range drains {
		for _, clientSpeaks2 := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, a client of HTTP/2: %t", how, clientSpeaks2), func(t *testing.T) {
				at, made := switching(t, !clientSpeaks2)
				log := &bytes.Buffer{} // which is read when the sidecar has ended
				r := serve(t, sidecar.Config{DrainTimeout: drainTimeout, HandleSignals: true, AccessLog: log, AccessLogFormat: accesslog.JSON},
					webListener(webRoute("/", "app", "0s")), webCluster("app", at, !clientSpeaks2, "1s"))
				client := tunnelTo(t, r.web, clientSpeaks2)
				test(t, r, client, <-made, func() { drain(t, r) }, log)
			})
		}
	}
}

// send lets one end of a tunnel send so many bytes, all of one letter.
func send(t *testing.T, to io.Writer, letter string, n int) {
	t.Helper()
	if _, err := io.WriteString(to, strings.Repeat(letter, n)); err != nil {
		t.Fatal(err)
	}
}

func TestATranslatedTunnelGoesOnWhileTheSidecarDrains(t *testing.T) {
	eachTranslated(t, 2*patience, func(t *testing.T, r running, client, host tunnel, drain func(), log *bytes.Buffer) {
		send(t, client, "a", 20_000)
		send(t, host, "b", 20_000)
		drain()
		eventually(t, "nobody else is let in", func() bool {
			nc, err := net.Dial("tcp", r.web.String())
			if err == nil {
				_ = nc.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if s, ok := client.(*stream); ok {
			// RFC 9113 §6.8: first that there will be an end, then where it is.
			for len(s.last) < 2 && s.end == nil {
				s.advance()
			}
			if want := fmt.Sprint([]uint32{1<<31 - 1, 1}); fmt.Sprint(s.last) != want {
				t.Errorf("the last streams are %v, %v, want %s", s.last, s.end, want)
			}
			s.head(3, true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
		}
		wantBytes(t, host, "a", 20_000)
		wantBytes(t, client, "b", 20_000)
		for range 3 {
			send(t, client, "c", 5000)
			wantBytes(t, host, "c", 5000)
			send(t, host, "d", 5000)
			wantBytes(t, client, "d", 5000)
		}
		select {
		case err := <-r.ended:
			t.Fatalf("it has ended under a tunnel: %v", err)
		default:
		}
		// Each way ends by itself, as ever.
		if err := client.CloseWrite(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(host); len(rest) != 0 || err != nil {
			t.Errorf("the host read %q, %v", rest, err)
		}
		send(t, host, "e", 5000)
		if err := host.CloseWrite(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(client); len(rest) != 5000 || err != nil {
			t.Errorf("the client read %d bytes, %v", len(rest), err)
		}
		if s, ok := client.(*stream); ok && len(s.more) != 0 {
			t.Errorf("streams beyond the last one are answered: %v", s.more)
		}
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("it goes on without the tunnel")
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"bytes_in":35000`) || !strings.Contains(got, `"bytes_out":40000`) {
			t.Errorf("the log: %s", got)
		}
	})
}

// What is cut off must not be taken for what has ended.
func TestATranslatedTunnelBreaksWhenTheTimeToDrainIsOver(t *testing.T) {
	eachTranslated(t, 200*time.Millisecond, func(t *testing.T, r running, client, host tunnel, drain func(), log *bytes.Buffer) {
		send(t, client, "a", 1000)
		wantBytes(t, host, "a", 1000)
		drain()
		for side, end := range map[string]tunnel{"client": client, "host": host} {
			if rest, err := io.ReadAll(end); len(rest) != 0 || err == nil {
				t.Errorf("the %s read %q, and then a clean end", side, rest)
			} else if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the %s is left without an end", side)
			}
		}
		select {
		case err := <-r.ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("it goes on")
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"reason":"stopped"`) {
			t.Errorf("the log: %s", got)
		}
	})
}
