package upstream

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
)

// outsideTimeout bounds the resolving of a name outside of the mesh and the connecting to
// one of its addresses, together.
const outsideTimeout = 10 * time.Second

// Outside connects to what is not in the mesh. It is safe for concurrent use.
type Outside struct {
	set *Set
	// refused says of an address whether it is not outside.
	refused func(netip.Addr) bool
}

// Outside returns what connects to the outside; its connections count among the set's.
func (s *Set) Outside() *Outside { return &Outside{set: s, refused: isHere} }

// isHere reports whether an address leads to this machine: to ports of this process, which
// would go round, and to others that only those on this machine are to reach.
func isHere(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified() || a.IsMulticast()
}

// Dial connects to a host:port, a name by one of its addresses, of which it tells. It
// blocks, for 10 s at most. ErrLoop says that the destination is on this machine, a
// *net.DNSError that the name has no address.
func (o *Outside) Dial(ctx context.Context, authority string) (Stream, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, outsideTimeout)
	defer cancel()
	if o.set.limit > 0 && o.set.open.Load() >= o.set.limit {
		o.set.makeRoom()
	}
	// The address is looked at when it is connected to: who answers for a name may say
	// another one each time.
	d := net.Dialer{KeepAlive: keepAlive, Control: func(_, address string, _ syscall.RawConn) error {
		if at, err := netip.ParseAddrPort(address); err != nil || o.refused(at.Addr()) {
			return ErrLoop
		}
		return nil
	}}
	nc, err := d.DialContext(ctx, "tcp", authority)
	if isDescriptors(err) && o.set.makeRoom() {
		nc, err = d.DialContext(ctx, "tcp", authority)
	}
	if err != nil {
		return nil, netip.AddrPort{}, dialError(err)
	}
	o.set.open.Add(1)
	return &outsideStream{Conn: http1.NewConn(nc, http1.Client, nil), net: nc, set: o.set},
		unmapped(nc.RemoteAddr().(*net.TCPAddr).AddrPort()), nil
}

// outsideStream is a connection to the outside. What goes through it, as a tunnel, is no
// HTTP that this process reads.
type outsideStream struct {
	*http1.Conn
	net net.Conn
	set *Set
	end atomic.Bool
}

func (s *outsideStream) Park(http2.Waker) bool { return false }

func (s *outsideStream) Hold(*http2.Batch) {}

func (s *outsideStream) Lives(bool) bool { return false }

func (s *outsideStream) Crowded(int64) bool { return false }

func (s *outsideStream) Stir() {}

// SetDeadline does nothing: there is no response to wait for.
func (s *outsideStream) SetDeadline(int64) {}

func (s *outsideStream) Abort() {
	if s.end.CompareAndSwap(false, true) {
		_ = s.net.Close()
	}
}

func (s *outsideStream) Release(bool, int64) {
	s.set.open.Add(-1)
	s.end.Store(true)
	_ = s.net.Close() // nothing is left to be lost on it
	s.Conn.Release()
}
