// Package controlplane puts the control plane together: the store, the registry,
// the xDS server and the API, in the order in which they start, which is the
// reverse of the order in which they stop.
//
// A change takes one road: the API (or whoever writes the documented keys) → store →
// mirror → reconcile → xDS cache → streams. Nothing is answered from what was not
// read back from the store.
package controlplane
