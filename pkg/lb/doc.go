// Package lb chooses which host of a cluster gets a request.
//
// A [Host] is a live endpoint: the counters that outlive configuration. It is owned
// by whoever owns the connections to the endpoint, and carried by pointer from one
// configuration to the next.
//
// A [Picker] is immutable: a policy over a list of hosts and their weights. It does
// not know about health, ejection or drain. Who does builds a new Picker, over the
// hosts that may be used, whenever that set changes, and publishes it atomically.
// What must go on across such a change lives outside the Picker: the load in the
// Hosts, the place in the rotation in a [Cursor].
//
// To use a host is to take a [Lease] of it, which counts it as busy, and to give the
// lease back once:
//
//	i := picker.Pick()
//	lease := hosts[i].Lease()
//	defer lease.Done()
//
// A request that could not use the host it got remembers it in a [Tried] and asks
// [Picker.PickExcept].
//
// No pick locks or allocates. The package has no clock, does no I/O and starts no
// goroutine. Zones, hashing and slow start are not part of it.
package lb
