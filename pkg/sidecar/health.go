package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

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
	probe, err := probeOf(w)
	if err != nil {
		return fmt.Errorf("--health-path: %w", err)
	}
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
func probeOf(w Workload) (health.Probe, error) {
	service, isGRPC := strings.CutPrefix(w.HealthPath, grpcPrefix)
	switch {
	case isGRPC && !utf8.ValidString(service):
		return nil, errors.New("must be UTF-8")
	case isGRPC:
		return grpcProbe(w.AppAddr, service), nil
	case w.HealthPath == "":
		return health.TCP(w.AppAddr)
	case !strings.HasPrefix(w.HealthPath, "/"):
		return nil, fmt.Errorf("begins neither with / nor with %s", grpcPrefix)
	default:
		return health.HTTP(w.AppAddr, w.HealthPath)
	}
}

// grpcProbe asks by the gRPC health checking protocol (grpc.health.v1).
//
// Each check opens a connection of its own, as those over HTTP do, and for one reason
// more: a channel that is kept backs off for up to two minutes while the application is
// away, and would not look whether it is back. Nor does it go through a proxy.
func grpcProbe(address, service string) health.Probe {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			return err
		}
		if r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("it says %s", r.GetStatus())
		}
		return nil
	}
}
