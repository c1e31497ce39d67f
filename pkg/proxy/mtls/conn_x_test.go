package mtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// ends are the two of a connection of which one is crypto/tls's.
type ends struct {
	conn *mtls.Conn // at the listener, or at the client
	peer *tls.Conn
	raw  *net.TCPConn // below peer
}

// pair is a connection: the side that was accepted, and the one that dialled.
func pair(t testing.TB) (accepted, dialled *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), d.Close() })
	return a.(*net.TCPConn), d.(*net.TCPConn)
}

// connect makes a connection with the conn at the client, or at the listener.
func connect(t testing.TB, atClient bool, version uint16) ends {
	t.Helper()
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	accepted, dialled := pair(t)
	var e ends
	var other sync.WaitGroup
	var err, peerErr error
	handshake := func() { peerErr = e.peer.Handshake() }
	if atClient {
		e.raw = accepted
		e.peer = tls.Server(accepted, &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}, MaxVersion: version}) //nolint:gosec // a test
		other.Go(handshake)
		e.conn, err = client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"}).Handshake(context.Background(), dialled, "h")
	} else {
		e.raw = dialled
		e.peer = tls.Client(dialled, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example", MaxVersion: version}) //nolint:gosec // a test
		other.Go(handshake)
		e.conn = server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}).Conn(accepted)
		err = e.conn.Handshake()
	}
	other.Wait()
	if err := errors.Join(err, peerErr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.conn.Close(); _ = e.raw.Close() })
	return e
}

func everyWay(t *testing.T, f func(t *testing.T, e ends)) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, atClient := range []bool{true, false} {
			t.Run(map[bool]string{true: "client", false: "listener"}[atClient]+" "+tls.VersionName(version), func(t *testing.T) {
				f(t, connect(t, atClient, version))
			})
		}
	}
}

// soon waits for what the kernel delivers by itself.
func soon(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 10_000 {
		if f() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("it never was so: %s", what)
}

func TestAnIdleConnectionIsAliveUntilItsPeerEndsItOrSpeaks(t *testing.T) {
	endings := map[string]func(e ends){
		"close":                func(e ends) { _ = e.peer.Close() },
		"close_notify alone":   func(e ends) { _ = e.peer.CloseWrite() },
		"end of stream alone":  func(e ends) { _ = e.raw.CloseWrite() },
		"reset":                func(e ends) { _ = e.raw.SetLinger(0); _ = e.raw.Close() },
		"bytes that are none":  func(e ends) { _, _ = e.raw.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")) },
		"bytes that are asked": func(e ends) { _, _ = e.peer.Write([]byte("x")) },
	}
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, e ends) {
				for range 2 {
					if !e.conn.Alive() {
						t.Fatal("it is not alive")
					}
				}
				end(e)
				soon(t, "it is dead", func() bool { return !e.conn.Alive() })
			})
		})
	}
}

// The tickets of TLS 1.3 come behind the handshake, when they come.
func TestTicketsThatComeLateAreNoEnd(t *testing.T) {
	e := connect(t, true, tls.VersionTLS13)
	for range 5 {
		if !e.conn.Alive() {
			t.Fatal("it is not alive")
		}
		time.Sleep(time.Millisecond)
	}
	go func() { _, _ = e.peer.Write([]byte("hello")) }()
	got := make([]byte, 5)
	if _, err := io.ReadFull(e.conn, got); err != nil || string(got) != "hello" || !e.conn.Alive() {
		t.Errorf("%q, %v", got, err)
	}
}

// The end may come in the same segment as what was to be read.
func TestAnEndThatCameBehindTheLastBytesIsSeen(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		_, _ = e.peer.Write([]byte("hello"))
		_ = e.peer.CloseWrite()
		time.Sleep(10 * time.Millisecond) // so that both are read at once, mostly
		got := make([]byte, 5)
		if n, err := io.ReadFull(e.conn, got); n != 5 {
			t.Fatal(err)
		}
		soon(t, "it is dead", func() bool { return !e.conn.Alive() })
	})
}

