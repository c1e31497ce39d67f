package sidecar

import (
	"cmp"
	"syscall"
)

// defaultMax is how many connections a listener may have by default (proxy.Config).
const defaultMax = 10_000

// maxConnections is how many connections a listener may have where descriptors are few:
// a request takes one for its client and one for its instance, there are two listeners,
// and some are for other things. 0: as many as there may be by default.
func maxConnections(descriptors uint64) int {
	const others, perConnection = 256, 4
	if descriptors >= others+perConnection*defaultMax {
		return 0
	}
	return max(16, int(descriptors)-others) / perConnection
}

// maxUpstream is how many connections to instances there may be, used and idle ones: as many as
// both listeners may need at once. Of those, idle ones to other instances take none away.
func maxUpstream(descriptors uint64) int {
	return 2 * cmp.Or(maxConnections(descriptors), defaultMax)
}

// descriptors is how many files the process may have open. The runtime has raised the
// soft limit to the hard one.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // which every system grants
	}
	return limit.Cur
}
