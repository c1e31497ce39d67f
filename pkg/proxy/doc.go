// Package proxy is the engine: it takes connections, and carries requests from
// them to the hosts of clusters.
//
// One request, in order, each step a call on the same stack:
//
//	Server.Serve         accept; the connection gets a goroutine, which HTTP/1 never leaves
//	conn.serve           read a head (http1), one now for the whole request
//	exchange.route       Router: the entry that the configuration gives, or a reason
//	exchange.prepare     hop-by-hop fields, trace context
//	exchange.attempts    cluster: host, permit, connection; at most one safe retry
//	exchange.forward     write the request, read the response's head
//	exchange.answer      pass the response on, body by body chunk
//	exchange.account     outcome to the breaker, metrics, access log, span
//
// The first four decide and never block, unless a destination is called for the
// first time; the rest waits in place. Whatever the proxy answers itself goes
// through [exchange.reply] with a reason of package reason.
//
// Goroutines: one per connection, one more while a request body is still coming
// in when the request is sent on, and one watchdog per server, which looks at all
// connections for clients that went away and for stalls, so that no request sets
// a timer. Server.Drain waits for all of them.
package proxy
