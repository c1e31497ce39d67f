// Package http1 is HTTP/1.1 on a connection, both halves (RFC 9112): a server's,
// which reads requests and writes responses, and a client's.
//
// It is strict. What two recipients could frame differently is refused with the
// sentence of the RFC that it breaks, not repaired: repairing is how requests are
// smuggled past a proxy.
//
// Two MUSTs of RFC 9110 are left out, as other sidecars leave them out: Via (§7.6.3),
// which would tell each application and client of a hop that is to be transparent, and
// Max-Forwards (§7.6.2), which is passed on as it came. What Via is to find, requests
// that go round, the proxy finds otherwise.
//
// A [Conn] reads a head with one read(2) into a pooled buffer, parses it where it
// lies, and leaves it there until the exchange ends; body bytes never overwrite
// it. Small messages leave with one write(2). An idle connection holds no buffer.
// In the steady state nothing is allocated.
//
// One goroutine reads and one may write at the same time; each half is not safe
// for more. Deadlines belong to the owner of the net.Conn: after a time-out,
// reading goes on where it stopped. The package starts no goroutine.
package http1
