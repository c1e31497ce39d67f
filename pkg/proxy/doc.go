// Package proxy is the engine: it takes connections, and carries requests from
// them to the hosts of clusters.
//
// A request is an exchange, which goes through stages. A stage ends where something
// has to be waited for, and what that is, the next stage says. What is named by a
// participle (routed, begun, ended) decides, what is named by a verb (dial, send) waits:
//
//	Server.Serve        accept; the connection gets a goroutine, which HTTP/1 never leaves
//	greeting.serve      the TLS handshake, where the listener has TLS
//	conn.exchange       read a head (http1)
//	exchange.decide     trace context; route: the entry that the configuration gives, or a reason
//	exchange.prepare    hop-by-hop fields
//	exchange.begun      cluster: host, permit, idle connection; none of this waits
//	  atRoute             awaitRoute: a destination that is called for the first time
//	  atDial              dial: a new connection
//	  atSend              send: write the request
//	  atHead              receive: read the response's head
//	  atBody              passBody: pass on what has come of the body, again and again
//	  atOutside           dialOutside: CONNECT to what is not in the mesh
//	  atTunnel            tunnel: carry bytes both ways, when the protocol was switched, or for CONNECT
//	  atReply             writeReply: what the proxy answers itself, with a reason
//	exchange.ended      outcome to the breaker, connection to the pool; at most one safe retry
//	exchange.account    metrics, access log, span
//
// HTTP/1 goes from stage to stage in a loop, exchange.run, and waits in place. The reader of
// an HTTP/2 connection must not wait: h2Exchange.advance asks exchange.ready first. The
// exchange knows its client by the interfaces source, sink and client.
//
// Goroutines: one per connection, one more per HTTP/2 exchange that waits for something
// other than an HTTP/2 host (workers), one more while a request body is still coming
// in when the request is sent on, or bytes of a tunnel are carried, and one watchdog per
// server, which looks at all connections for clients that went away and for stalls, so that
// a request that finds a connection sets no timer. Server.Drain waits for all of them.
package proxy
