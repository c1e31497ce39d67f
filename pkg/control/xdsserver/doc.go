// Package xdsserver serves resources over xDS: the Aggregated Discovery Service,
// state of the world and delta, on go-control-plane's stream servers with a cache
// of its own behind them.
//
// A [Cache] holds each resource once, already encoded, with a version that is a
// hash of its bytes, so the same over restarts and replicas. An index leads from a
// resource to the subscriptions that want it: a change costs as much as it has
// takers. What changes is marked in the subscription; the response is built when
// the stream's own goroutine sends it, so that many changes make one response, a
// slow client holds up nobody, and nothing is sent under a lock.
//
// A resource that a client refuses is not sent to it again until its content
// changes. A client that refuses says which resources it means, and why, in the
// status details of its request: a google.rpc.BadRequest, whose field violations
// have the resource's name as field and the reason as description. All others of
// that response count as applied. Without such details all of them are refused.
//
// Names that do not exist are answered at once, as removed (delta) or by being
// absent (state of the world), but nothing is answered before [Cache.SetSynced].
//
// The goroutines are gRPC's; the package starts none.
package xdsserver
