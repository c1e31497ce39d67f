package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/admin"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// drain is begun by the admin port or a signal; it ends the sidecar.
type drain struct {
	once  sync.Once
	begun chan struct{}
	since atomic.Pointer[time.Time]
}

func (d *drain) begin() {
	d.once.Do(func() {
		now := time.Now()
		d.since.Store(&now)
		close(d.begun)
	})
}

func (d *drain) began() time.Time {
	if t := d.since.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// awaitDrain ends the group when a drain is begun. It is the first to be stopped when
// something else ends the group, which is a drain too: whoever asks is told from then
// on that the proxy is not ready for more.
func (s *sidecar) awaitDrain(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-s.drain.begun:
	}
	s.log.Info("draining")
	s.drain.begin()
	s.ready.Condition("drain", "the end of this process, which takes no more work")
	return nil
}

func (s *sidecar) serveAdmin(l net.Listener, boot codec.Bootstrap) error {
	server, err := admin.New(admin.Config{
		Ready:         s.ready,
		Metrics:       s.metrics,
		Clusters:      s.clusterStatus,
		Listeners:     s.listenerStatus,
		ConfigDump:    func() ([]byte, error) { return s.configDump(boot) },
		Certs:         s.certStatus,
		LogLevel:      s.config.LogLevel,
		Drain:         s.drain.begin,
		DrainingSince: s.drain.began,
	}, s.log)
	if err != nil {
		return err
	}
	s.group.Add("admin", func(ctx context.Context) error {
		s.log.Info("listening", "listener", "admin", "address", l.Addr().String())
		return server.Serve(ctx, l)
	})
	return nil
}

func (s *sidecar) listenerStatus() []admin.ListenerStatus {
	all := make([]admin.ListenerStatus, 0, len(s.listeners))
	for _, l := range s.listeners {
		n := l.server.Connections()
		for _, b := range l.behind {
			n += b.server.Connections()
		}
		all = append(all, admin.ListenerStatus{Name: l.name, Address: l.net.Addr().String(), Connections: int64(n)})
	}
	return all
}

func (s *sidecar) clusterStatus() []admin.ClusterStatus {
	now := s.clock()
	var all []admin.ClusterStatus
	for _, c := range s.set.Clusters() {
		config, _ := c.Config()
		status := admin.ClusterStatus{Name: c.Name(), Policy: config.LB.String()}
		for _, h := range c.Hosts() {
			status.Hosts = append(status.Hosts, s.hostStatus(h.Status(now), now))
		}
		all = append(all, status)
	}
	return all
}

func (s *sidecar) hostStatus(h upstream.Status, now int64) admin.HostStatus {
	status := admin.HostStatus{
		Address:         h.Endpoint.Address,
		Instance:        h.Endpoint.Instance,
		Zone:            h.Endpoint.Zone,
		Weight:          h.Endpoint.Weight,
		Health:          h.Endpoint.Health.String(),
		Active:          h.Active,
		Requests:        h.Requests,
		Failures:        h.Failures,
		IdleConnections: h.Idle,
	}
	if h.Breaker != nil {
		status.Breaker = h.Breaker.State.String()
		status.ConsecutiveFailures = h.Breaker.ConsecutiveFailures
		if h.Breaker.State == breaker.Open {
			status.ReadyAt = time.Now().Add(time.Duration(h.Breaker.ReadyAt - now))
		}
	}
	return status
}

