// Package dns looks up the hosts that a cluster has by name, again and again, and says which endpoints they are.
//
// It is what Envoy's STRICT_DNS and LOGICAL_DNS types say, with two differences: the refresh goes by the clock alone, for
// the system's resolver does not tell how long an answer holds; and of a logical host the address that is in use stays
// for as long as the answers have it, whatever their order.
package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// lookupTimeout bounds the looking up of one name.
	lookupTimeout = 5 * time.Second
	// maxAddresses bounds what is used of one answer.
	maxAddresses = 1000
	// maxLookups is how many names are looked up at once: resolvers bound what they answer (dnsmasq 150 questions, of
	// which a name is two), and drop what is more, which looks as if they were dead.
	maxLookups = 32
)

// Config is what a [Cluster] needs.
type Config struct {
	// Lookup finds the addresses of a host; nil: the system's resolver, as [net.Resolver.LookupNetIP]. It is called
	// by several goroutines at once.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Places bounds the lookups of all clusters that have it in common; nil: those of this one, as [Places].
	Places chan struct{}
	// Assign takes the endpoints when they have changed.
	Assign func(mesh.LoadAssignment) error
	Log    *slog.Logger
}

// Places are those that lookups take, 32 at once.
func Places() chan struct{} { return make(chan struct{}, maxLookups) }

// Cluster looks up the hosts of one cluster. It belongs to one goroutine.
type Cluster struct {
	name     string
	dns      mesh.DNS
	config   Config
	hosts    []host
	assigned bool
	late     bool // Begin was not done in time
	last     []mesh.Endpoint
}

// host is what is known of a name.
type host struct {
	known     bool // it was looked up with success once
	failing   bool // it was not, the last time
	addresses []netip.Addr
}

// New makes the lookups of a cluster.
func New(cluster string, d mesh.DNS, config Config) *Cluster {
	if config.Lookup == nil {
		config.Lookup = net.DefaultResolver.LookupNetIP
	}
	if config.Places == nil {
		config.Places = Places()
	}
	return &Cluster{name: cluster, dns: d, config: config, hosts: make([]host, len(d.Hosts))}
}

// Run looks the hosts up every [mesh.DNS.Refresh] until ctx ends, and at once if [Cluster.Begin] was not done in time.
func (c *Cluster) Run(ctx context.Context) error {
	tick := time.NewTicker(c.dns.Refresh)
	defer tick.Stop()
	if c.late {
		if err := c.Look(ctx); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.Look(ctx); err != nil {
				return err
			}
		}
	}
}

// Begin is [Cluster.Look] for 5 s at most, however many hosts there are: those that are not looked up by then have no
// addresses before [Cluster.Run].
func (c *Cluster) Begin(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c.lookAll(bounded)
	if c.late = bounded.Err() != nil && ctx.Err() == nil; c.late {
		c.config.Log.Warn("not all names of hosts could be looked up in time; it is gone on with", "cluster", c.name, "time", lookupTimeout)
	}
	return c.assign()
}

// Look looks all hosts up once. A host that does not exist has no addresses; one that cannot be looked up keeps those
// that it had. Nothing is assigned before one of them could be. It fails only if Assign does.
func (c *Cluster) Look(ctx context.Context) error {
	c.lookAll(ctx)
	return c.assign()
}

func (c *Cluster) lookAll(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	for i := range c.hosts {
		select {
		case <-ctx.Done():
			return
		case c.config.Places <- struct{}{}:
		}
		looks.Go(func() {
			c.look(ctx, i)
			<-c.config.Places
		})
	}
}

// assign assigns what is known if it is not what was assigned.
func (c *Cluster) assign() error {
	if !slices.ContainsFunc(c.hosts, func(h host) bool { return h.known }) {
		return nil
	}
	endpoints := c.endpoints()
	if c.assigned && slices.Equal(endpoints, c.last) {
		return nil
	}
	c.assigned, c.last = true, endpoints
	return c.config.Assign(mesh.LoadAssignment{Cluster: c.name, Endpoints: slices.Clone(endpoints)})
}

