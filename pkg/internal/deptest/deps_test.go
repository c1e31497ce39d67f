// Package deptest holds the direction of dependencies: the layers are the table
// in ARCHITECTURE.md, so the document and the code cannot part.
package deptest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fairlead-mesh/fairlead/"

// root is the top of the repository, from here.
const root = "../../.."

// ban is an arrow that must not exist, and why.
type ban struct{ from, to, why string }

func bans() []ban {
	return []ban{
		{"pkg/proxy", "pkg/control", "the planes meet in leaf packages and on the wire, so that any data plane can join and the proxy stays small"},
		{"pkg/control", "pkg/proxy", "the planes meet in leaf packages and on the wire, so that the control plane serves any data plane"},
		{"pkg/mesh", "google.golang.org/", "mesh is values: protobuf is read and written in xds/codec only"},
		{"pkg/proxy", "google.golang.org/grpc", "the engine does not know where its configuration comes from"},
		{"pkg/sidecar", "go.etcd.io/", "a sidecar talks to the control plane, never to the store"},
		{"pkg/breaker", module, "breaker is a library on its own"},
		{"pkg/lb", module, "lb is a library on its own"},
	}
}

// linkBans are what a binary must not link, even through others.
func linkBans() []ban {
	return []ban{
		{"cmd/sidecar", "go.etcd.io/", "the sidecar links no etcd: memory beside every service counts"},
		{"cmd/sidecar", "github.com/envoyproxy/go-control-plane/pkg/server", "the sidecar links no xDS server"},
		{"cmd/sidecar", "github.com/envoyproxy/go-control-plane/pkg/cache", "the sidecar links no xDS cache"},
		{"cmd/sidecar", "html/template", "it calls methods by their names, so that the linker keeps every method of every type: 5 MB resident at the start"},
		{"cmd/sidecar", "k8s.io/", "the sidecar links no Kubernetes client"},
		{"cmd/sidecar", "github.com/fairlead-mesh/fairlead/pkg/control", "the sidecar links no control plane"},
		{"cmd/meshctl", "go.etcd.io/", "meshctl speaks the management API only"},
		{"cmd/meshctl", module + "pkg/saga/coordinator", "meshctl knows sagas as their API shows them"},
		{"cmd/meshctl", module + "pkg/saga/journal", "meshctl knows sagas as their API shows them"},
	}
}

// owner says which packages alone may import something, and why. The packages are
// given as prefixes; tests are the packages whose tests may as well.
type owner struct {
	what  string
	only  []string
	tests []string
	why   string
}

