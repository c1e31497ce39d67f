package mtls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls/mtlstest"
)

// One place for all: what holds it holds up everybody.
func TestHandshakesOfPeersThatSayNothingOrLittleHoldUpNobody(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
	defer k.Close()
	address, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}))
	for i := range 300 {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		_, _ = nc.Write([]byte{22, 3, 1, 1, 0, 1, 0, 0, 252}[:i%10%9+i%2]) // the beginning of a ClientHello
	}
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"})
	for range 20 {
		if _, err := call(t, c, address); err != nil {
			t.Fatal(err)
		}
	}
}

// What the listener says first is more than the socket takes, and the client reads nothing of it.
func TestAHandshakeOfAPeerThatReadsNothingHoldsUpNobody(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
	defer k.Close()
	chain, key := ca.Issue("app.example")
	large := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: files(t, bytes.Repeat(chain, 1000), key)}})
	accepted, dialled := pair(t)
	if err := errors.Join(accepted.SetWriteBuffer(4<<10), dialled.SetReadBuffer(4<<10)); err != nil {
		t.Fatal(err)
	}
	peer := &tap{Conn: dialled}
	deaf := tls.Client(peer, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example"}) //nolint:gosec // a test
	stop := make(chan struct{})
	peer.silent = stop
	failed := make(chan error, 2)
	go func() { failed <- deaf.Handshake() }()
	conn := large.Conn(accepted)
	go func() { failed <- conn.Handshake() }()
	soon(t, "it has begun to answer", func() bool {
		var some [1]byte
		n, err := peek(dialled, some[:])
		return err == nil && n == 1
	})
	address, _ := listen(t, server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}))
	c := client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{CA: ca.File(t.TempDir())}, SNI: "app.example"})
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Handshake(ctx, nc, address); err != nil {
			t.Errorf("another: %v", err)
			_ = dialled.Close() // which lets the others go on
		}
		_ = nc.Close()
		cancel()
	}
	close(stop)
	_ = dialled.Close()
	for range 2 {
		if <-failed == nil {
			t.Error("the handshake has come to a good end")
		}
	}
}

// peek looks at what has come.
func peek(c *net.TCPConn, p []byte) (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if controlErr := raw.Control(func(fd uintptr) { n, _, err = syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT) }); controlErr != nil {
		return 0, controlErr
	}
	return n, err
}

func TestAHandshakeIsBounded(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k, _ := newKeeper(t, 0)
	chain, key := ca.Issue("web.example")
	mutual := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}, CA: ca.File(t.TempDir())}, RequireClientCertificate: true}
	for n, want := range map[int]string{1: "", 20: "", 400: "too_long"} {
		address, outcomes := listen(t, server(t, k, mutual))
		shown := files(t, bytes.Repeat(chain, n), key)
		_, _ = call(t, client(t, k, mesh.UpstreamTLS{TLS: mesh.TLS{Certificates: shown}}), address)
		if o := <-outcomes; cause(o.err) != want {
			t.Errorf("a chain of %d: %s, %v", n, cause(o.err), o.err)
		}
	}
	// A ClientHello without end: what it announces is too long, or comes and is.
	address, outcomes := listen(t, server(t, k, mutual))
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	go func() {
		record := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1<<14)...)
		copy(record[5:], []byte{1, 0, 0xff, 0xff})
		for range 100 {
			if _, err := nc.Write(record); err != nil {
				return
			}
		}
	}()
	if o := <-outcomes; o.err == nil {
		t.Error("a ClientHello without end is taken")
	}
}

// stuck holds up a handshake with a place in its hand, as computing does.
type stuck struct {
	net.Conn
	entered, release chan struct{}
}

func (s stuck) Write([]byte) (int, error) {
	close(s.entered)
	<-s.release
	return 0, io.ErrClosedPipe
}

func TestAHandshakeThatWaitsForOthersEndsWhenNobodyWantsIt(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
	defer k.Close()
	c := client(t, k, mesh.UpstreamTLS{})
	s := server(t, k, mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}})
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	held := stuck{a, make(chan struct{}), make(chan struct{})}
	first := make(chan error, 1)
	go func() { _, err := c.Handshake(context.Background(), held, "h"); first <- err }()
	<-held.entered

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.Handshake(ctx, b, "h"); cause(err) != "busy" {
		t.Errorf("at the client: %s, %v", cause(err), err)
	}
	conn := s.Conn(b)
	second := make(chan error, 1)
	go func() { second <- conn.Handshake() }()
	soon(t, "it waits", func() bool { return k.Waiting() == 1 })
	conn.GiveUp()
	if err := <-second; cause(err) != "busy" {
		t.Errorf("at the listener: %s, %v", cause(err), err)
	}
	conn.GiveUp() // once more does nothing
	if n := k.Waiting(); n != 0 {
		t.Errorf("%d wait", n)
	}
	close(held.release)
	if err := <-first; err == nil {
		t.Error("the first has not failed")
	}
}

func TestNothingIsComputedForAClientThatWentAwayWhileItWaited(t *testing.T) {
	ca := mtlstest.NewAuthority(t, "ca")
	s, c := mesh.DownstreamTLS{TLS: mesh.TLS{Certificates: []mesh.KeyPair{ca.Pair(t.TempDir(), "app.example")}}}, &tls.Config{RootCAs: ca.Pool(), ServerName: "app.example"} //nolint:gosec // a test
	for name, leave := range map[string]func(*net.TCPConn){
		"not at all": nil,
		"by its end": func(nc *net.TCPConn) { _ = nc.CloseWrite() },
		"by a reset": func(nc *net.TCPConn) { _, _ = nc.SetLinger(0), nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
			defer k.Close()
			a, b := net.Pipe()
			defer func() { _, _ = a.Close(), b.Close() }()
			held := stuck{a, make(chan struct{}), make(chan struct{})}
			first := make(chan error, 1)
			holder := client(t, k, mesh.UpstreamTLS{})
			go func() { _, err := holder.Handshake(context.Background(), held, "h"); first <- err }()
			<-held.entered

			accepted, dialled := pair(t)
			asked := make(chan error, 1)
			go func() { asked <- tls.Client(dialled, c).Handshake() }()
			soon(t, "its ClientHello is here", func() bool {
				var some [1]byte
				n, err := peek(accepted, some[:])
				return err == nil && n == 1
			})
			conn, served := server(t, k, s).Conn(accepted), make(chan error, 1)
			go func() { served <- conn.Handshake() }()
			soon(t, "it waits", func() bool { return k.Waiting() == 1 })
			gone := leave != nil
			if gone {
				leave(dialled)
				soon(t, "its end is here", func() bool { return mtls.HasGone(conn) })
			}
			close(held.release)
			if err := <-first; err == nil {
				t.Error("what held the place has not failed")
			}
			err := <-served
			if gone != (err != nil) || gone && (!strings.Contains(err.Error(), "went away") || cause(err) != "closed") {
				t.Errorf("the handshake ends with %v", err)
			}
			_ = accepted.Close()
			if err := <-asked; gone != (err != nil) {
				t.Errorf("the client's ends with %v", err)
			}
		})
	}
}
