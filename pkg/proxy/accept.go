package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
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
func (a accepted) cut()                     { a.is.Cut() }

// connection makes of a connection what serves it.
func (s *Server) connection(nc net.Conn) connection {
	if s.config.Accept != nil {
		return accepted{s, s.config.Accept(nc)}
	}
	return newConn(s, nc)
}

// preface reads the PROXY protocol header, if there is to be one, off the connection below
// TLS. Whom it names, nothing in HTTP asks yet. It reports whether the connection may be
// served; one that may not gets no answer, for whoever sends no header is not one to talk
// to (the specification, §2).
func (c *conn) preface() bool {
	config := &c.server.config
	if !config.ProxyProtocol {
		return true
	}
	below := c.net
	if over, ok := below.(interface{ NetConn() net.Conn }); ok {
		below = over.NetConn()
	}
	_ = below.SetReadDeadline(time.Now().Add(config.PrefaceTimeout))
	_, err := proxyproto.Read(below, 0)
	if err == nil {
		err = below.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return true
	}
	var malformed *proxyproto.Error
	if !errors.As(err, &malformed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false // the client ended the connection, or the server did
	}
	x := &c.x
	x.begin(config.Clock())
	x.keepAlive, x.why, x.detail = false, reason.BadPreface, fmt.Sprintf("no PROXY protocol header was read: %v", err)
	x.account(config.Clock())
	return false
}