func TestAPeerThatWentAwayIsNoticedWithoutReading(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		if e.conn.PeerGone() {
			t.Fatal("it is gone")
		}
		long := strings.Repeat("x", 500)
		if _, err := e.peer.Write([]byte(long)); err != nil {
			t.Fatal(err)
		}
		if e.conn.PeerGone() {
			t.Error("bytes of a next message are taken for an end")
		}
		got := make([]byte, len(long))
		if _, err := io.ReadFull(e.conn, got); err != nil {
			t.Fatal(err)
		}
		if _, err := e.peer.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if e.conn.PeerGone() {
			t.Error("one byte of a next message is taken for an end")
		}
		if _, err := io.ReadFull(e.conn, got[:1]); err != nil {
			t.Fatal(err)
		}
		_ = e.peer.Close()
		soon(t, "it is gone", e.conn.PeerGone)
		_ = e.conn.Close()
		if !e.conn.PeerGone() {
			t.Error("a closed connection's peer is there")
		}
	})
}

func TestAPeerWhoseSocketAloneHasEndedIsGone(t *testing.T) {
	for name, end := range map[string]func(e ends){
		"end of stream": func(e ends) { _ = e.raw.CloseWrite() },
		"reset":         func(e ends) { _ = e.raw.SetLinger(0); _ = e.raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, e ends) {
				if !e.conn.Alive() || e.conn.PeerGone() {
					t.Fatal("it is gone")
				}
				end(e)
				time.Sleep(10 * time.Millisecond) // the kernel tells of a reset once, so it is asked once
				if !e.conn.PeerGone() {
					t.Error("it is there")
				}
			})
		})
	}
}

func TestPollWaitsWithoutReadingAndKeepsToTheDeadline(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		buf, n, tries := make([]byte, 64), 0, 0
		var readErr error
		if err := e.conn.Poll(func() bool {
			var wait bool
			n, wait, readErr = e.conn.TryRead(buf)
			return wait || n > 0
		}); err != nil || n != 0 || readErr != nil {
			t.Errorf("nothing is there: %d bytes, %v, %v", n, err, readErr)
		}
		read := func() bool {
			if tries++; tries == 1 { // not before, or it may have passed before the first try
				_ = e.conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			}
			var wait bool
			n, wait, readErr = e.conn.TryRead(buf)
			return !wait
		}
		if err := e.conn.Poll(read); !errors.Is(err, os.ErrDeadlineExceeded) || tries == 0 {
			t.Errorf("nothing came: %v after %d tries", err, tries)
		}
		_ = e.conn.SetReadDeadline(time.Time{})
		for range 3 {
			go func() { time.Sleep(time.Millisecond); _, _ = e.peer.Write([]byte("hello")) }()
			if err := e.conn.Poll(read); err != nil || readErr != nil || string(buf[:n]) != "hello" {
				t.Errorf("%q, %v, %v", buf[:n], err, readErr)
			}
		}
		// Two records in one segment: the second is there, and the socket has nothing.
		_, _ = e.peer.Write([]byte("one"))
		_, _ = e.peer.Write([]byte("two"))
		time.Sleep(10 * time.Millisecond)
		for _, want := range []string{"one", "two"} {
			if err := e.conn.Poll(read); err != nil || string(buf[:n]) != want {
				t.Errorf("%q, %v, want %s", buf[:n], err, want)
			}
		}
		_ = e.peer.Close()
		if err := e.conn.Poll(read); err != nil || !errors.Is(readErr, io.EOF) {
			t.Errorf("at the end: %v, %v", err, readErr)
		}
	})
}

