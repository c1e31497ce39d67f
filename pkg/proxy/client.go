package proxy

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// An exchange knows its client by the three interfaces below, whatever the client
// speaks. [http1.Conn] is the first two.

// source is where the request's body comes from.
type source interface {
	// Whole returns the whole body if all of it is here, without waiting.
	Whole() (p []byte, ok bool)
	// Next returns the next bytes, valid until the next call, or io.EOF. It waits.
	Next() ([]byte, error)
	// Ready reports whether Next would return at once.
	Ready() bool
	// Trailers are there when Next has returned io.EOF, or Whole the body.
	Trailers() []wire.Field
}

// sink is where a message goes: the response to the client.
type sink interface {
	WriteHead(h *wire.Head) error
	WriteBody(p []byte) error
	EndBody(trailers []wire.Field) error
	Flush() error
}

// client is what else can be asked of the client's side, or done to it.
type client interface {
	// room is how many bytes WriteBody takes without waiting.
	room() int
	// peer is the address of who sends the requests.
	peer() netip.Addr
	// isLast reports whether no exchange is to follow on the connection.
	isLast() bool
	// discard gets rid of the rest of the request's body, or reports that it cannot:
	// then no exchange may follow on the connection.
	discard() bool
	// stopBody makes the Next that another goroutine is in return, and waits until
	// done is closed.
	stopBody(done <-chan struct{})
	// abort ends a response that had begun, so that the client does not take it for whole.
	abort()
}
