package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
	"github.com/fairlead-mesh/fairlead/pkg/xds/client"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// flushTime bounds the writing out of what telemetry holds at shutdown.
const flushTime = 3 * time.Second

// sidecar is a running data plane.
type sidecar struct {
	config  Config
	log     *slog.Logger
	clock   func() int64
	group   *run.Group
	ready   *run.Ready
	set     *upstream.Set
	tls     *mtls.Keeper
	tracer  *tracing.Tracer
	access  *accesslog.Log
	metrics *metrics.Registry
	proxy   *metrics.Proxy
	tcp     *metrics.TCP // nil: no connections are relayed
	drain   drain
	stopped atomic.Pointer[time.Time] // when the first listener stopped accepting; nil: none has

	ports     int // how many listeners there are to be
	listeners []listener
	undo      []func() // closes what was opened, if the start fails

	// Of a sidecar in a mesh.
	catalog    *catalog.Catalog
	xds        *client.Client
	attachment *attachment // nil: the workload only calls
}

// listener is one that is open and will be served.
type listener struct {
	name   string
	net    net.Listener
	server *proxy.Server
	behind []listener // of what it hands on; they are served as long as it is
}

// Run runs a sidecar until ctx ends, a signal arrives, or a part of it fails. It
// blocks; when it returns, everything it started has ended.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return err
	}
	began := time.Now()
	s := &sidecar{
		config:  config,
		log:     config.Log,
		clock:   func() int64 { return int64(time.Since(began)) },
		ready:   run.NewReady(),
		metrics: metrics.New(metrics.Config{Runtime: true, Logger: config.Log}),
		group: run.New(run.Config{
			StopTimeout:   config.DrainTimeout + drainWait + 2*flushTime,
			HandleSignals: config.HandleSignals,
			Logger:        config.Log,
		}),
	}
	s.proxy = metrics.NewProxy(s.metrics, reason.Codes()).GRPC(rpc.Names())
	s.drain.begun = make(chan struct{})
	var boot codec.Bootstrap
	if config.Bootstrap != "" {
		var err error
		if boot, err = loadBootstrap(config.Bootstrap); err != nil {
			return err
		}
	}
	addresses, err := s.assemble(ctx, boot)
	if err != nil {
		for i := len(s.undo) - 1; i >= 0; i-- {
			s.undo[i]()
		}
		return err
	}
	if config.Ready != nil {
		config.Ready(addresses)
	}
	return s.group.Run(ctx)
}

// assemble opens everything and fills the group, in start order.
func (s *sidecar) assemble(ctx context.Context, boot codec.Bootstrap) (Addresses, error) {
	addresses := Addresses{Listeners: map[string]net.Addr{}}
	service := boot.Node.Cluster
	if s.config.ControlPlane != "" {
		service = s.config.Workload.name()
	}
	if err := s.startTelemetry(ctx, service, cmp.Or(boot.Node.ID, s.config.Workload.InstanceID)); err != nil {
		return addresses, err
	}
	s.tls = mtls.NewKeeper(mtls.Config{Log: s.log, Inline: boot.Inline})
	s.onAbandon(s.tls.Close)
	s.group.Add("certificates", func(ctx context.Context) error {
		<-ctx.Done()
		s.tls.Close()
		return nil
	})
	s.ports = s.config.ports(boot)
	s.set = upstream.NewSet(s.clock, s.log)
	s.set.UseTLS(s.tls)
	s.set.Limit(maxUpstream(descriptors(), s.ports))
	if !s.config.SeparatePeers {
		s.set.Multiplex()
	}
	s.onAbandon(s.set.Close)
	s.group.Add("upstream", func(ctx context.Context) error {
		<-ctx.Done()
		s.set.Close()
		return nil
	})
	var err error
	if addresses.Admin, err = s.openAdmin(boot); err != nil {
		return addresses, err
	}
	if s.config.ControlPlane != "" {
		err = s.joinMesh()
	} else {
		err = s.open(ctx, boot)
	}
	if err != nil {
		return addresses, err
	}
	s.observe()
	for _, l := range s.listeners {
		addresses.Listeners[l.name] = l.net.Addr()
	}
	s.serveAll()
	if s.attachment != nil {
		s.register()
	}
	s.group.Add("drain", s.awaitDrain)
	return addresses, nil
}

