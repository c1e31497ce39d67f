package xdsserver

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// Client is a connected xDS client, as it was at the moment of asking.
type Client struct {
	Node      string
	Service   string // the node's cluster
	UserAgent string
	Peer      string
	Since     time.Time
	Types     []TypeState // in the order of codec.Types, those that it asked for
}

// TypeState is what a client holds of a type. The lists are sorted by name.
type TypeState struct {
	Type       codec.Type
	Subscribed int // by name
	Wildcard   bool
	Applied    []Applied
	Rejected   []Rejected
}

// Applied is a resource that a client has taken.
type Applied struct{ Name, Version string }

// Rejected is a resource that a client has refused.
type Rejected struct {
	Name, Version, Reason string
	At                    time.Time
}

// Clients lists the connected clients, sorted by node and age.
func (c *Cache) Clients() []Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Client, 0, len(c.streams))
	for _, st := range c.streams {
		client := Client{Node: st.node.id, Service: st.node.cluster, UserAgent: st.node.userAgent, Peer: st.peer, Since: st.opened}
		for _, t := range codec.Types() {
			if s := st.subscriptions[t]; s != nil {
				client.Types = append(client.Types, s.state())
			}
		}
		all = append(all, client)
	}
	slices.SortFunc(all, func(a, b Client) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Since.Compare(b.Since), cmp.Compare(a.Peer, b.Peer))
	})
	return all
}

func (s *subscription) state() TypeState {
	st := TypeState{Type: s.typ, Subscribed: len(s.names), Wildcard: s.wildcard}
	for name, version := range s.applied {
		st.Applied = append(st.Applied, Applied{Name: name, Version: version})
	}
	for name, r := range s.rejected {
		st.Rejected = append(st.Rejected, Rejected{Name: name, Version: r.version, Reason: r.reason, At: r.at})
	}
	slices.SortFunc(st.Applied, func(a, b Applied) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(st.Rejected, func(a, b Rejected) int { return cmp.Compare(a.Name, b.Name) })
	return st
}
