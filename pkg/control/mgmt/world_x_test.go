package mgmt_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/mgmt"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/control/reconcile"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a control plane whose clients reach it through memory, so that it can
// live in a bubble of its own time.
type world struct {
	t     *testing.T
	store *memstore.Store
	view  *discovery.View
	cache *xdsserver.Cache
	api   *mgmt.API
	rest  *mgmt.REST

	conn *grpc.ClientConn // the first client's
	web  *http.Client
	dial func(...grpc.DialOption) *grpc.ClientConn // makes another client

	handlers atomic.Int64 // of streams and of REST, that have not returned

	registry   *discovery.Registry
	reconciler *reconcile.Reconciler
}

// inBubble runs a test in a bubble, with a control plane that has read its store.
func inBubble(t *testing.T, test func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.follow()
		test(t, w)
	})
}

// newWorld serves, but has not read its store.
func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	w := &world{t: t, store: memstore.New(), view: discovery.NewView(log, "mesh"), cache: xdsserver.NewCache(log)}
	policies := policy.New(w.store, log)
	w.registry = discovery.NewRegistry(discovery.RegistryConfig{Store: w.store, View: w.view, Replica: "r1", Log: log})
	var err error
	w.reconciler, err = reconcile.New(reconcile.Config{
		Store: w.store, View: w.view, Policies: policies, Cache: w.cache, OnSynced: func() {}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.api = mgmt.New(mgmt.Config{Registry: w.registry, View: w.view, Policies: policies, Cache: w.cache, Holder: w.reconciler, Log: log})
	w.serve()
	return w
}

// serve makes the servers and the clients.
func (w *world) serve() {
	w.t.Helper()
	server := grpc.NewServer(grpc.Creds(mgmt.Credentials(insecure.NewCredentials())), grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		w.handlers.Add(1)
		defer w.handlers.Add(-1)
		return handler(srv, s)
	}))
	ads := xdsserver.NewServer(w.cache)
	ads.Register(server)
	w.api.Register(server)
	var err error
	if w.rest, err = mgmt.NewREST(w.api); err != nil {
		w.t.Fatal(err)
	}
	grpcListener, httpListener := bufconn.Listen(32<<10), newPipes()
	web := &http.Server{Handler: http.HandlerFunc(func(answer http.ResponseWriter, q *http.Request) {
		w.handlers.Add(1)
		defer w.handlers.Add(-1)
		w.rest.ServeHTTP(answer, q)
	})}
	web.RegisterOnShutdown(w.rest.EndWatches)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(grpcListener) })
	serving.Go(func() { _ = server.Serve(w.rest.Listener()) })
	serving.Go(func() { _ = web.Serve(httpListener) })
	w.t.Cleanup(func() {
		w.api.Close()
		ads.Close()
		_ = web.Close()
		_ = w.rest.Close()
		server.Stop()
		serving.Wait()
		time.Sleep(time.Second) // for which net/http lingers where a body was not read
	})
	w.dial = func(options ...grpc.DialOption) *grpc.ClientConn {
		options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return grpcListener.DialContext(ctx) }))
		conn, err := grpc.NewClient("passthrough:///memory", options...)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	w.conn = w.dial()
	transport := &http.Transport{DialContext: httpListener.dial}
	w.t.Cleanup(transport.CloseIdleConnections)
	w.web = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the API makes none
	}
}

// pipes is a listener in memory for net/http, which needs deadlines that hold: a
// bufconn's may fire after it was lifted.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	close    func()
}

func newPipes() *pipes {
	closed := make(chan struct{})
	return &pipes{accepted: make(chan net.Conn), closed: closed, close: sync.OnceFunc(func() { close(closed) })}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.accepted <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements [net.Listener].
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (p *pipes) Close() error {
	p.close()
	return nil
}

// Addr implements [net.Listener].
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

// follow reads the store, and goes on until the test ends.
func (w *world) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.reconciler.Run(ctx) })
	synctest.Wait()
	running.Go(func() { _ = w.registry.Run(ctx) })
	synctest.Wait()
	w.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// has reports whether an instance is registered.
func (w *world) has(service, id string) bool {
	_, ok := w.view.Instance(discovery.Key{Service: mesh.ServiceName{Name: service, Namespace: mesh.DefaultNamespace}, ID: id})
	return ok
}

// register adds an instance to orders, or another service, or changes it.
func (w *world) register(i *meshv1.Instance) *meshv1.Instance {
	w.t.Helper()
	registered, err := w.registry.Register(w.t.Context(), i)
	if err != nil {
		w.t.Fatal(err)
	}
	return registered
}

func instance(service, id string) *meshv1.Instance {
	return &meshv1.Instance{
		Service: service, Id: id, Address: "10.0.0.1", Ttl: durationpb.New(discovery.MaxTTL),
		Ports: []*meshv1.Port{{Name: "http", Number: 9000}},
	}
}
