package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/control/mgmt"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/control/reconcile"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

const (
	// flushTime bounds the writing out of spans at shutdown.
	flushTime = 3 * time.Second
	// stopTime bounds the finishing of calls at shutdown, after the streams have ended.
	stopTime = 3 * time.Second
)

// controlPlane is a running one.
type controlPlane struct {
	config  Config
	log     *slog.Logger
	group   *run.Group
	ready   *run.Ready
	metrics *metrics.Registry
	tracer  *tracing.Tracer
	undo    []func() // closes what was opened, if the start fails

	store      store.Store
	view       *discovery.View
	policies   *policy.Policies
	registry   *discovery.Registry
	cache      *xdsserver.Cache
	reconciler *reconcile.Reconciler
	synced     chan struct{} // closed when the store was read
	direct     *call.Direct  // calls the steps of sagas; nil: a sidecar does

	grpc *grpc.Server
	ads  *xdsserver.Server
	rest *mgmt.REST
}

// Run runs a control plane until ctx ends, a signal arrives, or a part of it fails.
// It blocks; when it returns, everything it started has ended.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return err
	}
	c := &controlPlane{
		config:  config,
		log:     config.Log,
		ready:   run.NewReady(),
		metrics: metrics.New(metrics.Config{Runtime: true, Logger: config.Log}),
		synced:  make(chan struct{}),
		group: run.New(run.Config{
			StopTimeout:   config.DrainTime + 2*stopTime + flushTime + 10*time.Second,
			HandleSignals: config.HandleSignals,
			Logger:        config.Log,
		}),
	}
	addresses, err := c.assemble(ctx)
	if err != nil {
		for i := len(c.undo) - 1; i >= 0; i-- {
			c.undo[i]()
		}
		return err
	}
	c.log.Info("control plane listens", "grpc", addresses.GRPC.String(), "http", addresses.HTTP.String())
	if config.Ready != nil {
		config.Ready(addresses)
	}
	return c.group.Run(ctx)
}

// assemble opens everything and fills the group, in start order.
func (c *controlPlane) assemble(ctx context.Context) (Addresses, error) {
	var addresses Addresses
	// Ports that are taken are found before a store is opened.
	grpcListener, err := c.listen("--grpc-addr", c.config.GRPCAddr)
	if err != nil {
		return addresses, err
	}
	httpListener, err := c.listen("--http-addr", c.config.HTTPAddr)
	if err != nil {
		return addresses, err
	}
	if err := c.startTracing(ctx); err != nil {
		return addresses, err
	}
	if addresses.Etcd, err = c.openStore(ctx); err != nil {
		return addresses, err
	}
	if err := c.startRegistry(); err != nil {
		return addresses, err
	}
	if err := c.serveGRPC(grpcListener); err != nil {
		return addresses, err
	}
	c.serveHTTP(httpListener, c.addSagas(grpcListener.Addr()))
	c.observe()
	addresses.GRPC, addresses.HTTP = grpcListener.Addr(), httpListener.Addr()
	return addresses, nil
}

// onAbandon notes how to close what was opened, for a start that fails later on.
func (c *controlPlane) onAbandon(f func()) { c.undo = append(c.undo, f) }

func (c *controlPlane) listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	c.onAbandon(func() { _ = l.Close() })
	return l, nil
}

func (c *controlPlane) startTracing(ctx context.Context) error {
	var err error
	c.tracer, err = tracing.Setup(ctx, tracing.Config{
		ServiceName:  "controlplane",
		OTLPEndpoint: c.config.OTLPEndpoint,
		Ratio:        c.config.TraceRatio,
		Logger:       c.log,
	})
	if err != nil {
		return fmt.Errorf("--otlp-endpoint: %w", err)
	}
	flush := func() error {
		grace, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		return c.tracer.Shutdown(grace)
	}
	c.onAbandon(func() { _ = flush() })
	c.group.Add("tracing", func(ctx context.Context) error {
		<-ctx.Done()
		return flush()
	})
	return nil
}

// openStore connects to the cluster, or starts the embedded etcd and returns where
// etcdctl reaches that.
func (c *controlPlane) openStore(ctx context.Context) (etcdctl string, err error) {
	if len(c.config.Etcd.Endpoints) > 0 {
		return "", c.connectStore(ctx)
	}
	listen, err := freeAddress(c.config.EtcdListen)
	if err != nil {
		return "", fmt.Errorf("--etcd-listen: %w", err)
	}
	server, err := etcdembed.Start(ctx, etcdembed.Config{DataDir: c.config.DataDir, Listen: listen, Logger: c.log})
	if err != nil {
		return "", fmt.Errorf("--data-dir: %w", err)
	}
	c.store = server.Store()
	c.onAbandon(func() { _ = server.Stop() })
	c.group.Add("etcd", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return server.Stop()
		case err := <-server.Err():
			return errors.Join(err, server.Stop())
		}
	})
	if server.Listen() != "" {
		c.log.Info("etcd listens for etcdctl", "address", server.Listen())
	}
	return server.Listen(), nil
}

// freeAddress returns a listen address with the host as an IP address, or why
// nobody can listen there: etcd's own words would not say which flag is wrong.
func freeAddress(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return "", err
	}
	l, err := net.ListenTCP("tcp", resolved)
	if err != nil {
		return "", err
	}
	return resolved.String(), l.Close()
}

func (c *controlPlane) connectStore(ctx context.Context) error {
	e := c.config.Etcd
	user, password, _ := strings.Cut(e.User, ":")
	s, err := etcdstore.New(ctx, etcdstore.Config{
		Endpoints: e.Endpoints, CACert: e.CACert, Cert: e.Cert, Key: e.Key, User: user, Password: password, Logger: c.log,
	})
	switch {
	case errors.Is(err, etcdstore.ErrAuthorities):
		return fmt.Errorf("--etcd-cacert: %w", err)
	case errors.Is(err, etcdstore.ErrCertificate):
		return fmt.Errorf("--etcd-cert, --etcd-key: %w", err)
	case err != nil:
		return fmt.Errorf("--etcd-endpoints: %w", err)
	}
	c.store = s
	c.onAbandon(func() { _ = s.Close() })
	c.group.Add("etcd client", func(ctx context.Context) error {
		<-ctx.Done()
		return s.Close()
	})
	return nil
}

// startRegistry starts what stands between the store and the servers.
func (c *controlPlane) startRegistry() error {
	synced := c.ready.Condition("store", "the first reading of the store")
	c.view = discovery.NewView(c.log, c.config.TrustDomain)
	c.policies = policy.New(c.store, c.log)
	c.cache = xdsserver.NewCache(c.log)
	c.registry = discovery.NewRegistry(discovery.RegistryConfig{
		Store: c.store, View: c.view, Replica: replicaID(), Log: c.log,
	})
	config := reconcile.Config{
		Store: c.store, View: c.view, Policies: c.policies, Cache: c.cache, Log: c.log,
		OnSynced: func() {
			synced.Done()
			close(c.synced)
		},
	}
	if c.config.SagaEgress == "" {
		c.direct = call.NewDirect(func(name mesh.ServiceName) (translate.Service, bool) { return c.reconciler.Service(name) }, c.tracer, c.log.With("part", "sagas"))
		config.Changed = c.direct.Changed
	}
	var err error
	c.reconciler, err = reconcile.New(config)
	if err != nil {
		return err
	}
	c.group.Add("reconcile", c.reconciler.Run)
	c.group.Add("registry", func(ctx context.Context) error {
		select {
		case <-c.synced:
			return c.registry.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return nil
}