// configDump returns the configuration in force as the resources of xDS, in
// proto JSON: what is read back is what was applied.
func (s *sidecar) configDump(boot codec.Bootstrap) ([]byte, error) {
	dump := struct {
		Listeners []json.RawMessage `json:"listeners"`
		Routes    []json.RawMessage `json:"routes"`
		Clusters  []json.RawMessage `json:"clusters"`
		Endpoints []json.RawMessage `json:"endpoints"`
	}{[]json.RawMessage{}, []json.RawMessage{}, []json.RawMessage{}, []json.RawMessage{}}
	listeners, routes := boot.Listeners, []mesh.RouteConfiguration(nil)
	if s.catalog != nil {
		listeners, routes = s.catalog.Listeners(), s.catalog.Routes()
	}
	var faults []error
	for _, l := range listeners {
		e, err := codec.EncodeListener(l)
		faults = append(faults, appendJSON(&dump.Listeners, e, err))
	}
	for _, r := range routes {
		e, err := codec.EncodeRoute(r)
		faults = append(faults, appendJSON(&dump.Routes, e, err))
	}
	for _, c := range s.set.Clusters() {
		config, assigned := c.Config()
		e, err := codec.EncodeCluster(config)
		faults = append(faults, appendJSON(&dump.Clusters, e, err))
		if config.Static == nil && c.Known() {
			e, err = codec.EncodeEndpoints(assigned)
			faults = append(faults, appendJSON(&dump.Endpoints, e, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return json.MarshalIndent(dump, "", "  ")
}

func appendJSON(list *[]json.RawMessage, e codec.Encoded, err error) error {
	if err != nil {
		return err
	}
	var message anypb.Any
	message.TypeUrl, message.Value = e.Any().GetTypeUrl(), e.Body
	b, err := protojson.Marshal(&message)
	if err != nil {
		return err
	}
	*list = append(*list, b)
	return nil
}

// observe makes the metrics of what has a life of its own.
func (s *sidecar) observe() {
	hosts := []string{"cluster", "instance", "address"}
	each := func(value func(upstream.Status) float64) func(metrics.Emit) {
		return func(emit metrics.Emit) {
			now := s.clock()
			for _, c := range s.set.Clusters() {
				for _, h := range c.Hosts() {
					st := h.Status(now)
					emit(value(st), c.Name(), st.Endpoint.Instance, st.Endpoint.Address.String())
				}
			}
		}
	}
	s.metrics.Collect("fairlead_upstream_requests_total", "Attempts sent to a host.", metrics.KindCounter, hosts,
		each(func(h upstream.Status) float64 { return float64(h.Requests) }))
	s.metrics.Collect("fairlead_upstream_failures_total", "Attempts held against a host.", metrics.KindCounter, hosts,
		each(func(h upstream.Status) float64 { return float64(h.Failures) }))
	s.metrics.Collect("fairlead_upstream_active", "Attempts under way.", metrics.KindGauge, hosts,
		each(func(h upstream.Status) float64 { return float64(h.Active) }))
	s.metrics.Collect("fairlead_upstream_idle_connections", "Idle connections to a host.", metrics.KindGauge, hosts,
		each(func(h upstream.Status) float64 { return float64(h.Idle) }))
	s.metrics.Collect("fairlead_breaker_state", "State of a host's breaker: 0 closed, 1 open, 2 half-open.", metrics.KindGauge, hosts,
		each(func(h upstream.Status) float64 {
			if h.Breaker == nil {
				return 0
			}
			return float64(h.Breaker.State)
		}))
	s.metrics.Collect("fairlead_breaker_trips_total", "Times a host's breaker opened.", metrics.KindCounter, hosts,
		each(func(h upstream.Status) float64 {
			if h.Breaker == nil {
				return 0
			}
			return float64(h.Breaker.Trips)
		}))
	s.observeTLS()
	if s.xds != nil {
		s.observeXDS()
	}
	if s.tracer.Enabled() {
		s.metrics.CounterFunc("fairlead_spans_exported_total", "Spans that the collector took.", func() uint64 { return s.tracer.Stats().Exported })
		s.metrics.CounterFunc("fairlead_spans_dropped_total", "Spans that found the queue full.", func() uint64 { return s.tracer.Stats().Dropped })
		s.metrics.CounterFunc("fairlead_spans_failed_total", "Spans that the collector did not take, after retries.", func() uint64 { return s.tracer.Stats().Failed })
	}
	if s.access != nil {
		s.metrics.CounterFunc("fairlead_access_log_dropped_total", "Access log lines that found the ring full.", s.access.Dropped)
	}
}

// observeXDS makes the metrics of the stream to the control plane.
func (s *sidecar) observeXDS() {
	s.metrics.GaugeFunc("fairlead_xds_connected", "1 while the control plane is connected.", func() float64 {
		if s.xds.Status().Connected {
			return 1
		}
		return 0
	})
	s.metrics.GaugeFunc("fairlead_xds_disconnected_seconds", "How long the control plane has been gone, or not been reached; the configuration is as old. 0 while it is connected.", func() float64 {
		st := s.xds.Status()
		if st.Connected {
			return 0
		}
		return time.Since(st.Since).Seconds()
	})
	s.metrics.CounterFunc("fairlead_xds_responses_total", "Responses of the control plane.", func() uint64 { return s.xds.Status().Responses })
	s.metrics.CounterFunc("fairlead_xds_rejected_resources_total", "Resources that were refused.", func() uint64 { return s.xds.Status().Rejected })
}
