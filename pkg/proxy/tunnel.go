package proxy

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

// A tunnel is what an exchange becomes when its protocol was switched: bytes that go both
// ways, each way until its sender ends it, which the receiver is told. What bounds it is
// that bytes move: the timeout of the request does not, which has been answered (so it is
// with Envoy's route timeout).

// Who broke a tunnel.
const (
	nobody uint32 = iota
	theClient
	theHost
)

// way is one of a tunnel's ways. One goroutine carries it.
type way struct {
	x    *exchange
	from interface {
		Next() ([]byte, error)
		Ready() bool
	}
	to         sink
	reads      uint32 // who is told to have broken it if reading fails,
	writes     uint32 // and if writing does
	moved      uint64
	ended      atomic.Bool    // the sender has ended it
	back       *way           // the other one
	brokenBy   *atomic.Uint32 // the first who broke the tunnel
	isStopping *atomic.Bool
}

// tunnel carries bytes both ways, until both senders have ended theirs or something
// breaks. The breaker learns at its beginning that the host has done what it was asked:
// how a tunnel ends says nothing about it.
func (x *exchange) tunnel() stage {
	now := x.server.config.Clock()
	x.attempt.Settle(breaker.Success, now)
	x.deadline = 0
	x.life.expires.Store(0)
	x.up.SetDeadline(0)
	for _, side := range []any{x.sink, x.up} {
		if h1, ok := side.(interface{ Tunnel() }); ok { // HTTP/2's streams are tunnels as they are
			h1.Tunnel()
		}
	}
	x.life.enter(tunnelling, now)
	var brokenBy atomic.Uint32
	var stopping atomic.Bool
	in := &way{x: x, from: x.source, to: x.up, reads: theClient, writes: theHost, brokenBy: &brokenBy, isStopping: &stopping}
	out := &way{x: x, from: x.up, to: x.sink, reads: theHost, writes: theClient, back: in, brokenBy: &brokenBy, isStopping: &stopping}
	in.back = out
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !in.run() && brokenBy.Load() == theClient {
			deliver(x.up)
			reset(x.up)
			x.up.Abort() // which ends the other way
		}
	}()
	if !out.run() {
		deliver(x.sink)
		reset(x.sink)
		if brokenBy.Load() == theClient {
			deliver(x.up)
			reset(x.up)
		}
		stopping.Store(true)
		x.up.Abort()
		x.client.stopBody(done)
	}
	<-done
	x.bytesIn += in.moved
	x.bytesOut += out.moved
	switch brokenBy.Load() {
	case theClient:
		x.cutOff(reason.ClientGone)
	case theHost:
		if x.life.gone.Load() { // it was this side that closed both
			x.cutOff(reason.ClientGone)
		} else {
			x.cutOff(reason.ResponseBroken)
		}
	}
	return x.ended(failure{})
}

// isBroken reports whether what seems to be the end of a side's stream is none: the other way, or
// who carried its bytes, was told of a reset, after which it looks like one.
func isBroken(side any) bool {
	s, ok := side.(interface{ Broken() bool })
	return ok && s.Broken()
}

// deliver lets a side take what was sent to it before it is reset.
func deliver(side any) {
	if s, ok := side.(interface{ Deliver() }); ok {
		s.Deliver()
	}
}

// reset lets a side end so that its peer does not take it for a clean end.
func reset(side any) {
	if s, ok := side.(interface{ Reset() }); ok {
		s.Reset()
	}
}

// run carries until the sender ends its way, and reports whether that came about.
func (w *way) run() bool {
	for {
		p, err := w.from.Next()
		switch {
		case errors.Is(err, io.EOF) && !w.back.ended.Load() && isBroken(w.from):
			_ = w.to.Flush()
			return w.broken(w.reads)
		case errors.Is(err, io.EOF):
			// A receiver that takes no more is told nothing, and may still send.
			w.ended.Store(true)
			_ = w.to.EndBody(nil)
			_ = w.to.Flush()
			return true
		case err != nil:
			_ = w.to.Flush() // what did come
			return w.broken(w.reads)
		}
		if w.to.WriteBody(p) != nil || !w.from.Ready() && w.to.Flush() != nil {
			// Who has ended its own way and takes no more has ended both.
			return w.back.ended.Load() || w.broken(w.writes)
		}
		w.moved += uint64(len(p))
		w.x.life.since.Store(w.x.server.config.Clock())
		// The reset was told, and whoever reads or writes next would not hear of it. Where the other
		// way has ended, one that comes behind the end cannot be told from one instead of it.
		if len(p) >= bulk && w.splice() && !w.back.ended.Load() {
			if isBroken(w.to) {
				return w.broken(w.writes)
			}
			return w.broken(w.reads)
		}
	}
}

func (w *way) broken(by uint32) bool {
	w.brokenBy.CompareAndSwap(nobody, by)
	return false
}

const (
	// bulk is how many bytes come at once where the kernel had better carry what follows.
	bulk = 16 << 10
	// spliceBytes and spliceTime bound how much, and how long, it does so before the
	// watchdog is told; a way that is silent for that time holds no pipe any more.
	spliceBytes = 1 << 20
	spliceTime  = time.Second
	// maxSpliced is how many ways the kernel may carry at once: each takes a pipe, which is
	// two descriptors and some of its memory. Others are copied.
	maxSpliced = 64
)

// splice lets the kernel carry bytes from socket to socket, as long as they flow. It reports whether
// one of them was reset. Of ends and other faults it says nothing: whoever reads or writes next sees
// them.
func (w *way) splice() bool {
	source, ok := w.from.(interface{ ReadSocket() *net.TCPConn })
	if !ok {
		return false
	}
	sink, ok := w.to.(interface{ WriteSocket() *net.TCPConn })
	if !ok {
		return false
	}
	from, to := source.ReadSocket(), sink.WriteSocket()
	if from == nil || to == nil {
		return false
	}
	server := w.x.server
	defer server.spliced.Add(-1)
	if server.spliced.Add(1) > maxSpliced {
		return false
	}
	var err error
	for {
		_ = from.SetReadDeadline(time.Now().Add(spliceTime))
		n := int64(0)
		if !w.isStopping.Load() { // or its deadline was just overwritten
			n, err = to.ReadFrom(&io.LimitedReader{R: from, N: spliceBytes})
		}
		w.moved += uint64(n)
		w.x.life.since.Store(server.config.Clock())
		if err != nil || n < spliceBytes {
			break
		}
	}
	_ = from.SetReadDeadline(time.Time{})
	if w.isStopping.Load() {
		_ = from.SetReadDeadline(time.Unix(1, 0))
	}
	return errors.Is(err, syscall.ECONNRESET)
}
