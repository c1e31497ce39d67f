// Package deptest holds the direction of dependencies: the layers are the table
// in ARCHITECTURE.md, so the document and the code cannot part.
package deptest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
		{"pkg/proxy", "go.opentelemetry.io/", "tracing is the only importer of OpenTelemetry, so that an unsampled request costs a header edit"},
		{"pkg/proxy", "github.com/prometheus/", "metrics is the only importer of the metrics library, so that hot paths hold handles"},
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
		{"cmd/sidecar", "k8s.io/", "the sidecar links no Kubernetes client"},
		{"cmd/sidecar", "github.com/fairlead-mesh/fairlead/pkg/control", "the sidecar links no control plane"},
		{"cmd/meshctl", "go.etcd.io/", "meshctl speaks the management API only"},
	}
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func goList(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
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
				t.Errorf("%s (layer %d) imports %s (layer %d): arrows point down, to strictly lower layers", from, mine, to, theirs)
			}
		}
	}
	for name := range layer {
		if !exists[name] {
			t.Errorf("ARCHITECTURE.md lists %s, which does not exist", name)
		}
	}
}

func TestForbiddenArrowsDoNotExist(t *testing.T) {
	under := func(path, prefix string) bool {
		return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
	}
	for _, p := range goList(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		for _, b := range bans() {
			if !under(from, b.from) {
				continue
			}
			for _, imported := range p.Imports {
				if under(imported, b.to) || under(imported, module+b.to) {
					t.Errorf("%s imports %s: %s", from, imported, b.why)
				}
			}
		}
		for _, b := range linkBans() {
			if from != b.from {
				continue
			}
			for _, dep := range p.Deps {
				if under(dep, b.to) {
					t.Errorf("%s links %s: %s", from, dep, b.why)
				}
			}
		}
	}
}
