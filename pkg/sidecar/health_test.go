package sidecar

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

const (
	serving    = grpc_health_v1.HealthCheckResponse_SERVING
	notServing = grpc_health_v1.HealthCheckResponse_NOT_SERVING
)

// grpcApp is an application that says how it is by the gRPC health protocol. At port 0
// it takes one that is free.
func grpcApp(t *testing.T, address string, app grpc_health_v1.HealthServer) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, app)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	stop = func() {
		server.Stop()
		<-ended
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// ask checks an application once.
func ask(t *testing.T, address, path string, timeout time.Duration) error {
	t.Helper()
	probe, err := probeOf(Workload{AppAddr: address, HealthPath: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return probe(ctx)
}

func TestGRPCHealthIsWhatTheApplicationSaysOfTheService(t *testing.T) {
	app := health.NewServer()
	app.SetServingStatus("", serving)
	app.SetServingStatus("shop.Orders", serving)
	app.SetServingStatus("shop.Stock", notServing)
	app.SetServingStatus("shop.New", grpc_health_v1.HealthCheckResponse_UNKNOWN)
	address, _ := grpcApp(t, "127.0.0.1:0", app)
	for path, why := range map[string]string{
		"grpc:":            "",
		"grpc:shop.Orders": "",
		"grpc:shop.Stock":  "it says NOT_SERVING",
		"grpc:shop.New":    "it says UNKNOWN",
		"grpc:shop.Other":  "unknown service",
	} {
		err := ask(t, address, path, time.Minute)
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
}

// silent never answers.
type silent struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (silent) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestGRPCHealthOfAnApplicationThatHangsEndsWithTheCheck(t *testing.T) {
	answersNothing, _ := grpcApp(t, "127.0.0.1:0", silent{})
	l, err := net.Listen("tcp", "127.0.0.1:0") // whose connections nobody takes
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, address := range []string{answersNothing, l.Addr().String()} {
		if err := ask(t, address, "grpc:", 50*time.Millisecond); err == nil {
			t.Errorf("%s is well", address)
		}
	}
}

func TestGRPCHealthSeesAnApplicationAsSoonAsItIsBack(t *testing.T) {
	app := health.NewServer()
	address, stop := grpcApp(t, "127.0.0.1:0", app)
	probe, err := probeOf(Workload{AppAddr: address, HealthPath: "grpc:"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := probe(t.Context()); err != nil {
			t.Fatal("while it is there:", err)
		}
		stop()
		for range 4 { // often enough for a channel to hold back
			if err := probe(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
				t.Fatal("while it is away:", err)
			}
		}
		_, stop = grpcApp(t, address, app)
	}
	if err := probe(t.Context()); err != nil {
		t.Error("once it is back:", err)
	}
}
