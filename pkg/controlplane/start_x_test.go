package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// loopbackConfig is one that starts.
func loopbackConfig(t *testing.T) controlplane.Config {
	t.Helper()
	return controlplane.Config{DataDir: t.TempDir(), GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0"}
}

// startError is how a control plane ends that must not start.
func startError(t *testing.T, config controlplane.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	config.Ready = func(controlplane.Addresses) { t.Error("it started") }
	return controlplane.Run(ctx, config)
}

// occupied is an address at which somebody else listens.
func occupied(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestFaultyStartNamesTheFlagAndTheReason(t *testing.T) {
	taken := occupied(t)
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.EnableHTTP2 = true
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	t.Cleanup(web.Close)
	stranger := web.Listener.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	type config = controlplane.Config
	type etcd = controlplane.Etcd
	for name, c := range map[string]struct {
		set  func(*config)
		want []string
	}{
		"gRPC for all machines": {
			func(c *config) { c.GRPCAddr = "0.0.0.0:0" },
			[]string{"--grpc-addr 0.0.0.0:0 is not a loopback address", "without certificates, whoever reaches it can register instances and change policies", "--insecure"},
		},
		"no host is every host": {func(c *config) { c.HTTPAddr = ":0" }, []string{"--http-addr :0 is not a loopback address", "--insecure"}},
		"by a name":             {func(c *config) { c.HTTPAddr = "mesh.example:0" }, []string{"--http-addr mesh.example:0 is not a loopback address"}},
		"all faults at once": {
			func(c *config) { c.GRPCAddr, c.HTTPAddr, c.TraceRatio, c.EtcdListen = "[::]:0", "10.0.0.1:0", -1, ":0" },
			[]string{"--grpc-addr [::]:0 is", "--http-addr 10.0.0.1:0 is", "--trace-ratio is -1", "--etcd-listen :0 is"},
		},
		"a store of sagas that is none": {
			func(c *config) { c.SagaEtcdEndpoints = []string{"127.0.0.1:1", "a b"} },
			[]string{"--saga-etcd-endpoints: \"a b\" is not HOST:PORT"},
		},
		"replicas without a store of sagas that they share": {
			func(c *config) { c.SagaEgress, c.Etcd = "127.0.0.1:15001", etcd{Endpoints: []string{"127.0.0.1:1"}} },
			[]string{"--saga-egress with --etcd-endpoints needs --saga-etcd-endpoints"},
		},
		"nowhere for other control planes": {
			func(c *config) { c.SagaPeerAddr, c.SagaEtcdEndpoints = "0.0.0.0:15010", []string{"127.0.0.1:1"} },
			[]string{`--saga-peer-addr "0.0.0.0:15010" is no HOST:PORT where other control planes reach this one`},
		},
		"other control planes without an etcd that they share": {
			func(c *config) { c.SagaPeerAddr = "10.0.0.1:15010" }, []string{"--saga-peer-addr needs --saga-etcd-endpoints"},
		},
		"bounds of sagas": {
			func(c *config) { c.SagaQuota, c.SagaRetention = 9<<30, time.Millisecond },
			[]string{"--saga-etcd-quota is 9216 MiB, not 16MiB to 8GiB", "--saga-retention is 1ms, not 1s to 8760h0m0s"},
		},
		"etcd for all machines, whoever is trusted": {
			func(c *config) { c.EtcdListen, c.Insecure = "0.0.0.0:0", true },
			[]string{"--etcd-listen 0.0.0.0:0 is not a loopback address: whoever reaches it can change everything"},
		},
		"etcdctl at a cluster": {
			func(c *config) { c.EtcdListen, c.Etcd = "127.0.0.1:0", etcd{Endpoints: []string{taken}} },
			[]string{"--etcd-listen is for the embedded etcd, which --etcd-endpoints replaces"},
		},
		"secrets for no cluster": {func(c *config) { c.Etcd.CACert = file }, []string{"--etcd-cacert, --etcd-cert, --etcd-key and --etcd-user need --etcd-endpoints"}},
		"user for no cluster":    {func(c *config) { c.Etcd.User = "a:b" }, []string{"need --etcd-endpoints"}},
		"certificate without key": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, Cert: file} }, []string{"--etcd-cert and --etcd-key need each other"},
		},
		"key without certificate": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, Key: file} }, []string{"--etcd-cert and --etcd-key need each other"},
		},
		"user without password": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, User: "root"} }, []string{"--etcd-user must be NAME:PASSWORD"},
		},
		"password without user": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, User: ":x"} }, []string{"--etcd-user must be NAME:PASSWORD"},
		},
		"no such authorities": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, CACert: "/nonexistent"} },
			[]string{"--etcd-cacert: ", "/nonexistent: no such file"},
		},
		"authorities that are none": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, CACert: file} }, []string{"--etcd-cacert: ", "no certificate in " + file},
		},
		"client certificate that is none": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{taken}, Cert: file, Key: "/nonexistent"} },
			[]string{"--etcd-cert, --etcd-key: etcd client certificate in " + file + " and /nonexistent: "},
		},
		"endpoints that nobody can dial": {
			func(c *config) {
				c.Etcd = etcd{Endpoints: []string{"foo://bar", "nohost", "http://a", "a:0", "127.0.0.1:2379"}}
			},
			[]string{
				`--etcd-endpoints: "foo://bar" is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH`,
				`--etcd-endpoints: "nohost" is not`, `--etcd-endpoints: "http://a" is not`, `--etcd-endpoints: "a:0" is not`,
			},
		},
		"cluster that is not there": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"}} },
			[]string{"--etcd-endpoints: no answer from etcd at 127.0.0.1:1, 127.0.0.1:2", "connection refused"},
		},
		"cluster that is not there, with a user": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{"127.0.0.1:1"}, User: "a:b"} },
			[]string{"--etcd-endpoints: connect to etcd at 127.0.0.1:1", "connection refused"},
		},
		"cluster that nobody vouches for": {
			func(c *config) { c.Etcd = etcd{Endpoints: []string{"https://" + stranger}} },
			[]string{"--etcd-endpoints: no answer from etcd at https://" + stranger, "certificate signed by unknown authority"},
		},
		"trust domain":           {func(c *config) { c.TrustDomain = "UPPER" }, []string{`--trust-domain "UPPER": trust domain must consist of a-z`}},
		"trace ratio":            {func(c *config) { c.TraceRatio = 2 }, []string{"--trace-ratio is 2, not 0 to 1"}},
		"trace ratio, no number": {func(c *config) { c.TraceRatio = math.NaN() }, []string{"--trace-ratio is NaN, not 0 to 1"}},
		"drain time":             {func(c *config) { c.DrainTime = -time.Hour }, []string{"--drain-time is -1h0m0s"}},
		"otlp endpoint":          {func(c *config) { c.OTLPEndpoint = "nowhere" }, []string{"--otlp-endpoint"}},
		"gRPC port taken":        {func(c *config) { c.GRPCAddr = taken }, []string{"--grpc-addr", taken, "address already in use"}},
		"HTTP port taken":        {func(c *config) { c.HTTPAddr = taken }, []string{"--http-addr", taken, "address already in use"}},
		"etcd port taken":        {func(c *config) { c.EtcdListen = taken }, []string{"--etcd-listen", taken, "address already in use"}},
		"data dir is a file":     {func(c *config) { c.DataDir = file }, []string{"--data-dir", file, "not a directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := loopbackConfig(t)
			c.set(&config)
			err := startError(t, config)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

func TestCommandTellsAMisuseFromAFailure(t *testing.T) {
	for _, c := range []struct {
		flag, value, want string
		misuse            bool
	}{
		{"--grpc-addr", "0.0.0.0:0", "is not a loopback address", true},
		{"--drain-time", "0s", "--drain-time is 0s", true},
		{"--otlp-endpoint", "nowhere", `--otlp-endpoint "nowhere": want grpc://host:port`, true},
		{"--etcd-endpoints", "foo://bar", `"foo://bar" is not HOST:PORT`, true},
		{"--etcd-user", "root", "NAME:PASSWORD", true},
		{"--grpc-addr", occupied(t), "address already in use", false},
	} {
		command := controlplane.Command()
		command.SetArgs([]string{c.flag, c.value, "--data-dir", t.TempDir(), "--http-addr", "127.0.0.1:0"})
		command.SilenceErrors, command.SilenceUsage = true, true
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // so that one that starts, though it must not, ends
		err := command.ExecuteContext(ctx)
		cancel()
		var misuse *flags.UsageError
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.As(err, &misuse) != c.misuse {
			t.Errorf("%s %s: %v (misuse: %v)", c.flag, c.value, err, misuse != nil)
		}
	}
}

func TestEmptyDataDirIsRefused(t *testing.T) {
	command := controlplane.Command()
	command.SetArgs([]string{"--data-dir", "", "--grpc-addr", occupied(t)}) // taken, so that it ends even if it must not start
	command.SilenceErrors, command.SilenceUsage = true, true
	if err := command.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "--data-dir is empty") {
		t.Errorf("%v", err)
	}
}

func TestInsecureOpensThePortsToOthers(t *testing.T) {
	config := loopbackConfig(t)
	config.GRPCAddr, config.HTTPAddr, config.Insecure = "0.0.0.0:0", ":0", true
	addresses, _ := runControlPlaneAt(t, config)
	for _, a := range []net.Addr{addresses.GRPC, addresses.HTTP} {
		if !a.(*net.TCPAddr).IP.IsUnspecified() {
			t.Errorf("it listens at %s", a)
		}
	}
}

func TestDataDirIsOneControlPlanesOnly(t *testing.T) {
	config := loopbackConfig(t)
	_, stop := runControlPlaneAt(t, config)
	err := startError(t, config)
	for _, want := range []string{"--data-dir", config.DataDir, "in use by process"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	stop()
	runControlPlaneAt(t, config)
}

func TestStartThatFailsLeavesNothingBehind(t *testing.T) {
	config := loopbackConfig(t)
	first := occupied(t)
	config.GRPCAddr = freeAddress(t)
	config.HTTPAddr = first
	if err := startError(t, config); err == nil {
		t.Fatal("no error")
	}
	config.HTTPAddr = "127.0.0.1:0" // the port that it had opened before is free again
	runControlPlaneAt(t, config)
}

// freeAddress is one that nothing listens on.
func freeAddress(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", freeport.For(t)) }

func TestEtcdListensAtAName(t *testing.T) {
	config := loopbackConfig(t)
	config.EtcdListen = "localhost:0"
	addresses, _ := runControlPlaneAt(t, config)
	if host, port, err := net.SplitHostPort(addresses.Etcd); err != nil || host != "127.0.0.1" || port == "0" {
		t.Errorf("etcdctl is told %q", addresses.Etcd)
	}
}

func TestClusterTakesThePlaceOfTheEmbeddedEtcd(t *testing.T) {
	keeper := loopbackConfig(t)
	keeper.EtcdListen = "127.0.0.1:0"
	keeping, _ := runControlPlaneAt(t, keeper)
	unused := filepath.Join(t.TempDir(), "data")
	for n := range 2 { // what the first one registered, the second one finds
		addresses, stop := runControlPlaneAt(t, controlplane.Config{
			GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", DataDir: unused, Etcd: controlplane.Etcd{Endpoints: []string{"http://" + keeping.Etcd}},
		})
		if n == 0 {
			call(t, http.MethodPost, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/orders/instances",
				`{"id":"a1","address":"127.0.0.1","ports":[{"number":1}],"ttl":"60s"}`)
		}
		for _, a := range []controlplane.Addresses{addresses, keeping} {
			eventually(t, "both see the instance", func() bool { return registered(t, a, "orders") == "a1" })
		}
		if addresses.Etcd != "" {
			t.Errorf("it says that its etcd listens at %s", addresses.Etcd)
		}
		stop()
	}
	if _, err := os.Stat(unused); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory of no etcd: %v", err)
	}
}
