// Package client is the sidecar's xDS client: the delta Aggregated Discovery
// Service, by name.
//
// It keeps the set of subscriptions and what was applied of each, over reconnects:
// a new stream begins by telling the server what it has, so that only what differs
// is sent again. A response is handed to the owner, and acknowledged when the owner
// has put it in force; what the owner refuses is named in the answer, resource by
// resource (see pkg/control/xdsserver for the form), and what was in force stays so.
// No type waits for another.
//
// Run is the only goroutine that talks to the owner. It starts one more per stream,
// which receives, and ends it with the stream. Peers that fall silent are found by
// the gRPC keepalive of the connection, which belongs to who dialled it.
package client