func TestRecordsThatComeInPiecesAreReadWhole(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		// Records of 16 kB come in several segments, and each is read by little and little.
		want := strings.Repeat("0123456789", 5_000)
		go func() { _, _ = io.WriteString(e.peer, want) }()
		var got strings.Builder
		buf := make([]byte, 1_000)
		for got.Len() < len(want) {
			var n int
			err := e.conn.Poll(func() bool {
				var wait bool
				n, wait, _ = e.conn.TryRead(buf)
				return !wait
			})
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		if got.String() != want {
			t.Error("other bytes came")
		}
	})
}

func TestCloseSendsCloseNotifyAndAnAbruptOneDoesNot(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		_ = e.conn.Close()
		if n, err := e.peer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	everyWay(t, func(t *testing.T, e ends) {
		_ = e.conn.SetLinger(0)
		_ = e.conn.Close()
		if _, err := e.peer.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("it looks like a good end: %v", err)
		}
	})
}

// crypto/tls takes an end without an alert for a good one, so the bytes are looked at: one record
// is before the end, also where writing had to wait before.
func TestCloseSendsOneRecordBeforeTheEnd(t *testing.T) {
	for _, waited := range []bool{false, true} {
		everyWay(t, func(t *testing.T, e ends) {
			sent := 1
			if waited {
				sent += fill(t, e.conn)
			}
			written := make(chan error, 1)
			go func() { _, err := e.conn.Write([]byte("x")); written <- err }()
			_, err := io.CopyN(io.Discard, e.peer, int64(sent))
			if err := errors.Join(err, <-written); err != nil {
				t.Fatal(err)
			}
			_ = e.conn.Close()
			got, err := io.ReadAll(e.raw)
			if err != nil || len(got) < 7 || len(got) > 128 || got[0] != alert && got[0] != application || len(got) != 5+int(got[4]) {
				t.Errorf("waited: %t: %x, %v", waited, got, err)
			}
		})
	}
}

func TestCloseWriteEndsBothLayers(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		if err := e.conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := e.peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("crypto/tls: %v", err)
		}
		if _, err := e.raw.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the socket: %v", err)
		}
		if _, err := e.peer.Write([]byte("still")); err != nil {
			t.Error(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(e.conn, got); err != nil || string(got) != "still" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestAPeerThatHasEndedItsSideIsStillWrittenTo(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		for _, end := range []func() error{e.peer.CloseWrite, e.raw.CloseWrite} { // TLS's half, and then the socket's
			if err := end(); err != nil {
				t.Fatal(err)
			}
			if n, err := e.conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if _, err := e.conn.Write([]byte("still")); err != nil {
				t.Error(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(e.peer, got); err != nil || string(got) != "still" {
				t.Errorf("%q, %v", got, err)
			}
		}
		if e.conn.Truncated() {
			t.Error("an end with close_notify is taken for one without")
		}
		if err := e.conn.CloseWrite(); err != nil {
			t.Error(err)
		}
		if n, err := e.peer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// late keeps what is written behind the first flight of a handshake until it is let go.
type late struct {
	net.Conn
	flights int
	held    []byte
	letGo   bool
}

func (l *late) Write(p []byte) (int, error) {
	if l.flights++; l.flights == 1 {
		return l.Conn.Write(p)
	}
	l.held = append(l.held, p...)
	if l.letGo {
		if _, err := l.Conn.Write(l.held); err != nil {
			return 0, err
		}
		l.held = nil
	}
	return len(p), nil
}

// What comes in one segment with the last message of the handshake is taken off the socket by the
// handshake, and nothing comes behind it that would say so.
func TestBytesBehindFinishedAreReadWithoutFurtherOnes(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	s := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}})
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"})
	// The last message is the client's in 1.3, and the listener's in 1.2.
	for _, atClient := range []bool{false, true} {
		ours, theirs := pair(t)
		peer := &late{Conn: theirs}
		var other *tls.Conn
		if atClient {
			other = tls.Server(peer, &tls.Config{Certificates: []tls.Certificate{ca.Certificate("app.example")}, MaxVersion: tls.VersionTLS12}) //nolint:gosec // a test
		} else {
			other = tls.Client(peer, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example", MinVersion: tls.VersionTLS13})
		}
		sent := make(chan error, 1)
		go func() {
			err := other.Handshake()
			peer.letGo = true
			if err == nil {
				_, err = other.Write([]byte("hello"))
			}
			sent <- err
		}()
		var conn *mtls.Conn
		var err error
		if atClient {
			conn, err = c.Handshake(context.Background(), ours, "h")
		} else {
			conn = s.Conn(ours)
			err = conn.Handshake()
		}
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		var n int
		buf := make([]byte, 9)
		if err := conn.Poll(func() bool {
			var wait bool
			n, wait, err = conn.TryRead(buf)
			return !wait
		}); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("at the client: %t: %q, %v", atClient, buf[:n], err)
		}
	}
}

// The watchdog closes connections under a lock: a peer that reads nothing must not hold it.
func TestCloseDoesNotWaitForAPeerThatReadsNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		written := make(chan error, 1)
		go func() {
			var err error
			for err == nil {
				_, err = e.conn.Write(make([]byte, 10_000_000))
			}
			written <- err
		}()
		// It blocks once nothing goes out any more.
		time.Sleep(50 * time.Millisecond)
		select {
		case err := <-written:
			t.Fatalf("writing does not wait: %v", err)
		default:
		}
		closed := make(chan struct{})
		go func() { _ = e.conn.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(4 * time.Second): // crypto/tls alone would wait for five
			t.Error("closing waits")
		}
		if err := <-written; err == nil {
			t.Error("writing went on")
		}
	})
}