// look looks one host up.
func (c *Cluster) look(ctx context.Context, i int) {
	named, h := c.dns.Hosts[i].Host, &c.hosts[i]
	if ip, err := netip.ParseAddr(named); err == nil {
		h.known, h.addresses = true, []netip.Addr{ip}
		return
	}
	bounded, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := c.config.Lookup(bounded, network(c.dns.Family), named)
	var failed *net.DNSError
	switch {
	case ctx.Err() != nil: // it was not waited for
		return
	case errors.As(err, &failed) && failed.IsNotFound:
		found = nil
	case err != nil:
		if !h.failing {
			c.config.Log.Warn("a host's name cannot be looked up; what was known of it stays", "cluster", c.name, "host", named, "addresses", len(h.addresses), "err", err)
		}
		h.failing = true
		return
	}
	if h.failing {
		c.config.Log.Info("a host's name can be looked up again", "cluster", c.name, "host", named)
	}
	addresses := c.chosen(found, h.addresses)
	if len(addresses) == 0 && (!h.known || len(h.addresses) > 0) {
		c.config.Log.Warn("a host has no address", "cluster", c.name, "host", named, "dns_lookup_family", network(c.dns.Family))
	}
	h.known, h.failing, h.addresses = true, false, addresses
}

// network is the family in the words of [net.Resolver.LookupNetIP].
func network(f mesh.DNSFamily) string {
	switch f {
	case mesh.DNSV4Only:
		return "ip4"
	case mesh.DNSV6Only:
		return "ip6"
	}
	return "ip"
}

// chosen are those of an answer that are used, of which before was used up to now.
func (c *Cluster) chosen(found, before []netip.Addr) []netip.Addr {
	usable := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		// An answer of 0.0.0.0, as from a filter, would lead to this machine.
		if a = a.Unmap(); a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !slices.Contains(usable, a) && len(usable) < maxAddresses {
			usable = append(usable, a)
		}
	}
	usable = ofFamily(usable, c.dns.Family)
	if !c.dns.Logical {
		slices.SortFunc(usable, netip.Addr.Compare) // the order of an answer says nothing
		return usable
	}
	if len(before) == 1 && slices.Contains(usable, before[0]) {
		return before
	}
	return usable[:min(1, len(usable))]
}

// ofFamily leaves the addresses of the family.
func ofFamily(all []netip.Addr, f mesh.DNSFamily) []netip.Addr {
	isV4 := netip.Addr.Is4
	isV6 := func(a netip.Addr) bool { return !a.Is4() }
	var preferred func(netip.Addr) bool
	switch f {
	case mesh.DNSAll:
		return all
	case mesh.DNSV4Only, mesh.DNSV4Preferred:
		preferred = isV4
	case mesh.DNSV6Only, mesh.DNSAuto:
		preferred = isV6
		if f == mesh.DNSAuto && !slices.ContainsFunc(all, func(a netip.Addr) bool { return !a.IsLoopback() }) {
			preferred = isV4 // localhost, where programs listen on 127.0.0.1 more often than on ::1
		}
	}
	only := f == mesh.DNSV4Only || f == mesh.DNSV6Only
	if !only && !slices.ContainsFunc(all, preferred) {
		return all
	}
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !preferred(a) })
}

// endpoints are those of all hosts. An address that two names have is there once.
func (c *Cluster) endpoints() []mesh.Endpoint {
	var all []mesh.Endpoint
	seen := map[netip.AddrPort]bool{}
	for i, h := range c.hosts {
		named := c.dns.Hosts[i]
		for _, a := range h.addresses {
			at := netip.AddrPortFrom(a, named.Port)
			if seen[at] {
				continue
			}
			seen[at] = true
			all = append(all, mesh.Endpoint{Address: at, Weight: named.Weight, Zone: named.Zone})
		}
	}
	return all
}
