// Package http2 is HTTP/2 on a connection, both halves (RFC 9113): a server's, whose
// streams are requests that came in, and a client's, whose streams are requests that
// go out.
//
// It is strict: what RFC 9113 calls malformed is refused with the sentence that it
// breaks, and what a peer may do without end (reset, ping, settings, empty frames,
// continuations) is counted against a budget, past which the connection ends with
// ENHANCE_YOUR_CALM.
//
// One goroutine reads a connection: [Conn.Serve]. It handles every frame where it lies
// in the read buffer, and waits for nothing but bytes. Who holds a [Stream] reads and
// writes it in one of two ways. A goroutine of its own waits in place: ReadResponse,
// Next, WriteBody block. The reader of some connection must not, and so it asks Ready
// and Room first, and where it would have to wait it leaves a [Waker] with the stream
// ([Stream.Park]): the goroutine that reads the connection calls it when there is
// something to read. So a request goes from one HTTP/2 connection to another, and its
// response back, without a goroutine of its own.
//
// What is written is appended to one buffer per connection, under its lock. A flush
// writes all of it at once and never blocks: if the socket is full, a goroutine of the
// connection's takes over. A [Batch] collects the connections that a reader has written
// to, so that all that came in by one read goes out by one write to each.
//
// A connection that is idle holds no buffer. In the steady state nothing is allocated.
package http2
