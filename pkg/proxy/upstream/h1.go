package upstream

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// use is who an h1Stream belongs to.
type use = uint32

const (
	pooled  use = iota // to its host
	taken              // to a request
	aborted            // to nobody: it is closed
)

// h1Stream is a connection that speaks HTTP/1, and so the stream of one request at
// a time.
type h1Stream struct {
	*http1.Conn // the writing half is the stream's as it is
	net         net.Conn
	host        *Host
	use         atomic.Uint32
	idleAt      int64
	requests    int64        // that it was taken for
	oldAt       int64        // when it is too old for another
	answered    bool         // the head of the final response was read
	security    *mtls.Client // that the connection was made with; nil: in the clear

	deadline int64 // of the request that uses it; 0: none
	armed    int64 // the read deadline that is set on net, by the cluster's clock; 0: none
}

func newH1Stream(h *Host, nc net.Conn, security *mtls.Client) *h1Stream {
	s := &h1Stream{Conn: http1.NewConn(nc, http1.Client, nil), net: nc, host: h, security: security, oldAt: h.cluster.limits.Load().oldAt(h.cluster.clock())}
	s.take()
	return s
}

// take gives the connection to a request.
func (s *h1Stream) take() {
	s.answered = false
	s.requests++
	s.use.Store(taken)
}

// SetDeadline sets the connection's read deadline so that it ends no later than the
// request. One that is set and ends earlier is left, even if it has passed: most requests
// are answered before it, and those that are not set it again. So the many set none.
func (s *h1Stream) SetDeadline(at int64) {
	s.deadline = at
	if at == 0 || s.armed > 0 && s.armed <= at {
		return
	}
	s.arm(s.host.cluster.clock())
}

func (s *h1Stream) arm(now int64) {
	s.armed = s.deadline
	var at time.Time
	if s.deadline > 0 {
		at = time.Now().Add(time.Duration(s.deadline - now))
	}
	_ = s.net.SetReadDeadline(at) // fails only on a closed connection, as reading will
}

// tooEarly reports whether err is the deadline of an earlier request, and sets this
// one's instead.
func (s *h1Stream) tooEarly(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	now := s.host.cluster.clock()
	if s.deadline > 0 && now >= s.deadline {
		return false
	}
	s.arm(now)
	return true
}

// Ask is the Conn's only on a connection of the pool, which was looked at just before. On a new
// one, the host may have answered or ended already, as one does that is overloaded.
func (s *h1Stream) Ask() error {
	if s.requests == 1 {
		return s.Flush()
	}
	return s.Conn.Ask()
}

func (s *h1Stream) ReadResponse(h *wire.Head, toHead bool) error {
	err := s.Conn.ReadResponse(h, toHead)
	for err != nil && s.tooEarly(err) {
		err = s.Conn.ReadResponse(h, toHead)
	}
	if err != nil {
		return s.headError(err)
	}
	s.answered = h.Status >= 200
	return nil
}

// headError says of an error whether bytes of an answer came before it.
func (s *h1Stream) headError(err error) error {
	var malformed *wire.Error
	if !s.Begun() || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &malformed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBegun, err)
}

func (s *h1Stream) Next() ([]byte, error) {
	for {
		p, err := s.Conn.Next()
		if err == nil || !s.tooEarly(err) {
			return p, err
		}
	}
}

func (s *h1Stream) Ready() bool {
	if !s.answered {
		return s.HeadReady()
	}
	return s.Conn.Ready()
}

// Park returns false: reading waits in place.
func (s *h1Stream) Park(http2.Waker) bool { return false }

// Lives returns false: HTTP/1 has no question but the request.
func (s *h1Stream) Lives(bool) bool { return false }

// Hold does nothing: what is small is written without waiting, and the rest by who waits.
func (s *h1Stream) Hold(*http2.Batch) {}

// Stir wakes the reader by a deadline that is none of its request's.
func (s *h1Stream) Stir() {
	if s.Readable() {
		_ = s.net.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
	}
}

func (s *h1Stream) Crowded(now int64) bool { return s.host.cluster.isCrowded(now) }

func (s *h1Stream) Abort() {
	if s.use.CompareAndSwap(taken, aborted) {
		_ = s.net.Close() // whoever reads or writes learns of it
	}
}

func (s *h1Stream) Release(reusable bool, now int64) {
	// Nobody looks for one where streams share connections: it was for a tunnel that did not come about.
	if !reusable || s.host.Shared() || s.worn(now) || s.EndExchange() != nil || !s.use.CompareAndSwap(taken, pooled) {
		s.close()
		return
	}
	s.idleAt = now
	s.host.put(s)
}

// worn reports whether the connection has carried as many requests as it may, or is too old.
func (s *h1Stream) worn(now int64) bool {
	most := s.host.cluster.limits.Load().perConnection
	return now >= s.oldAt || most > 0 && s.requests >= most
}

// close closes the connection and gives its buffers back. It must be called once.
func (s *h1Stream) close() {
	s.use.Store(aborted)
	s.host.uncount()
	_ = s.net.Close() // nothing is left to be lost on it
	s.Conn.Release()
}

func closeAll(streams []*h1Stream) {
	for _, s := range streams {
		s.close()
	}
}
