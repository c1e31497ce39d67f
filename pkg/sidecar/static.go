package sidecar

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
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
func (s *sidecar) open(boot codec.Bootstrap) error {
	clusters := map[string]*upstream.Cluster{}
	for _, config := range boot.Clusters {
		cluster, err := s.set.Apply(config)
		if err != nil {
			return err
		}
		clusters[config.Name] = cluster
	}
	for _, l := range boot.Listeners {
		if len(l.TCP) > 0 {
			if err := s.listenTCP(l, clusters); err != nil {
				return err
			}
			continue
		}
		if l.Route == nil {
			return fmt.Errorf("listener %s: its routes are dynamic, and there is no control plane", l.Name)
		}
		routes, err := table.Compile(*l.Route, table.Deps{
			Cluster: func(name string) *upstream.Cluster { return clusters[name] },
			Metrics: s.proxy,
			Source:  l.StatPrefix,
		})
		if err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
		var security *mtls.Server
		if l.TLS != nil {
			if security, err = s.tls.Server("listener "+l.Name, *l.TLS); err != nil {
				return err
			}
		}
		if err := s.listen(l.Name, l.Address.String(), routes, security, l.Preface, l.HTTP); err != nil {
			return err
		}
	}
	return nil
}

// listenTCP opens a listener that relays connections.
func (s *sidecar) listenTCP(l mesh.Listener, clusters map[string]*upstream.Cluster) error {
	s.countTCP()
	routes := &tcp.Routes{}
	for _, chain := range l.TCP {
		to := chain.TCP
		if err := routes.Add(chain.ServerNames, &tcp.Route{
			Name:        chain.Name,
			Source:      to.StatPrefix,
			Destination: to.Cluster,
			Cluster:     clusters[to.Cluster],
			Counted:     s.tcp.Destination(to.StatPrefix, to.Cluster),
			IdleTimeout: to.IdleTimeout,
			Attempts:    int(to.ConnectAttempts),
		}); err != nil {
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	return s.relay(l.Name, l.Address.String(), tcp.Config{
		Routes:         routes,
		Source:         l.Name,
		ProxyProtocol:  l.Preface.ProxyProtocol,
		TLS:            l.Preface.TLS,
		PrefaceTimeout: l.Preface.Timeout,
	})
}

// adminAddress is where the admin port listens: the flag goes before the file.
func (s *sidecar) adminAddress(boot codec.Bootstrap) (string, error) {
	if s.config.AdminAddr != "" || !boot.Admin.IsValid() {
		return s.config.AdminAddr, nil
	}
	if !boot.Admin.Addr().IsLoopback() {
		return "", fmt.Errorf("admin.address: %s is not a loopback address: whoever reaches the admin port can drain this process and read its memory", boot.Admin.Addr())
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
