package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/call"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// sagas is the coordinator of sagas in this process, and what passes on to those of other replicas. It has a store of its own, so that
// sagas cannot fill or stall the mesh's. An embedded one starts with the first saga, or where there is one from before.
//
// It implements rpc.Backend. Who starts a saga waits until the coordinator is there; who asks for one finds none until it is wanted.
type sagas struct {
	plane *controlPlane
	addr  string // where others reach the gRPC API; empty: they do not
	none  error  // why there are none here; nil: there are

	want chan struct{} // closed when the coordinator is wanted
	once sync.Once

	mu      sync.Mutex
	all     *rpc.Replicas            // guarded by mu; nil: the coordinator is not there, so far or any more
	here    *coordinator.Coordinator // guarded by mu; its own
	why     error                    // guarded by mu; what it was that keeps it from being there; nil: nothing so far
	changed chan struct{}            // guarded by mu; closed when these have changed
}

// addSagas adds the member that coordinates sagas, and their API to the gRPC server, which is bound to an address. It returns their API over REST.
func (c *controlPlane) addSagas(bound net.Addr) http.Handler {
	if len(c.config.Etcd.Endpoints) > 0 && len(c.config.SagaEtcdEndpoints) == 0 {
		const why = "this control plane may have replicas, which would not know of each other's sagas: start them with --saga-etcd-endpoints, an etcd cluster for sagas"
		rpc.Register(c.grpc, &sagas{none: status.Error(codes.Unimplemented, why)})
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { sagaError(w, http.StatusNotImplemented, why) })
	}
	s := &sagas{plane: c, addr: c.config.sagaPeerAddr(bound), want: make(chan struct{}), changed: make(chan struct{})}
	if s.addr == "" && len(c.config.SagaEtcdEndpoints) > 0 {
		c.log.Warn("other control planes that share --saga-etcd-endpoints do not reach this one, and answer 503 for the sagas that it owns: set --saga-peer-addr to a HOST:PORT where they reach --grpc-addr", "grpc", bound.String())
	}
	if _, err := os.Stat(s.dir()); len(c.config.SagaEtcdEndpoints) > 0 || err == nil {
		s.start()
	}
	c.group.Add("sagas", s.run)
	rpc.Register(c.grpc, s)
	return rest.New(s)
}

// dir is where the embedded etcd of sagas keeps its data.
func (s *sagas) dir() string { return filepath.Join(s.plane.config.DataDir, "sagas") }

func (s *sagas) start() { s.once.Do(func() { close(s.want) }) }

// become notes what is there, or why it is not.
func (s *sagas) become(all *rpc.Replicas, here *coordinator.Coordinator, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.here, s.why = all, here, why
	close(s.changed)
	s.changed = make(chan struct{})
}

// census is of the coordinator, if it is there.
func (s *sagas) census() (c coordinator.Census) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.here != nil {
		c = s.here.Census()
	}
	return c
}

// begin starts the coordinator for the first saga, unless its disk has no room: then its etcd would end, and this process with it. The error is coordinator.ErrFull, or of the disk.
func (s *sagas) begin() error {
	if s.none != nil {
		return s.none
	}
	select {
	case <-s.want:
		return nil
	default:
	}
	free, err := freeAt(s.plane.config.DataDir)
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if free < sagaReserve {
		return fmt.Errorf("%w: the disk of --data-dir has %d MiB free, of %d that are kept for what is written besides", coordinator.ErrFull, free>>20, sagaReserve>>20)
	}
	s.start()
	return nil
}

