package controlplane_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

// commandLine is the environment variable that turns the test binary into the command.
const commandLine = "FAIRLEAD_TEST_COMMAND"

// startCommand runs the command in a process of its own, and waits until the port for HTTP says that it is ready. What stop
// returns is its exit code after a SIGTERM, and all that it wrote.
func startCommand(t *testing.T, httpAddr string, args ...string) (stop func() (code int, wrote string)) {
	t.Helper()
	var wrote bytes.Buffer
	command := exec.Command(os.Args[0], args...)
	command.Env = append(os.Environ(), commandLine+"=1")
	command.Stdout, command.Stderr = &wrote, &wrote
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, ended := context.WithCancel(context.Background())
	go func() { defer ended(); _ = command.Wait() }() // how it ended is in its state
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ctx.Done()
	})
	eventually(t, "it is ready", func() bool {
		if ctx.Err() != nil {
			t.Fatalf("%v: %s", command.ProcessState, wrote.String())
		}
		return ask("http://"+httpAddr+"/readyz") != ""
	})
	return func() (int, string) {
		t.Helper()
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		return command.ProcessState.ExitCode(), wrote.String()
	}
}

func TestFlagsOfTheControlPlaneReachWhatTheyAreFor(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{GRPCAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	data := filepath.Join(t.TempDir(), "data")
	grpcAddr, httpAddr, etcdAddr := freeAddress(t), freeAddress(t), freeAddress(t)
	_, httpPort, _ := strings.Cut(httpAddr, ":")
	stop := startCommand(t, httpAddr,
		"--data-dir", data, "--grpc-addr", grpcAddr, "--http-addr", "0.0.0.0:"+httpPort, "--insecure", "--etcd-listen", etcdAddr,
		"--trust-domain", "mesh.example", "--otlp-endpoint", spans.GRPCEndpoint(), "--trace-ratio", "0", "--log-level", "warn")
	if _, err := os.Stat(filepath.Join(data, "etcd")); err != nil {
		t.Errorf("--data-dir: %v", err)
	}
	put(t, etcdctl(t, controlplane.Addresses{Etcd: etcdAddr}), 0, "/fairlead/v1/instances/default/orders/a1", documented(1))
	eventually(t, "the instance is registered", func() bool {
		return ask("http://"+httpAddr+"/v1/namespaces/default/services/orders/instances/a1") != ""
	})
	answered(t, healthv1.NewHealthClient(dialAPI(t, grpcAddr)))
	orders := "http://" + httpAddr + "/v1/namespaces/default/services/orders/instances"
	of := func(domain string) string {
		return `{"id":"a2","address":"127.0.0.1","ports":[{"number":1}],"identity":"spiffe://` + domain + `/ns/default/sa/orders"}`
	}
	if posted(t, orders, of("cluster.local")) {
		t.Error("--trust-domain: an identity of another one is registered")
	}
	if !posted(t, orders, of("mesh.example")) {
		t.Error("--trust-domain: an identity of it is refused")
	}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, orders, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	if code, wrote := stop(); code != 0 || wrote != "" {
		t.Errorf("--log-level: exit code %d, and it wrote %s", code, wrote)
	}
	if len(spans.Trace(trace)) == 0 {
		t.Error("--otlp-endpoint: no span came")
	}
	for _, s := range spans.Spans() {
		if s.TraceID != trace {
			t.Errorf("--trace-ratio: %+v was not asked for", s)
		}
	}
}

func TestDamagedDataAreAnErrorThatSaysWhere(t *testing.T) {
	data := t.TempDir()
	log := filepath.Join(data, "etcd", "member", "wal", "0000000000000000-0000000000000000.wal")
	if err := os.MkdirAll(filepath.Join(data, "etcd", "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0], "--data-dir", data, "--grpc-addr", freeAddress(t), "--http-addr", freeAddress(t))
	command.Env = append(os.Environ(), commandLine+"=1")
	wrote, err := command.CombinedOutput()
	if command.ProcessState.ExitCode() != 1 || !strings.Contains(string(wrote), data) || !strings.Contains(string(wrote), "damaged") || strings.Contains(string(wrote), "goroutine ") {
		t.Errorf("%v: %s", err, wrote)
	}
}
