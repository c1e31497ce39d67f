package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/proxyproto"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

// Connection is what Config.Accept makes of a connection. All but Serve are called from
// any goroutine, under locks too, and wait for nothing.
type Connection interface {
	// Serve carries the connection to its end, and closes it. It blocks.
	Serve()
	// Check looks whether something takes too long. It is called a few times a second.
	Check(now int64)
	// IdleSince returns since when nothing would be lost if the connection ended, false if
	// something would.
	IdleSince() (int64, bool)
	// Drain lets nothing further begin.
	Drain()
	// Cut ends the connection in the middle of what it does.
	Cut()
}

// accepted is a Connection among those of HTTP.
type accepted struct {
	server *Server
	is     Connection
}

func (a accepted) serve() {
	defer a.server.ended(a)
	a.is.Serve()
}
func (a accepted) check(now int64)          { a.is.Check(now) }
func (a accepted) idleSince() (int64, bool) { return a.is.IdleSince() }
func (a accepted) drain()                   { a.is.Drain() }
func (a accepted) makeRoom()                { a.is.Drain() }
func (a accepted) cut()                     { a.is.Cut() }

// connection makes of a connection what serves it first.
func (s *Server) connection(nc net.Conn) connection {
	switch {
	case s.config.Accept != nil:
		return accepted{s, s.config.Accept(nc)}
	case s.config.ProxyProtocol:
		return &heralded{server: s, net: nc, began: s.config.Clock()}
	}
	return s.speaker(nc, netip.Addr{})
}

// speaker is what serves a connection that nothing else comes before.
func (s *Server) speaker(nc net.Conn, from netip.Addr) connection {
	if s.config.TLS != nil {
		return newGreeting(s, nc, from)
	}
	c := newConn(s, nc)
	c.from = from
	return c
}

// heralded is a client connection whose PROXY protocol header is waited for. What it becomes
// takes its place, and is told whom the header names.
type heralded struct {
	server *Server
	net    net.Conn
	began  int64
	ended  atomic.Bool // by others than the client
}

func (h *heralded) serve() {
	from, err := h.read()
	if err != nil {
		h.refuse(err)
		return
	}
	c := h.server.speaker(h.net, from)
	h.server.replace(h, c)
	if h.server.draining.Load() { // a drain may have seen this one
		c.drain()
	}
	c.serve()
}

// read returns whose connection it is; none where the header does not say: then it is the sender's.
func (h *heralded) read() (netip.Addr, error) {
	_ = h.net.SetReadDeadline(time.Now().Add(h.server.config.PrefaceTimeout)) // fails only on a closed one
	header, err := proxyproto.Read(h.net, 0)
	if err != nil {
		return netip.Addr{}, err
	}
	var from netip.Addr
	if header.Known() {
		from = header.Source.Addr()
	}
	return from, h.net.SetReadDeadline(time.Time{})
}

// refuse ends a connection without a header. It gets no answer, for whoever sends none is
// not one to talk to (the specification, §2), but the log has a line for it, if it was not
// the client that went away.
func (h *heralded) refuse(err error) {
	defer h.server.ended(h)
	c := newConn(h.server, h.net)
	defer c.close()
	var malformed *proxyproto.Error
	if !errors.As(err, &malformed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	x := c.begin()
	defer c.end()
	x.begin(h.began)
	x.keepAlive, x.why, x.detail = false, reason.BadPreface, fmt.Sprintf("no PROXY protocol header was read: %v", err)
	x.account(h.server.config.Clock())
}

// check has nothing to do: the header has a deadline.
func (h *heralded) check(int64) {}

func (h *heralded) idleSince() (int64, bool) { return h.began, !h.ended.Load() }

func (h *heralded) drain() { h.cut() }

func (h *heralded) makeRoom() { h.cut() }

func (h *heralded) cut() {
	h.ended.Store(true)
	_ = h.net.Close()
}
