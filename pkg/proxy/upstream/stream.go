package upstream

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// ErrBegun is the error of a response that broke off inside its head: bytes of an
// answer have come, so the request was received.
var ErrBegun = errors.New("the response broke off in its head")

// ErrRefused is the error of a request that the host surely did not act upon: it may be
// sent again, whatever its method (RFC 9113 §8.7).
var ErrRefused = http2.ErrRefused

// ErrLeftOut is an ErrRefused of a host that has ended a connection in order, which says nothing
// about the host.
var ErrLeftOut = http2.ErrLeftOut

// Stream carries one request to a host and brings the response back: a connection
// for the time of the request, or a part of one that others use too. One goroutine may
// write and one may read at the same time; only Abort is for all. It belongs to
// whoever took or dialled it until Release.
type Stream interface {
	// WriteHead, WriteBody, EndBody and Flush send the request, in this order. What is
	// written before a Flush may wait for it. They block while the host takes nothing.
	WriteHead(h *wire.Head) error
	WriteBody(p []byte) error
	EndBody(trailers []wire.Field) error
	Flush() error
	// Ask is Flush by who reads next and waits in place, so that it may wait for the answer's first bytes already.
	Ask() error

	// ReadResponse reads the next head, interim ones (1xx) too. It blocks. toHead says
	// that the request was a HEAD. The error is a *wire.Error if the bytes are no
	// response, os.ErrDeadlineExceeded past the deadline, ErrBegun if the connection
	// broke behind the first byte, else the connection's.
	ReadResponse(h *wire.Head, toHead bool) error
	// Next returns the next bytes of the body, at least one, valid until the next call;
	// io.EOF at its end. It blocks.
	Next() ([]byte, error)
	// Ready reports whether what is read next, head or body, is here already.
	Ready() bool
	// Park leaves a waker to be called once, when what is read next is here, and so does
	// without a goroutine that waits. It returns false, and leaves nothing, if that is
	// here already or the stream can only be waited for. After true, the stream is the
	// waker's.
	Park(w http2.Waker) bool
	// Hold says who writes: with a batch, somebody who must not wait; without one, a
	// goroutine that waits in place, as at first. See [http2.Stream.Hold].
	Hold(b *http2.Batch)
	// Trailers are there once Next has returned io.EOF, until Release.
	Trailers() []wire.Field

	// SetDeadline ends reading when the cluster's clock is past at, in nanoseconds; 0:
	// never. It belongs to the goroutine that reads, and holds until Release.
	SetDeadline(at int64)
	// Lives, with ask, asks the host whether it is there, if what it speaks has a question for
	// that (RFC 9113 §6.7), and returns false; without, it reports whether anything has come from
	// the host since it was asked. It does not block, and is for any goroutine, as Abort is.
	Lives(ask bool) bool
	// Stir wakes who waits in reading if there is something to read, such as the end, of which Ask was
	// not told because it came in the moment before. It is for any goroutine, as Abort is.
	Stir()
	// Crowded reports whether others are refused for want of the place that the stream has: in the second before now,
	// the cluster has refused a request because of a limit. It is for any goroutine, as Abort is.
	Crowded(now int64) bool
	// Written returns how many bytes the kernel has taken since the last call, or, where
	// those of several streams go together, 1 if there may have been some.
	Written() int64
	// Abort ends the stream: who reads or writes gets an error. Any goroutine may call
	// it, as long as the owner has not taken another stream; after Release it does nothing.
	Abort()
	// Release gives the stream back, at the time now. reusable says that request and
	// response have ended as they should, so that the connection may serve others.
	Release(reusable bool, now int64)
}
