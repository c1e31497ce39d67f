package sidecar

import (
	"net"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// handoff is a listener of connections that another has accepted, and found to be for it. It
// is safe for concurrent use.
type handoff struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

func newHandoff(name string) *handoff {
	h := &handoff{name: name, conns: make(chan net.Conn), closed: make(chan struct{})}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	return h
}

// give hands a connection on. It blocks until it is accepted; one that nobody accepts any
// more is closed.
func (h *handoff) give(nc net.Conn) {
	select {
	case h.conns <- nc:
	case <-h.closed:
		_ = nc.Close()
	}
}

// Accept implements [net.Listener].
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (h *handoff) Close() error {
	h.close()
	return nil
}

// Addr implements [net.Listener]. It says whose connections these are.
func (h *handoff) Addr() net.Addr { return handoffAddr(h.name) }

type handoffAddr string

func (handoffAddr) Network() string  { return "handoff" }
func (a handoffAddr) String() string { return string(a) }

// behind makes a listener for what another hands on.
func (s *sidecar) behind(name string, config proxy.Config) listener {
	return listener{name: name, net: newHandoff(name), server: s.server(name, config)}
}
