package controlplane

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/loopback"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
)

const index = `Fairlead control plane

/v1/services      the registry: what there is and how to use it is in /openapi.json
/v1/sidecars      the connected sidecars, and what each has applied or refused
/v1/watch         every change, as lines of JSON
/v1/sagas         transactions across services: docs/saga.md
/openapi.json     the API
/metrics          for Prometheus
/healthz          200 while the process serves
/readyz           200 when the store was read
`

// serveHTTP adds the member that serves REST, metrics and probes.
func (c *controlPlane) serveHTTP(l net.Listener, sagas http.Handler) {
	mux := http.NewServeMux()
	mux.Handle("/v1/", c.tracer.Middleware(c.rest))
	mux.Handle("/v1", c.rest)
	sagas = c.tracer.Middleware(sagas)
	mux.Handle("/v1/sagas", sagas)
	mux.Handle("/v1/sagas/", sagas)
	mux.Handle("/openapi.json", describe(c.rest))
	mux.Handle("GET /metrics", c.metrics.Handler())
	mux.Handle("GET /readyz", c.ready)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, index) })
	handler := c.rest.WithoutRedirects(mux)
	if mesh.IsLoopback(c.config.HTTPAddr) {
		handler = loopback.Guard("the control plane", handler)
	}
	server := &http.Server{
		Handler:        handler,
		ReadTimeout:    30 * time.Second,
		WriteTimeout:   30 * time.Second, // the watch sets its own
		IdleTimeout:    time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	server.RegisterOnShutdown(c.rest.EndWatches)
	c.group.Add("http", func(ctx context.Context) error {
		served := make(chan error, 1)
		go func() { served <- server.Serve(netutil.LimitListener(l, maxConnections)) }()
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // those that did not finish in time
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return c.rest.Close()
	})
}

// observe makes the metrics that are read from what is.
func (c *controlPlane) observe() {
	c.metrics.GaugeFunc("fairlead_store_revision", "Newest revision of the store that is in force here.", func() float64 {
		return float64(c.reconciler.Mirror().Revision())
	})
	c.metrics.GaugeFunc("fairlead_store_silence_seconds", "Time since the store was last heard of.", func() float64 {
		last := c.reconciler.Mirror().LastProgress()
		if last.IsZero() {
			return 0
		}
		return time.Since(last).Seconds()
	})
	c.metrics.Collect("fairlead_registry_instances", "Registered instances.", metrics.KindGauge, []string{"service", "usable"}, c.countInstances)
	c.metrics.GaugeFunc("fairlead_registry_faulty_keys", "Keys in the store whose values were set aside.", func() float64 {
		return float64(len(c.view.Faulty()))
	})
	c.metrics.GaugeFunc("fairlead_registry_held_instances", "Lost instances that the data planes keep, because most of a service was lost at once.", func() float64 {
		return float64(c.reconciler.HeldCount())
	})
	c.metrics.GaugeFunc("fairlead_xds_streams", "Open xDS streams.", func() float64 { return float64(c.cache.Stats().Streams) })
	c.metrics.GaugeFunc("fairlead_xds_subscriptions", "Resources subscribed to by name, over all streams.", func() float64 {
		return float64(c.cache.Stats().Subscriptions)
	})
	c.metrics.CounterFunc("fairlead_xds_pushes_total", "Responses sent.", func() uint64 { return c.cache.Stats().Pushes })
	c.metrics.CounterFunc("fairlead_xds_pushed_bytes_total", "Bytes of resources sent.", func() uint64 { return c.cache.Stats().PushedBytes })
	c.metrics.CounterFunc("fairlead_xds_acks_total", "Responses that clients acknowledged.", func() uint64 { return c.cache.Stats().Acks })
	c.metrics.CounterFunc("fairlead_xds_nacks_total", "Responses that clients refused, in whole or in part.", func() uint64 { return c.cache.Stats().Nacks })
	c.metrics.CounterFunc("fairlead_xds_refused_streams_total", "Streams refused because there were too many.", func() uint64 {
		return c.cache.Stats().RefusedStreams
	})
}

func (c *controlPlane) countInstances(emit metrics.Emit) {
	services, _ := c.view.Services("")
	for _, s := range services {
		usable := 0
		for _, i := range s.Instances {
			if discovery.Usable(i.Instance) {
				usable++
			}
		}
		emit(float64(usable), s.Name.String(), "true")
		emit(float64(len(s.Instances)-usable), s.Name.String(), "false")
	}
}
