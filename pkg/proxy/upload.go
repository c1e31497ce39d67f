package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// upload carries a request body that is still coming in to the upstream, while
// the exchange's holder waits for the response. Its goroutine ends before
// the exchange does.
type upload struct {
	running bool          // it was started
	done    chan struct{} // closed at its end; then the rest may be read, and the exchange's body
	ended   bool          // the whole body was sent on
	client  bool          // it failed on the client's side
	err     error         // how it did
	bytes   uint64
	stopped *atomic.Bool
}

// start begins to carry.
func (u *upload) start(x *exchange, up upstream.Stream) {
	u.running, u.done, u.stopped = true, make(chan struct{}), new(atomic.Bool)
	go u.carry(x, up)
}

func (u *upload) carry(x *exchange, up upstream.Stream) {
	defer close(u.done)
	for {
		x.life.receiving.Store(true)
		p, err := x.source.Next()
		x.life.receiving.Store(false)
		if errors.Is(err, io.EOF) {
			u.ended = up.EndBody(x.source.Trailers()) == nil && up.Flush() == nil
			if u.ended && x.rpc.kind != rpc.None {
				x.sentCall()
			}
			return
		}
		if err != nil {
			u.client, u.err = !u.stopped.Load(), err
			if u.client {
				// Half a request must not look like a whole one to the upstream, and the
				// exchange must not wait for an answer to it.
				up.Abort()
			}
			return
		}
		u.bytes += uint64(len(p))
		x.keep(p)
		if up.WriteBody(p) != nil {
			return
		}
		if !x.source.Ready() && up.Flush() != nil {
			return
		}
		x.life.touch(x.server.lookedAt.Load())
	}
}

func (u *upload) isDone() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// whole reports whether the upstream got the whole body, once it has ended.
func (u *upload) whole() bool { return !u.running || u.isDone() && u.ended }

// clientFailed reports whether the client broke its body off.
func (u *upload) clientFailed() bool { return u.running && u.isDone() && u.client }

// starved reports whether the upload, once it was stopped, had waited for the client.
func (u *upload) starved() bool { return u.running && u.isDone() && u.err != nil && !u.client }

// uploadGrace is how long an upload may go on when the response has ended.
const uploadGrace = 100 * time.Millisecond

// settle ends the upload after the response. It reports whether all of the body
// was sent on, so that both connections can be used again.
func (u *upload) settle(x *exchange) bool {
	if !u.running {
		return true
	}
	if !u.isDone() {
		t := time.NewTimer(uploadGrace)
		select {
		case <-u.done:
		case <-t.C:
		}
		t.Stop()
	}
	u.stop(x)
	return u.ended
}

// stop ends the upload, whatever it waits for. Its exchange may begin another, which
// goes on where it was.
func (u *upload) stop(x *exchange) {
	if !u.running {
		return
	}
	if !u.isDone() {
		u.stopped.Store(true)
		x.life.interrupt() // it may hang in writing
		x.client.stopBody(u.done)
	}
	x.bytesIn += u.bytes
	u.bytes = 0
}

// keep keeps the next bytes of the body for a second attempt, unless they are too many, or the
// response has begun: a stream may go on for hours then, and needs none of it.
func (x *exchange) keep(p []byte) {
	if x.lost || x.life.final.Load() || len(x.body)+len(p) > maxReplay || x.request.ContentLength > maxReplay {
		x.lost, x.body = true, nil
		return
	}
	x.body = append(x.body, p...)
}
