package sidecar

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/health"
)

// checkHealth asks the application how it is, and reports that to the registry.
func (s *sidecar) checkHealth(ctx context.Context) error {
	w := s.config.Workload
	probe, stop, err := probeOf(w)
	if err != nil {
		return fmt.Errorf("--health-path: %w", err)
	}
	defer stop()
	checker, err := health.New(health.Config{}, probe, func(state mesh.Health, detail string) {
		if state == mesh.HealthHealthy {
			s.log.Info("the application is well", "app_addr", w.AppAddr)
			s.attachment.setStatus(meshv1.Status_HEALTHY)
			return
		}
		s.log.Warn("the application is unwell", "app_addr", w.AppAddr, "reason", detail)
		s.attachment.setStatus(meshv1.Status_UNHEALTHY)
	})
	if err != nil {
		return err
	}
	return checker.Run(ctx)
}

// grpcPrefix marks a health path that names a gRPC service.
const grpcPrefix = "grpc:"

// probeOf returns the check that a workload asked for: HTTP for a path, gRPC's
// health protocol for grpc:NAME, else that it accepts connections.
func probeOf(w Workload) (probe health.Probe, stop func(), err error) {
	if service, ok := strings.CutPrefix(w.HealthPath, grpcPrefix); ok {
		return grpcProbe(w.AppAddr, service)
	}
	if w.HealthPath != "" {
		probe, err = health.HTTP(w.AppAddr, w.HealthPath)
	} else {
		probe, err = health.TCP(w.AppAddr)
	}
	return probe, func() {}, err
}

// grpcProbe asks by the gRPC health checking protocol (grpc.health.v1).
func grpcProbe(address, service string) (health.Probe, func(), error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	api := grpc_health_v1.NewHealthClient(conn)
	probe := func(ctx context.Context) error {
		r, err := api.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("it says %s", r.GetStatus())
		}
		return nil
	}
	return probe, func() { _ = conn.Close() }, nil
}