func owners() []owner {
	return []owner{
		{"go.opentelemetry.io/", []string{"pkg/tracing"}, nil, "tracing is the only importer of OpenTelemetry, so that an unsampled request costs a header edit"},
		{"github.com/prometheus/", []string{"pkg/metrics"}, nil, "metrics is the only importer of the Prometheus client, so that hot paths hold handles, and every family has its cap"},
		{
			"go.etcd.io/", []string{"pkg/store"}, []string{"pkg/controlplane"}, // whose tests do what etcdctl does
			"etcd is known below pkg/store only: all others keep to the store's contract, which memory fulfils as well",
		},
		{"go.uber.org/zap", []string{"pkg/store"}, []string{"pkg/controlplane"}, "zap is etcd's: all others log with log/slog"},
		{"github.com/envoyproxy/go-control-plane/pkg", []string{"pkg/control/xdsserver"}, nil, "xdsserver is the only user of go-control-plane's server: its cache is our own"},
		{
			"github.com/envoyproxy/go-control-plane/envoy", []string{"pkg/xds", "pkg/control/xdsserver", "pkg/sidecar"}, []string{"pkg/controlplane", "pkg/control/mgmt"},
			"Envoy's messages end in pkg/xds: behind it are values of pkg/mesh",
		},
		{
			"github.com/grpc-ecosystem/grpc-gateway", []string{"api/proto", "pkg/control/mgmt"}, nil,
			"REST is a form of the management API: both come from one schema",
		},
		{"github.com/spf13/", []string{"pkg/flags", "pkg/controlplane", "pkg/sidecar", "pkg/meshctl"}, nil, "flags are read where a process is put together: all else takes a Config"},
		{"google.golang.org/grpc/xds", nil, []string{"pkg/controlplane", "pkg/xds/codec"}, "grpc-go's xDS client is a stranger for tests: the sidecar's client is pkg/xds/client"},
		{module + "pkg/store/storetest", nil, []string{"pkg/store", "pkg/discovery"}, "it is a test suite"},
		{module + "pkg/store/memstore", nil, []string{"pkg/store", "pkg/discovery", "pkg/control", "pkg/saga", "pkg/meshctl"}, "it is for tests: what it holds is gone with the process"},
		{"modernc.org/", []string{"pkg/meshtest"}, []string{"pkg/saga"}, "it is a database for tests and the demo: services bring their own"},
		{"github.com/jackc/", []string{"pkg/meshtest"}, []string{"pkg/saga"}, "it is a driver for tests: services bring their own"},
		{"github.com/go-sql-driver/", []string{"pkg/meshtest"}, []string{"pkg/saga"}, "it is a driver for tests: services bring their own"},
		{module + "pkg/tracing/otlptest", []string{"pkg/meshtest"}, []string{"pkg"}, "it is a receiver for tests"},
		{module + "pkg/proxy/mtls/mtlstest", nil, []string{"pkg"}, "it makes certificates for tests"},
		{module + "pkg/meshtest", []string{"pkg/meshtest"}, nil, "what plays with processes is no part of them"},
	}
}

type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

// buildTags are those of make build.
const buildTags = "grpcnotrace"

func goList(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", buildTags, "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// layers reads the rows "| 3 | `pkg/x`, `pkg/y` | … |" of ARCHITECTURE.md.
func layers(t *testing.T) map[string]int {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	row := regexp.MustCompile(`^\| (\d+) \| ([^|]+) \|`)
	name := regexp.MustCompile("`([^`]+)`")
	found := map[string]int{}
	for s := bufio.NewScanner(f); s.Scan(); {
		m := row.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		layer, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range name.FindAllStringSubmatch(m[2], -1) {
			found[n[1]] = layer
		}
	}
	return found
}

func TestPackagesImportOnlyLowerLayers(t *testing.T) {
	layer := layers(t)
	exists := map[string]bool{}
	for _, p := range goList(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		exists[from] = true
		mine, ok := layer[from]
		if !ok {
			t.Errorf("%s is not in the table of ARCHITECTURE.md: give it a layer", from)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			if theirs, ok := layer[to]; ok && theirs >= mine {
				t.Errorf("%s (layer %d) imports %s (layer %d): arrows point down, to strictly lower layers, so that each package can be "+
					"read and tested with what is below it alone", from, mine, to, theirs)
			}
		}
	}
	for name := range layer {
		if !exists[name] {
			t.Errorf("ARCHITECTURE.md lists %s, which does not exist", name)
		}
	}
}

// under reports whether path is prefix, or lies below it.
func under(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func underAny(path string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return under(path, prefix) })
}

// arrows returns what is forbidden of a package's arrows, each with the reason. Those of
// its tests may point up, to what they put together, but not across.
func arrows(p *listed) (faults []string) {
	from := strings.TrimPrefix(p.ImportPath, module)
	forbidden := func(what, to, why string) { faults = append(faults, fmt.Sprintf("%s %s %s: %s", from, what, to, why)) }
	tests := slices.Concat(p.TestImports, p.XTestImports)
	for _, b := range bans() {
		if !under(from, b.from) {
			continue
		}
		for _, to := range slices.Concat(p.Imports, tests) {
			if to != p.ImportPath && (under(to, b.to) || under(to, module+b.to)) {
				forbidden("imports", to, b.why)
			}
		}
	}
	for _, o := range owners() {
		for _, to := range p.Imports {
			if under(to, o.what) && !underAny(from, o.only) {
				forbidden("imports", to, o.why)
			}
		}
		for _, to := range tests {
			if under(to, o.what) && !underAny(from, o.only) && !underAny(from, o.tests) {
				forbidden("imports in a test", to, o.why)
			}
		}
	}
	for _, b := range linkBans() {
		for _, to := range p.Deps {
			if from == b.from && under(to, b.to) {
				forbidden("links", to, b.why)
			}
		}
	}
	return faults
}