// replicas returns the sagas of all replicas, once they are there, or nil if nobody has wanted them. It waits for a start, and, as for a shard's owner, for a store that does not serve.
func (s *sagas) replicas(ctx context.Context) (*rpc.Replicas, error) {
	if s.none != nil {
		return nil, s.none
	}
	select {
	case <-s.want:
	default:
		return nil, nil //nolint:nilnil // there are none, and that is no error
	}
	limit := time.NewTimer(coordinator.OwnerPatience)
	defer limit.Stop()
	for expired := false; ; {
		s.mu.Lock()
		all, why, changed := s.all, s.why, s.changed
		s.mu.Unlock()
		switch {
		case all != nil:
			return all, nil
		case why != nil && expired:
			return nil, fmt.Errorf("%w: %w", coordinator.ErrNotOwner, why)
		}
		select {
		case <-changed:
		case <-limit.C:
			expired = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// of is replicas of who asks for a saga: coordinator.ErrNotFound if there cannot be one.
func (s *sagas) of(ctx context.Context, id string) (*rpc.Replicas, error) {
	all, err := s.replicas(ctx)
	if err == nil && all == nil {
		err = fmt.Errorf("%w: %s", coordinator.ErrNotFound, id)
	}
	return all, err
}

// Start implements coordinator.Sagas.
func (s *sagas) Start(ctx context.Context, d *saga.Definition) (*coordinator.View, error) {
	select {
	case <-s.want:
	default:
		if err := d.Check(); err != nil { // for which no etcd is started
			return nil, err
		}
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	all, err := s.replicas(ctx)
	if err != nil {
		return nil, err
	}
	return all.Start(ctx, d)
}

// Get implements coordinator.Sagas.
func (s *sagas) Get(ctx context.Context, id string) (*coordinator.View, error) {
	all, err := s.of(ctx, id)
	if err != nil {
		return nil, err
	}
	return all.Get(ctx, id)
}

// Verbs implements coordinator.Sagas.
func (s *sagas) Verbs(ctx context.Context, id string) ([]coordinator.Verb, error) {
	all, err := s.of(ctx, id)
	if err != nil {
		return nil, err
	}
	return all.Verbs(ctx, id)
}

// Wait implements coordinator.Sagas.
func (s *sagas) Wait(ctx context.Context, id string) (*coordinator.View, error) {
	all, err := s.of(ctx, id)
	if err != nil {
		return nil, err
	}
	return all.Wait(ctx, id)
}

// List implements coordinator.Sagas.
func (s *sagas) List(ctx context.Context, q coordinator.Query) ([]coordinator.Summary, bool, error) {
	all, err := s.replicas(ctx)
	if err != nil || all == nil {
		return nil, false, err
	}
	return all.List(ctx, q)
}

// Do implements coordinator.Sagas.
func (s *sagas) Do(ctx context.Context, id string, v coordinator.Verb) error {
	all, err := s.of(ctx, id)
	if err != nil {
		return err
	}
	return all.Do(ctx, id, v)
}

// Here implements rpc.Backend.
func (s *sagas) Here(ctx context.Context) (*coordinator.Coordinator, error) {
	all, err := s.replicas(ctx)
	if err == nil && all == nil {
		err = coordinator.ErrNotOwner
	}
	if err != nil {
		return nil, err
	}
	return all.Here(ctx)
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

// unusedHeap is how much of the heap nobody writes to, so that it is not resident, while sagas are coordinated: the garbage collector waits until as much again is
// garbage, beside what is in use.
const unusedHeap = 64 << 20

// The pause before a store that does not serve is opened again grows from the one to the other.
const (
	minReopen = time.Second
	maxReopen = 30 * time.Second
)

// run waits until the coordinator is wanted, and runs it until ctx ends. A store that does not open, or fails, is opened again and again: the mesh goes on meanwhile.
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
	// Sagas leave much behind and keep little: the collector would begin anew all the time.
	unused := make([]byte, unusedHeap)
	defer runtime.KeepAlive(unused)
	meter := newSagaMeter(s.plane.metrics)
	observeSagas(s.plane.metrics, s.census)
	for pause := minReopen; ; pause = min(2*pause, maxReopen) {
		begun := time.Now()
		err := s.coordinate(ctx, caller, meter)
		if ctx.Err() != nil || errors.Is(err, etcdstore.ErrAuthorities) || errors.Is(err, etcdstore.ErrCertificate) {
			return err
		}
		if time.Since(begun) > 2*maxReopen {
			pause = minReopen
		}
		s.plane.log.Error("sagas stand still, for their store does not serve; it is opened again", "error", err, "in", pause)
		s.become(nil, nil, err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// coordinate runs the coordinator on its store until ctx ends, or the store fails.
func (s *sagas) coordinate(ctx context.Context, caller coordinator.Caller, meter coordinator.Meter) error {
	opened, err := s.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	co := coordinator.New(coordinator.Config{
		Store: opened.store, Caller: caller, Name: replicaID(), Addr: s.addr, Alone: opened.defragment != nil, Defragment: opened.defragment,
		Retention: s.plane.config.SagaRetention, Trace: s.trace, Meter: meter, Log: s.plane.log.With("part", "sagas"),
	})
	all := rpc.NewReplicas(co, s.plane.tracer.DialOption())
	s.become(all, co, nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- co.Run(ctx) }()
	select {
	case err = <-opened.failed:
		cancel()
	case <-ctx.Done():
	}
	err = errors.Join(err, <-ran)
	all.Close()
	return errors.Join(err, opened.stop())
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
	disk := onDisk{server.Store(), s.dir()}
	return sagaStore{disk, server.Stop, disk.defragmenting(server.Defragment), server.Err()}, nil
}
