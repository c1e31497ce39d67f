// Package catalog is what a sidecar knows of the mesh, learnt on demand.
//
// The first request to a destination makes the catalog subscribe to its Listener;
// what that names is subscribed in turn, Listener → RouteConfiguration → Clusters
// → LoadAssignments, the chain that proxyless gRPC asks for too. When the chain is
// complete the destination is compiled and published, and the requests that waited
// go on. A destination that nobody has called for a while is unsubscribed and
// forgotten, unless it is to be kept. A Listener may have a chain by which connections go,
// where requests do not.
//
// A change is made before the old is broken: while a newer configuration of a
// destination is not complete, requests go on by the last that was, whose clusters
// are kept; clusters that nothing leads to any more are kept for [LingerTime], for
// the requests that are under way. Hosts change in place, in package upstream.
//
// Bounds: destinations known or asked for, and requests waiting, each with a stated
// refusal. Names that the control plane does not know are remembered for
// [NegativeTime] and not asked for again meanwhile.
//
// Updates come from one goroutine (the xDS client's); requests look up without a
// lock and wait on a channel. The catalog starts one goroutine, which forgets idle
// destinations; Close ends it.
package catalog