func TestAPlaintextRequestIsRecognised(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	s := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}})
	for request, want := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n":     true,
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n": true,
		"POST /x HTTP/1.1\r\nHost: a\r\n\r\n":   true,
		"EHLO a.example\r\n":                    false,
		"\x16\x03\x01\x00\x05hello":             false,
	} {
		address, outcomes := listen(t, s)
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = nc.Write([]byte(request))
		at := <-outcomes
		_ = nc.Close()
		if got := mtls.LooksLikeHTTP(at.err); got != want {
			t.Errorf("%q: %t, %v", request, got, at.err)
		}
		if want && mtls.Cause(at.err) != "not_tls" {
			t.Errorf("%q: %s", request, mtls.Cause(at.err))
		}
	}
}

func TestAHandshakeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // where nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	k, _ := newKeeper(t, 0)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := client(t, k, mesh.UpstreamTLS{}).Handshake(ctx, nc, "h"); cause(err) != "timeout" {
		t.Errorf("%s: %v", cause(err), err)
	}
}

// A connection of no socket is for tests; it works, without what asks the kernel.
func TestAConnectionThatIsNoSocketWorks(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	a, b := net.Pipe()
	conn := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}).Conn(a)
	peer := tls.Client(b, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example"}) //nolint:gosec // a test
	done := make(chan error, 1)
	go func() {
		_, err := peer.Write([]byte("hello"))
		_, _ = io.Copy(io.Discard, peer)
		done <- err
	}()
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	var n int
	buf := make([]byte, 8)
	if n, wait, err := conn.TryWrite([]byte("x")); n != 0 || !wait || err != nil { // Write takes it
		t.Errorf("%d, %t, %v", n, wait, err)
	}
	tries := 0
	err := conn.Poll(func() bool {
		if tries++; tries == 2 {
			n, _, _ = conn.TryRead(buf)
		}
		return tries == 2
	})
	if err != nil || string(buf[:n]) != "hello" || !conn.Alive() || conn.PeerGone() {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if err := errors.Join(conn.SetLinger(1), conn.CloseWrite(), <-done, conn.Close()); err != nil {
		t.Error(err)
	}
}

// What a socket that is full has not taken of a record is not lost, and comes in its place.
func TestTryWriteTakesWhatThereIsRoomForAndWriteTheRest(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		var sent []byte
		next := byte(0)
		piece := func(n int) []byte {
			p := make([]byte, n)
			for i := range p {
				p[i] = next
				next++
			}
			return p
		}
		for {
			p := piece(50_000)
			n, wait, err := e.conn.TryWrite(p)
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, p[:n]...)
			if wait {
				for _, more := range [][]byte{p[n:], []byte("more")} {
					if n, wait, err := e.conn.TryWrite(more); n != 0 || !wait || err != nil {
						t.Errorf("a full socket has taken %d, %t, %v", n, wait, err)
					}
				}
				next -= byte(len(p) - n)
				break
			}
			if n != len(p) {
				t.Fatalf("%d of %d are taken, and there is nothing to wait for", n, len(p))
			}
		}
		rest := make(chan error, 1)
		more := piece(100_000)
		go func() {
			_, err := e.conn.Write(nil)
			if err == nil && len(sent)%2 == 0 { // with nothing between, or at once
				_, _, err = e.conn.TryWrite(nil)
			}
			if err == nil {
				_, err = e.conn.Write(more)
			}
			rest <- err
		}()
		want := slices.Concat(sent, more)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(e.peer, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("other bytes came: %v", err)
		}
		if err := <-rest; err != nil {
			t.Error(err)
		}
		if n, wait, err := e.conn.TryWrite([]byte("end")); n != 3 || wait || err != nil {
			t.Errorf("%d, %t, %v", n, wait, err)
		}
	})
}