// onAbandon notes how to close what was opened, for a start that fails later on.
func (s *sidecar) onAbandon(f func()) { s.undo = append(s.undo, f) }

// register keeps the workload registered, and its health reported. It is the first
// to stop: peers hear that the instance drains before it stops listening.
func (s *sidecar) register() {
	const toRegister = "the control plane to register this instance"
	registered := s.ready.Condition("registration", toRegister)
	s.attachment.onRegistered = registered.Done
	s.attachment.onRefused = func(why error) { registered.Wait(toRegister + ", which says: " + why.Error()) }
	s.group.Add("registration", s.attachment.run)
	s.group.Add("health check", s.checkHealth)
}

// startTelemetry starts the tracer and the access log, which stop after
// everything that has something to say.
func (s *sidecar) startTelemetry(ctx context.Context, service, instance string) error {
	var err error
	s.tracer, err = tracing.Setup(ctx, tracing.Config{
		ServiceName:  service,
		Namespace:    s.config.Workload.Namespace,
		InstanceID:   instance,
		OTLPEndpoint: s.config.OTLPEndpoint,
		Ratio:        s.config.TraceRatio,
		Logger:       s.log,
	})
	if err != nil {
		return fmt.Errorf("--otlp-endpoint: %w", err)
	}
	s.onAbandon(func() { _ = flush(s.tracer.Shutdown) })
	s.group.Add("tracing", flushed(s.tracer.Shutdown))
	if s.config.AccessLog == nil {
		return nil
	}
	s.access, err = accesslog.New(accesslog.Config{Format: s.config.AccessLogFormat, Logger: s.log}, s.config.AccessLog)
	if err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	s.onAbandon(func() { _ = flush(s.access.Close) })
	s.group.Add("access log", flushed(s.access.Close))
	return nil
}

// flushed is a member that waits for its stop and then flushes.
func flushed(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		return flush(f)
	}
}

func flush(f func(context.Context) error) error {
	grace, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	return f(grace)
}

// unknown stands for a caller that did not say who it is, and for a destination
// that nobody knows.
const unknown = "unknown"

// destinationExternal stands, in metrics and log, for what is not in the mesh.
const destinationExternal = "external"

// source is who calls through a listener of the mesh.
func (s *sidecar) source(listener string) string {
	if listener == Outbound {
		return s.config.Workload.name()
	}
	return unknown
}

// listen opens a listener of the mesh for a router, in the clear.
func (s *sidecar) listen(name, address string, router proxy.Router) error {
	return s.bind(name, address, s.serverConfig(name, s.source(name), router, mesh.HTTPOptions{}))
}

// serverConfig is how requests are served that a router leads to where they go. Metrics have source for
// the caller of those that it leads nowhere.
func (s *sidecar) serverConfig(name, source string, router proxy.Router, options mesh.HTTPOptions) proxy.Config {
	var external *table.Entry
	if name == Outbound && s.config.AllowExternalConnect {
		external = &table.Entry{Source: source, Destination: destinationExternal, Requests: s.proxy.Destination(source, destinationExternal)}
	}
	var limits http1.Limits
	if name == Inbound && s.config.ControlPlane != "" {
		limits = http1.ForPeers()
	}
	limits.PortNames = s.config.ControlPlane != ""
	return proxy.Config{
		Router:            router,
		Limits:            limits,
		Unrouted:          s.proxy.Destination(source, unknown),
		Access:            s.access,
		Tracer:            s.tracer,
		Connect:           s.config.ControlPlane != "",
		External:          external,
		Outside:           s.set.Outside(),
		TunnelIdleTimeout: s.config.TunnelIdleTimeout,

		Codec:                    options.Codec,
		IdleTimeout:              options.IdleTimeout,
		HeadTimeout:              options.HeadTimeout,
		MaxConnectionDuration:    options.MaxConnectionDuration,
		MaxConnectionJitter:      options.MaxConnectionJitter,
		MaxRequestsPerConnection: int(options.MaxRequestsPerConnection),
		Forwarded:                options.Forwarded,
		HTTP2:                    options.HTTP2Options,
	}
}

