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
	if len(c.config.Etcd.Endpoints) > 0 && len(c.config.SagaEtcdEndpoints) == 0 {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			sagaError(w, http.StatusNotImplemented, "this control plane may have replicas, which would not know of each other's sagas: start them with --saga-etcd-endpoints, an etcd cluster for sagas")
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
	caller, closeCaller := s.caller(ctx)
	if caller == nil {
		return nil
	}
	defer closeCaller()
	c := s.plane.config
	opened, err := s.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	co := coordinator.New(coordinator.Config{
		Store: opened.store, Caller: caller, Name: replicaID(), Alone: opened.defragment != nil, Defragment: opened.defragment,
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

// caller returns what makes the calls, and what closes that. Instances are called once it is known which there are, or else none would seem
// to be. If ctx ends before, it returns nil.
func (s *sagas) caller(ctx context.Context) (_ coordinator.Caller, closeCaller func()) {
	if direct := s.plane.direct; direct != nil {
		select {
		case <-s.plane.synced:
			return direct, direct.Close
		case <-ctx.Done():
			return nil, nil
		}
	}
	egress := call.NewEgress(s.plane.config.SagaEgress, s.plane.tracer)
	return egress, egress.Close
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