// fill writes until the socket is full, and returns how many bytes it has taken.
func fill(t *testing.T, c *mtls.Conn) int {
	t.Helper()
	for sent := 0; ; {
		n, wait, err := c.TryWrite(make([]byte, 50_000))
		if err != nil {
			t.Fatal(err)
		}
		if sent += n; wait {
			return sent
		}
	}
}

// stuff fills a socket until the kernel, which moves on what it has taken, takes no more
// however often it is asked.
func stuff(t *testing.T, c *mtls.Conn) {
	t.Helper()
	fill(t, c)
	for refused := 0; refused < 5; {
		_ = c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		switch _, err := c.Write(nil); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			refused++
		case err != nil:
			t.Fatal(err)
		default:
			fill(t, c)
			refused = 0
		}
	}
	_ = c.SetWriteDeadline(time.Time{})
}

// What is left of a record goes before the end, and the end before that of the socket.
func TestCloseWriteWaitsForWhatIsLeft(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		sent := fill(t, e.conn)
		ended := make(chan error, 1)
		go func() { ended <- e.conn.CloseWrite() }()
		n, err := io.Copy(io.Discard, e.peer)
		if err := errors.Join(err, <-ended); err != nil || n != int64(sent) {
			t.Errorf("%d bytes of %d come: %v", n, sent, err)
		}
	})
}

// The watchdog may close a connection whose end is being written.
func TestCloseDoesNotWaitForACloseWriteThatDoes(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		stuff(t, e.conn)
		ended := make(chan error, 1)
		go func() { ended <- e.conn.CloseWrite() }()
		time.Sleep(50 * time.Millisecond) // it waits
		closed := make(chan struct{})
		go func() { _ = e.conn.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(4 * time.Second): // CloseWrite waits for five
			t.Error("closing waits")
		}
		if err := <-ended; err == nil {
			t.Error("the end was written")
		}
	})
}

func TestATryOnAConnectionThatIsClosedFails(t *testing.T) {
	everyWay(t, func(t *testing.T, e ends) {
		_ = e.conn.Close()
		if n, _, err := e.conn.TryWrite([]byte("x")); n != 0 || err == nil {
			t.Errorf("%d, %v", n, err)
		}
		if n, wait, err := e.conn.TryRead(make([]byte, 1)); n != 0 || wait || err == nil {
			t.Errorf("%d, %t, %v", n, wait, err)
		}
		if e.conn.Alive() {
			t.Error("it is alive")
		}
	})
}
