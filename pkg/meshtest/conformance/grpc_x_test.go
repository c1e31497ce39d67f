package conformance_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// interopCases are those of gRPC's interop suite that need no credentials of a cloud's
// (https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md), but for
// pick_first_unary, which fails without a proxy, too: grpc-go's server says no name.
func interopCases() []string {
	return []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
		"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service", "rpc_soak", "channel_soak", "orca_per_rpc", "orca_oob",
	}
}

func TestGRPCInterop(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar", "google.golang.org/grpc/interop/client", "google.golang.org/grpc/interop/server")
	app := freeport.For(t)
	run(t, filepath.Join(bin, "server"), "-port", fmt.Sprint(app))
	await(t, app)
	one := sidecar(t, bin, overHTTP2, "", app)
	two := sidecar(t, bin, overHTTP2, "", sidecar(t, bin, overHTTP2, "", app).port)
	for name, s := range map[string]side{"through one sidecar": one, "through two sidecars": two} {
		for _, c := range interopCases() {
			t.Run(name+" "+c, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := exec.CommandContext(ctx, filepath.Join(bin, "client"), "-server_host", "127.0.0.1", "-server_port", fmt.Sprint(s.port),
					"-test_case", c,
					"-service_config_json", `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`, // for the ORCA cases
					"-soak_iterations", "50", "-soak_overall_timeout_seconds", "50", "-soak_num_threads", "5")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
		calls := strings.Join(s.metrics(t, "fairlead_grpc_calls_total"), "\n")
		for _, status := range []string{"OK", "UNKNOWN", "UNIMPLEMENTED", "CANCELLED"} {
			if !strings.Contains(calls, `grpc_status="`+status+`"`) {
				t.Errorf("%s: no call was counted as %s:\n%s", name, status, calls)
			}
		}
		t.Log(calls)
	}
}
