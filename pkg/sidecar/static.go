package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/dns"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// loadBootstrap reads a bootstrap file.
func loadBootstrap(path string) (codec.Bootstrap, error) {
	f, err := os.Open(path)
	if err != nil {
		return codec.Bootstrap{}, fmt.Errorf("--bootstrap: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(f, codec.MaxBootstrapBytes+1))
	if err != nil {
		return codec.Bootstrap{}, fmt.Errorf("--bootstrap: %w", err)
	}
	boot, err := codec.DecodeBootstrap(data)
	if err != nil {
		return codec.Bootstrap{}, fmt.Errorf("--bootstrap %s: %w", path, err)
	}
	if boot.ControlPlane != nil {
		return codec.Bootstrap{}, fmt.Errorf("--bootstrap %s: dynamic_resources: not supported by this version", path)
	}
	return boot, nil
}

// open makes the clusters and opens the listeners of a bootstrap.
func (s *sidecar) open(ctx context.Context, boot codec.Bootstrap) error {
	clusters := map[string]*upstream.Cluster{}
	for _, config := range boot.Clusters {
		cluster, err := s.set.Apply(config)
		if err != nil {
			return err
		}
		clusters[config.Name] = cluster
	}
	if err := s.lookUp(ctx, boot.Clusters); err != nil {
		return err
	}
	for _, l := range boot.Listeners {
		if len(l.TCP) > 0 || len(l.Chains) > 0 {
			if err := s.listenTCP(l, clusters); err != nil {
				return err
			}
			continue
		}
		manager := mesh.HTTPManager{Route: l.Route, StatPrefix: l.StatPrefix, HTTP: l.HTTP}
		config, err := s.managerConfig(l.Name, manager, l.TLS, clusters)
		if err != nil {
			return err
		}
		config.ProxyProtocol, config.PrefaceTimeout = l.Preface.ProxyProtocol, l.Preface.Timeout
		if err := s.bind(l.Name, l.Address.String(), config); err != nil {
			return err
		}
	}
	return nil
}

// lookUp looks up the hosts that clusters name, and keeps doing so. The first requests find what the first look found.
func (s *sidecar) lookUp(ctx context.Context, clusters []mesh.Cluster) error {
	var named []*dns.Cluster
	places := dns.Places()
	for _, c := range clusters {
		if c.DNS != nil {
			named = append(named, dns.New(c.Name, *c.DNS, dns.Config{Places: places, Assign: s.set.Assign, Log: s.log}))
		}
	}
	if len(named) == 0 {
		return nil
	}
	each := func(ctx context.Context, f func(*dns.Cluster, context.Context) error) error {
		failed := make([]error, len(named))
		var all sync.WaitGroup
		for i, one := range named {
			all.Go(func() { failed[i] = f(one, ctx) })
		}
		all.Wait()
		return errors.Join(failed...)
	}
	if err := each(ctx, (*dns.Cluster).Begin); err != nil {
		return err
	}
	s.group.Add("names", func(ctx context.Context) error { return each(ctx, (*dns.Cluster).Run) })
	return nil
}

// managerConfig is how the requests of a listener, or of one of its chains, are served.
func (s *sidecar) managerConfig(name string, m mesh.HTTPManager, security *mesh.DownstreamTLS, clusters map[string]*upstream.Cluster) (proxy.Config, error) {
	if m.Route == nil {
		return proxy.Config{}, fmt.Errorf("listener %s: its routes are dynamic, and there is no control plane", name)
	}
	routes, err := table.Compile(*m.Route, table.Deps{
		Cluster: func(name string) *upstream.Cluster { return clusters[name] },
		Metrics: s.proxy,
		Source:  m.StatPrefix,
	})
	if err != nil {
		return proxy.Config{}, fmt.Errorf("listener %s: %w", name, err)
	}
	config := s.serverConfig(name, m.StatPrefix, routes, m.HTTP)
	config.TLS, err = s.downstream("listener "+name, security)
	return config, err
}

// downstream loads the files of a listener's TLS; nil is that it has none.
func (s *sidecar) downstream(name string, t *mesh.DownstreamTLS) (*mtls.Server, error) {
	if t == nil {
		return nil, nil
	}
	return s.tls.Server(name, *t)
}

// listenTCP opens a listener that relays connections, or tells which of them are HTTP.
func (s *sidecar) listenTCP(l mesh.Listener, clusters map[string]*upstream.Cluster) error {
	routes := &tcp.Routes{}
	var behind []listener
	for _, chain := range l.TCP {
		route := s.relayRoute(chain.Name, chain.TCP, clusters)
		if err := routes.Add(tcp.Match{ServerNames: chain.ServerNames}, route); err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	for i, chain := range l.Chains {
		name := fmt.Sprintf("%s/%s", l.Name, cmp.Or(chain.Name, strconv.Itoa(i)))
		var route *tcp.Route
		if chain.TCP != nil {
			route = s.relayRoute(chain.Name, *chain.TCP, clusters)
			var err error
			if route.TLS, err = s.downstream("listener "+name, chain.TLS); err != nil {
				return err
			}
		} else {
			config, err := s.managerConfig(name, *chain.HTTP, chain.TLS, clusters)
			if err != nil {
				return err
			}
			one := s.behind(name, config)
			behind = append(behind, one)
			route = &tcp.Route{Name: chain.Name, HTTP: one.net.(*handoff).give}
		}
		if chain.Default {
			routes.Fallback(route)
			continue
		}
		match := tcp.Match{ServerNames: chain.Match.ServerNames, Transport: transport(chain.Match.Transport), Protocols: chain.Match.Protocols}
		if err := routes.Add(match, route); err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	return s.relay(l.Name, l.Address.String(), tcp.Config{
		Routes:         routes,
		Source:         l.Name,
		ProxyProtocol:  l.Preface.ProxyProtocol,
		TLS:            l.Preface.TLS,
		HTTP:           l.Preface.HTTP,
		Continue:       l.Preface.Continue,
		PrefaceTimeout: l.Preface.Timeout,
	}, behind...)
}

func transport(name string) tcp.Transport {
	switch name {
	case mesh.TransportTLS:
		return tcp.TLS
	case mesh.TransportRaw:
		return tcp.RawBuffer
	}
	return tcp.AnyTransport
}

// relayRoute leads to a cluster.
func (s *sidecar) relayRoute(name string, to mesh.TCPProxy, clusters map[string]*upstream.Cluster) *tcp.Route {
	return &tcp.Route{
		Name:        name,
		Source:      to.StatPrefix,
		Destination: to.Cluster,
		Cluster:     clusters[to.Cluster],
		Counted:     s.relayed().Destination(to.StatPrefix, to.Cluster),
		IdleTimeout: to.IdleTimeout,
		Attempts:    int(to.ConnectAttempts),
	}
}

// adminAddress is where the admin port listens: the flag goes before the file.
func (s *sidecar) adminAddress(boot codec.Bootstrap) (string, error) {
	if s.config.AdminAddr != "" || !boot.Admin.IsValid() {
		return s.config.AdminAddr, nil
	}
	if !boot.Admin.Addr().IsLoopback() {
		return "", fmt.Errorf("admin.address: %s is not a loopback address: whoever reaches the admin port can drain this process and read its memory. Name one there, or by --admin-addr", boot.Admin.Addr())
	}
	return boot.Admin.String(), nil
}

// openAdmin opens the admin port and adds it to the group.
func (s *sidecar) openAdmin(boot codec.Bootstrap) (net.Addr, error) {
	address, err := s.adminAddress(boot)
	if err != nil || address == "" {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admin port: %w", err)
	}
	s.onAbandon(func() { _ = l.Close() })
	return l.Addr(), s.serveAdmin(l, boot)
}
