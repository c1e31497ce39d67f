// Package admin is the port for the person or the probe on the same machine:
// is the proxy ready, what does it know, what has it counted, and the two
// things that may be changed while it runs, the log level and the drain.
//
// Paths and formats follow Envoy's admin interface where there is a counterpart,
// so that habits and scripts carry over: /ready /stats /stats/prometheus
// /clusters /listeners /config_dump /certs /logging, text by default and JSON
// with ?format=json. GET never changes anything; what changes something needs
// POST.
//
// There is no authentication: whoever may connect may do all of it, so the
// listener belongs on loopback. What a browser on the machine could be talked
// into is refused, see [Server]. The package holds no state of the proxy; it
// asks the functions of [Config] at each request.
//
// [Server.Serve] owns the goroutines.
package admin
