package sidecar

import (
	"cmp"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// defaultMax is how many connections a listener may have by default (proxy.Config).
const defaultMax = 10_000

// others is how many descriptors are kept for what is neither a client nor an instance.
const others = 256

// maxConnections is how many connections each of so many listeners may have where descriptors
// are few. Clients get two thirds of them, for most of their connections are idle, and
// instances the rest. 0: as many as there may be by default.
func maxConnections(descriptors uint64, listeners int) int {
	forClients := (max(descriptors, others+16) - others) / 3 * 2
	if forClients >= uint64(listeners)*defaultMax {
		return 0
	}
	return max(4, int(forClients)/listeners)
}

// maxUpstream is how many connections to instances there may be, used and idle ones: as many as
// all listeners may need at once, or as descriptors are left. Of those, idle ones to other
// instances take none away.
func maxUpstream(descriptors uint64, listeners int) int {
	clients := listeners * cmp.Or(maxConnections(descriptors, listeners), defaultMax)
	if descriptors > uint64(others+2*clients) {
		return clients
	}
	return max(8, int(descriptors)-others-clients)
}

// ports is how many listeners there are to be.
func (c Config) ports(boot codec.Bootstrap) int {
	switch {
	case c.ControlPlane == "":
		return max(1, len(boot.Listeners))
	case c.Workload.AppAddr == "":
		return 1 + len(c.TCPUpstreams)
	default:
		return 2 + len(c.TCPUpstreams)
	}
}

// maxPipes is how many connections each of so many listeners may splice at one moment, where
// descriptors are few: a pipe takes two, of those that are for other things. 0: as many as by
// default.
func maxPipes(descriptors uint64, listeners int) int {
	const shared = 64
	if maxConnections(descriptors, listeners) == 0 {
		return 0
	}
	return max(shared/listeners, 1)
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
