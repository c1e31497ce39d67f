// Package tcp relays the bytes of connections to hosts of clusters, and back.
//
// A [Relay] makes a [Conn] of each connection that a listener takes:
//
//	Conn.greet      a PROXY protocol header, where the listener reads one
//	Conn.inspect    what the first bytes are, where the listener tells connections apart, and the route
//	Conn.secure     the handshake, where the client's TLS ends here
//	Conn.connect    cluster: host, permit, connection; again on another host if it cannot be connected to
//	Conn.heed       the knock of a client that is a sidecar, where the listener answers them
//	Conn.carry      one pump each way, until both ends have ended, or one breaks
//	Conn.account    metrics, access log
//
// Where nothing is to be read first, the host is connected to at once: its protocol may
// be one in which the server speaks first. What the client sends meanwhile waits in its
// socket.
//
// An end that closes its sending side has that passed on, and goes on to receive (RFC 9293
// §3.6). One that breaks is passed on as a break, with a reset, so that nobody takes what
// was cut off for whole; so are the ends that the relay makes itself: an idle timeout, a
// drain whose time is over. What was sent before an end broke arrives before that.
//
// Small messages go through a pooled buffer that is held only while there is something in
// it; many bytes at once go from socket to socket through a pipe that the kernel fills
// with its own pages (splice(2), on Linux), of which there are few. A socket that takes
// nothing holds up the one that sends, so that no connection holds more than what one of
// the two has in it.
//
// What a connection is may be told by its first bytes (Config.TLS, Config.HTTP): a [Routes]
// leads to clusters, or with Route.HTTP to whoever serves HTTP, which gets the socket with
// nothing read of it. Who knows beforehand what connections are sets neither, and nothing is
// looked at or waited for. While a client is silent, a host of the route of opaque bytes is
// connected to, so that it may speak first.
//
// Goroutines: two per connection, one each way. No timer is set while bytes move: the
// watchdog of the server calls [Conn.Check].
package tcp
