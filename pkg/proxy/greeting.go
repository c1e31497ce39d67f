package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
)

// greeting is a client connection whose TLS handshake is under way. What it becomes takes
// its place, on a goroutine of its own.
type greeting struct {
	server *Server
	net    net.Conn // the socket
	tls    *mtls.Conn
	from   netip.Addr // as of conn
	began  int64
	ended  atomic.Bool // by others than the client
}

func newGreeting(s *Server, nc net.Conn, from netip.Addr) *greeting {
	return &greeting{server: s, net: nc, from: from, tls: s.config.TLS.Conn(nc), began: s.config.Clock()}
}

// serve does the handshake, and then serves what speaks above it.
func (g *greeting) serve() {
	if err := g.tls.Handshake(); err != nil {
		defer g.server.ended(g)
		defer func() { _ = g.net.Close() }() // crypto/tls has sent its alert
		if !g.ended.Load() {
			g.tell(err)
		}
		if mtls.LooksLikeHTTP(err) {
			g.hint()
		}
		return
	}
	c := g.next()
	// If a drain has seen the handshake, c finds the socket closed.
	g.server.replace(g, c)
	go c.serve() // on a small stack: that of a handshake is four times as large, and stays so
}

// tell logs a handshake that failed.
func (g *greeting) tell(err error) {
	cause := mtls.Cause(err)
	g.server.tellTLS(g.net, "TLS handshake failed", mtls.Advise(cause), "cause", cause, "error", err)
}

// tellTLS logs what went wrong with a client's TLS: what somebody can do something about at level
// warn, once in a while, for whoever can connect can bring it about; the rest at level debug.
func (s *Server) tellTLS(client net.Conn, what, help string, more ...any) {
	level := slog.LevelDebug
	if now := s.config.Clock(); help != "" {
		last := s.told.Load()
		if (last == 0 || now-last > int64(acceptWarnEvery)) && s.told.CompareAndSwap(last, max(now, 1)) {
			level = slog.LevelWarn
		}
	}
	more = append(more, "listener", s.config.Name, "client", client.RemoteAddr().String(), "help", help)
	s.config.Log.Log(context.Background(), level, what, more...)
}

// recordHandshake is the first byte of a connection that begins with TLS (RFC 8446 §5.1): that of
// no method.
const recordHandshake = 0x16

// noTLS is what is wrong with a connection that begins so where the listener has no TLS.
const noTLS = "the client speaks TLS, and this port does not: call it with http, or give the listener TLS"

// next is what the connection becomes. One whose client did not choose HTTP/2 by ALPN may
// speak it all the same (RFC 9113 §3.3).
func (g *greeting) next() connection {
	if g.tls.ConnectionState().NegotiatedProtocol == "h2" {
		h := newH2Conn(g.server, g.tls, nil)
		h.from = g.from
		return h
	}
	c := newConn(g.server, g.tls)
	c.from = g.from
	c.scheme = []byte("https")
	return c
}

// plaintextHint is what a client is told that speaks HTTP/1 without TLS.
const plaintextHint = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n" +
	"fairlead-reason: bad_request\r\nContent-Length: 69\r\n\r\n" +
	"fairlead: this port takes TLS only: call it with https (bad_request)\n"

// hint answers in the clear. The client may still be sending.
func (g *greeting) hint() {
	_ = g.net.SetDeadline(time.Now().Add(lingerTime))
	if _, err := io.WriteString(g.net, plaintextHint); err == nil {
		linger(g.net)
	}
}

// check ends a handshake that takes too long, reading or writing.
func (g *greeting) check(now int64) {
	if now-g.began > int64(g.server.config.HeadTimeout) {
		_ = g.net.SetDeadline(time.Unix(1, 0))
		g.tls.GiveUp()
	}
}

// idleSince lets handshakes go before all others where there are too many connections, the one
// that began first before the rest: whoever begins them and says nothing shuts nobody out.
func (g *greeting) idleSince() (int64, bool) {
	return g.began - int64(g.server.config.IdleTimeout), !g.ended.Load()
}

func (g *greeting) drain() { g.cut() }

func (g *greeting) makeRoom() { g.cut() }

func (g *greeting) cut() {
	g.ended.Store(true)
	g.tls.GiveUp()
	_ = g.net.Close()
}