func TestForbiddenArrowsDoNotExist(t *testing.T) {
	for _, p := range goList(t) {
		for _, fault := range arrows(&p) {
			t.Error(fault)
		}
	}
}

func TestForbiddenArrowIsToldWithItsReason(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"pkg/discovery", "go.opentelemetry.io/otel/trace", "only importer of OpenTelemetry"},
		{"pkg/control/mgmt", "github.com/prometheus/client_golang/prometheus", "only importer of the Prometheus client"},
		{"pkg/control/reconcile", "go.etcd.io/etcd/client/v3", "etcd is known below pkg/store only"},
		{"pkg/sidecar", "github.com/envoyproxy/go-control-plane/pkg/cache/v3", "only user of go-control-plane's server"},
		{"pkg/control/translate", "github.com/envoyproxy/go-control-plane/envoy/config/core/v3", "Envoy's messages end in pkg/xds"},
		{"pkg/proxy/http1", module + "pkg/control/policy", "the planes meet in leaf packages"},
		{"pkg/control/guard", module + "pkg/proxy/wire", "the planes meet in leaf packages"},
		{"pkg/proxy", "google.golang.org/grpc/codes", "where its configuration comes from"},
		{"pkg/lb", module + "pkg/mesh", "a library on its own"},
		{"pkg/controlplane", module + "pkg/store/memstore", "gone with the process"},
		{"pkg/sidecar", module + "pkg/meshtest/play", "no part of them"},
		{"pkg/sidecar", "google.golang.org/grpc/xds", "a stranger for tests"},
		{"pkg/controlplane", "github.com/jackc/pgx/v5/stdlib", "a driver for tests"},
		{"pkg/controlplane", "github.com/go-sql-driver/mysql", "a driver for tests"},
	} {
		for _, p := range []listed{
			{ImportPath: module + c.from, Imports: []string{c.to}},
			{ImportPath: module + c.from, TestImports: []string{c.to}},
			{ImportPath: module + c.from, XTestImports: []string{c.to}},
		} {
			faults := arrows(&p)
			if len(faults) == 0 || !strings.Contains(strings.Join(faults, "\n"), c.want) {
				t.Errorf("%s → %s: %q, want %q", c.from, c.to, faults, c.want)
			}
		}
	}
	linked := listed{ImportPath: module + "cmd/sidecar", Deps: []string{"go.etcd.io/etcd/client/v3"}}
	if faults := arrows(&linked); len(faults) != 1 || !strings.Contains(faults[0], "memory beside every service counts") {
		t.Errorf("%q", faults)
	}
}

func TestAllowedArrowIsNotTold(t *testing.T) {
	for _, p := range []listed{
		{ImportPath: module + "pkg/tracing", Imports: []string{"go.opentelemetry.io/otel/trace"}},
		{ImportPath: module + "pkg/store/etcdstore", Imports: []string{"go.etcd.io/etcd/client/v3", "go.uber.org/zap"}},
		{ImportPath: module + "pkg/controlplane", XTestImports: []string{"go.etcd.io/etcd/client/v3"}},
		{ImportPath: module + "pkg/lb", Imports: []string{"sync"}, XTestImports: []string{module + "pkg/lb"}},
		{ImportPath: module + "pkg/proxyish", Imports: []string{module + "pkg/controlplane"}},
	} {
		if faults := arrows(&p); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
	}
}
