package main

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s", path, got)
	}
}

func TestFlagsThatCannotBeMeantAreRefused(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-rounds 0", "-rounds must be at least 1"},
		{"-duration 1500ms", "-duration must be whole seconds"},
		{"-duration 0s", "-duration must be whole seconds"},
		{"-warm-up 10ms", "-warm-up must be whole seconds"},
		{"-proxy-core 1", "must differ"},
		{"-only apache", `no suite, proxy or workload is called "apache": suites are http1, http2, mesh, mtls, grpc, tcp, handshakes, latency, memory, memory-tls, gomaxprocs; proxies are fairlead, nginx, haproxy, envoy, direct, fairlead-1; workloads are 32c-100B`},
		{"-suites tcp,udp", `-suites: there is no "udp"; there are http1, http2,`},
		{"-suites tcp -only mesh", `no suite, proxy or workload is called "mesh": suites are tcp; proxies`},
		{"surplus", `unexpected argument "surplus"`},
		{"-nonsense", "not defined: -nonsense"},
	} {
		var out bytes.Buffer
		if _, err := parseFlags(strings.Fields(c.args), &out); err == nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: %v, written %q; want %q", c.args, err, out.String(), c.want)
		}
	}
}

func TestHelpTellsTheNamesOfProxiesAndWorkloads(t *testing.T) {
	var out bytes.Buffer
	if _, err := parseFlags([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	for _, want := range []string{"make bench-peers", "Suites: http1, http2, mesh, mtls, grpc, tcp, handshakes, latency, memory, memory-tls, gomaxprocs.", "Proxies: fairlead, nginx, haproxy, envoy, direct, fairlead-1.", "256c-10kB"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
