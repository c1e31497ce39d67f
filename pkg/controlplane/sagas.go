package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// sagas is the coordinator of sagas in this process. It has a store of its own, so that sagas cannot fill or stall the mesh's. An
// embedded one starts with the first saga, or where there is one from before.
type sagas struct {
	plane *controlPlane

	want chan struct{} // closed when the coordinator is wanted
	once sync.Once
	up   chan struct{} // closed when handler is there
	rest http.Handler
}

// addSagas adds the member that coordinates sagas, and returns their API.
func (c *controlPlane) addSagas() http.Handler {
	if c.config.SagaEgress == "" {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			sagaError(w, http.StatusNotImplemented, "this control plane coordinates no sagas: start it with --saga-egress, the port of a sidecar for outgoing requests, through which steps are called")
		})
	}
	s := &sagas{plane: c, want: make(chan struct{}), up: make(chan struct{})}
	if _, err := os.Stat(s.dir()); len(c.config.SagaEtcdEndpoints) > 0 || err == nil {
		s.start()
	}
	c.group.Add("sagas", s.run)
	return s
}

// dir is where the embedded etcd of sagas keeps its data.
func (s *sagas) dir() string { return filepath.Join(s.plane.config.DataDir, "sagas") }

func (s *sagas) start() { s.once.Do(func() { close(s.want) }) }

// ServeHTTP implements http.Handler. Who starts a saga waits until the coordinator is there; who asks for one finds none until then.
func (s *sagas) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.start()
	}
	select {
	case <-s.want:
	default:
		if r.URL.Path == "/v1/sagas" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{\"sagas\":[]}\n"))
			return
		}
		sagaError(w, http.StatusNotFound, coordinator.ErrNotFound.Error())
		return
	}
	select {
	case <-s.up:
		s.rest.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

func sagaError(w http.ResponseWriter, status int, text string) {
	b, err := json.Marshal(map[string]any{"code": status, "message": text})
	if err != nil {
		http.Error(w, text, status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}

// run waits until the coordinator is wanted, and runs it until ctx ends.
func (s *sagas) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.want:
	}
	c := s.plane.config
	opened, err := s.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	egress := call.NewEgress(c.SagaEgress, s.plane.tracer)
	defer egress.Close()
	co := coordinator.New(coordinator.Config{
		Store: opened.store, Caller: egress, Name: replicaID(), Alone: opened.defragment != nil, Defragment: opened.defragment,
		Retention: c.SagaRetention, Trace: s.trace, Meter: newSagaMeter(s.plane.metrics), Log: s.plane.log.With("part", "sagas"),
	})
	observeSagas(s.plane.metrics, co)
	s.rest = rest.New(co)
	close(s.up)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- co.Run(ctx) }()
	select {
	case err = <-opened.failed:
		cancel()
	case <-ctx.Done():
	}
	return errors.Join(err, <-ran, opened.stop())
}

// trace returns the traceparent of a request that starts a saga: of its span here, or of its caller's if nobody here records spans. All calls of the saga are below it.
func (s *sagas) trace(ctx context.Context) string {
	c, ok := tracing.FromContext(ctx)
	if !ok {
		return "" // who asks began none, and nobody here does
	}
	return string(tracing.AppendTraceParent(nil, &c))
}

// sagaStore is a store of sagas, a cluster or an embedded etcd of their own: the latter alone has defragment, and failed, which tells of its end.
type sagaStore struct {
	store      store.Store
	stop       func() error
	defragment func(context.Context) error
	failed     <-chan error
}

// open opens the store.
func (s *sagas) open(ctx context.Context) (sagaStore, error) {
	c := s.plane.config
	if len(c.SagaEtcdEndpoints) > 0 {
		user, password, _ := strings.Cut(c.Etcd.User, ":")
		cluster, err := etcdstore.New(ctx, etcdstore.Config{
			Endpoints: c.SagaEtcdEndpoints, CACert: c.Etcd.CACert, Cert: c.Etcd.Cert, Key: c.Etcd.Key, User: user, Password: password, Logger: s.plane.log,
		})
		if err != nil {
			return sagaStore{}, fmt.Errorf("--saga-etcd-endpoints: %w", err)
		}
		return sagaStore{store: cluster, stop: cluster.Close}, nil
	}
	server, err := etcdembed.Start(ctx, etcdembed.Config{DataDir: s.dir(), QuotaBytes: c.SagaQuota, Logger: s.plane.log})
	if err != nil {
		return sagaStore{}, fmt.Errorf("--data-dir: the etcd of sagas: %w", err)
	}
	return sagaStore{server.Store(), server.Stop, server.Defragment, server.Err()}, nil
}