// bind opens a listener whose connections are served by config.
func (s *sidecar) bind(name, address string, config proxy.Config) error {
	l, err := net.Listen(s.family(address), address)
	if err != nil {
		return fmt.Errorf("listener %s: %w", name, err)
	}
	s.onAbandon(func() { _ = l.Close() })
	s.listeners = append(s.listeners, listener{name: name, net: l, server: s.server(name, config)})
	return nil
}

// family is which connections a listener takes: one of a bootstrap file those of its address's family only, as Envoy's;
// elsewhere 0.0.0.0 stands for all.
func (s *sidecar) family(address string) string {
	at, err := netip.ParseAddrPort(address)
	switch {
	case s.config.ControlPlane != "" || err != nil:
		return "tcp"
	case at.Addr().Is4():
		return "tcp4"
	}
	return "tcp6"
}

// server makes the server of a listener.
func (s *sidecar) server(name string, config proxy.Config) *proxy.Server {
	config.Name, config.Clock, config.Log = name, s.clock, s.log
	config.MaxConnections = maxConnections(descriptors(), s.ports)
	return proxy.NewServer(config)
}

// serveAll adds the listeners to the group. In a mesh they stop one after the other: an
// application that finishes what it was asked for may call others for it. Those of a file
// know nothing of each other, and stop together, each with all the time that there is.
func (s *sidecar) serveAll() {
	if s.config.ControlPlane != "" {
		for _, l := range s.listeners {
			s.group.Add("listener "+l.name, func(ctx context.Context) error { return s.serve(ctx, l) })
		}
		return
	}
	if len(s.listeners) == 0 {
		return // what returns ends the group
	}
	s.group.Add("listeners", func(ctx context.Context) error { return s.serveTogether(ctx, s.listeners) })
}

// serveTogether serves listeners until ctx ends, or one of them fails.
func (s *sidecar) serveTogether(ctx context.Context, listeners []listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- s.serve(ctx, l) }()
	}
	var faults []error
	for range listeners {
		err := <-ended
		if err != nil {
			cancel()
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// drainedBy is when what is under way is cut off, on all listeners: the time begins when the
// first of them stops accepting.
func (s *sidecar) drainedBy() time.Time {
	now := time.Now()
	s.stopped.CompareAndSwap(nil, &now)
	return s.stopped.Load().Add(s.config.DrainTimeout)
}

// serve serves a listener. When ctx ends it accepts no more connections, and waits for the
// requests, and the relayed connections, under way.
func (s *sidecar) serve(ctx context.Context, l listener) error {
	if len(l.behind) > 0 {
		all := append([]listener{{name: l.name, net: l.net, server: l.server}}, l.behind...)
		return s.serveTogether(ctx, all)
	}
	s.log.Info("listening", "listener", l.name, "address", l.net.Addr().String())
	if err := l.server.Serve(ctx, l.net); err != nil {
		return err
	}
	grace, cancel := context.WithDeadline(context.Background(), s.drainedBy())
	defer cancel()
	if cut := l.server.Drain(grace); cut > 0 {
		s.log.Warn("connections were cut off", "listener", l.name, "connections", cut, "drain_timeout", s.config.DrainTimeout)
	}
	return nil
}
