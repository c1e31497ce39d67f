package controlplane

import (
	"context"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/mgmt"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

const (
	// maxConnections of each listener; the next ones wait in the kernel's backlog. It
	// leaves descriptors for the store within the usual limit of 20,000.
	maxConnections = 9_000
	// maxStreamsPerConnection of gRPC: a sidecar has two.
	maxStreamsPerConnection = 1_000
	// callTimeout bounds a call whose client set no deadline.
	callTimeout = 10 * time.Second
)

// serveGRPC adds the member that serves ADS and the API.
func (c *controlPlane) serveGRPC(l net.Listener) error {
	calls := c.metrics.CounterVec("fairlead_api_calls_total", "Calls of the API that ended.", "method", "code")
	c.grpc = grpc.NewServer(
		// A peer that froze or lost its network is found within 15 s.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(maxStreamsPerConnection),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.Creds(mgmt.Credentials(insecure.NewCredentials())),
		// Streams that live for days make no spans.
		c.tracer.ServerOption("/envoy.service.discovery.", "/mesh.v1.Attachment/", "/mesh.v1.Registry/Watch", "/grpc."),
		grpc.ChainUnaryInterceptor(c.unary(calls)),
		grpc.ChainStreamInterceptor(c.stream(calls)),
	)
	c.ads = xdsserver.NewServer(c.cache)
	c.ads.Register(c.grpc)
	api := mgmt.New(mgmt.Config{
		Registry: c.registry, View: c.view, Policies: c.policies, Cache: c.cache, Holder: c.reconciler, Log: c.log,
	})
	api.Register(c.grpc)
	healthpb.RegisterHealthServer(c.grpc, &healthService{ready: c.ready.OK, Server: health.NewServer()})
	reflection.Register(c.grpc)
	var err error
	if c.rest, err = mgmt.NewREST(api, c.tracer.DialOption()); err != nil {
		return err
	}
	c.onAbandon(func() { _ = c.rest.Close() })
	c.onAbandon(c.grpc.Stop)
	c.group.Add("grpc", func(ctx context.Context) error {
		var serving sync.WaitGroup
		defer serving.Wait()
		// Memory has no errors of its own: it ends when the server stops.
		serving.Go(func() { _ = c.grpc.Serve(c.rest.Listener()) })
		failed := make(chan error, 1)
		serving.Go(func() { failed <- c.grpc.Serve(netutil.LimitListener(l, maxConnections)) })
		select {
		case err := <-failed:
			c.grpc.Stop()
			return err
		case <-ctx.Done():
			c.stopGRPC(api)
			return nil
		}
	})
	return nil
}

// stopGRPC ends the streams a part at a time, so that their clients do not all come
// to the next replica at once, and then the calls.
func (c *controlPlane) stopGRPC(api *mgmt.API) {
	var stopping sync.WaitGroup
	defer stopping.Wait()
	stopping.Go(c.grpc.GracefulStop) // which makes clients connect elsewhere for what is new
	if n := c.cache.Stats().Streams; n > 0 {
		c.log.Info("draining", "streams", n, "over", c.config.DrainTime)
		c.ads.Drain(context.Background(), c.config.DrainTime)
	}
	api.Close()
	patience := time.AfterFunc(stopTime, c.grpc.Stop)
	stopping.Wait()
	patience.Stop()
}

// unary bounds, counts and secures a call.
func (c *controlPlane) unary(calls *metrics.CounterVec) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
		defer c.account(calls, info.FullMethod, &err)
		if _, bounded := ctx.Deadline(); !bounded {
			limit := callTimeout
			if info.FullMethod == sagav1.Sagas_Wait_FullMethodName { // which has a bound of its own
				limit += coordinator.MaxWait
			}
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		return handler(ctx, request)
	}
}

func (c *controlPlane) stream(calls *metrics.CounterVec) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer c.account(calls, info.FullMethod, &err)
		return handler(server, stream)
	}
}

// account is deferred: it counts how a call ended, and keeps a panic in it from
// ending the process.
func (c *controlPlane) account(calls *metrics.CounterVec, method string, err *error) {
	if p := recover(); p != nil {
		c.log.Error("a call panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the control plane made a mistake; its log says more")
	}
	code := status.Code(*err)
	calls.With(strings.TrimPrefix(method, "/"), code.String()).Inc()
	if code == codes.Internal || code == codes.Unknown {
		c.log.Warn("a call failed", "method", method, "error", *err)
	}
}

// healthService answers whether the control plane is ready, by the gRPC health
// protocol.
type healthService struct {
	*health.Server
	ready func() bool
}

// Check implements the protocol.
func (h *healthService) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	answer := &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
	if h.ready() {
		answer.Status = healthpb.HealthCheckResponse_SERVING
	}
	return answer, nil
}
