package conformance_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
)

// root is the top of the repository, from here.
const root = "../../.."

// wanted skips a test unless it is asked for.
func wanted(t *testing.T) {
	t.Helper()
	if os.Getenv("FAIRLEAD_CONFORMANCE") == "" {
		t.Skip("make conformance runs the suites of others")
	}
}

// build compiles commands, of this module or of those that it requires.
func build(t *testing.T, packages ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command("go", append([]string{"build", "-o", dir + "/"}, packages...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// run runs a process until the test ends, and returns its id. What it said is shown if the
// test failed.
func run(t *testing.T, path string, args ...string) (pid int) {
	t.Helper()
	return runTo(t, nil, path, args...)
}

// runTo is run with the standard output to a writer, if there is one.
func runTo(t *testing.T, out io.Writer, path string, args ...string) (pid int) {
	t.Helper()
	var said lockedbuf.Buffer
	cmd := exec.Command(path, args...)
	if cmd.Stdout, cmd.Stderr = out, &said; out == nil {
		cmd.Stdout = &said
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is ended by a signal
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s did not end when it was told to", filepath.Base(path))
		}
		if text := said.String(); t.Failed() && text != "" {
			t.Logf("%s said:\n%.20000s", filepath.Base(path), text)
		}
	})
	return cmd.Process.Pid
}

// serving takes connections at a port and serves each until that returns, or the test ends.
func serving(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{} // guarded by mu
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			all.Go(func() {
				serve(nc)
				_ = nc.Close()
				mu.Lock()
				delete(open, nc)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// await waits until something listens on a port.
func await(t *testing.T, port int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on port %d", port)
}

const bootstrap = `
node: {id: edge-1, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: %d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            name: r
            virtual_hosts:
            - {name: v, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: app%s}}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s%s
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]
`

const overHTTP2 = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`

// side is a sidecar that serves a bootstrap file.
type side struct{ port, admin int }

// sidecar puts one in front of a port. protocol is what is behind that, "" or overHTTP2,
// route what the route says besides the cluster.
func sidecar(t *testing.T, bin, protocol, route string, to int) side {
	t.Helper()
	s := side{freeport.For(t), freeport.For(t)}
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, bootstrap, s.admin, s.port, route, protocol, to), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off")
	await(t, s.port)
	return s
}

// metrics returns the lines of a family.
func (s side) metrics(t *testing.T, family string) []string {
	t.Helper()
	return s.lines(t, family+"{")
}

// lines returns the lines of the metrics that begin with something.
func (s side) lines(t *testing.T, begin string) []string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", s.admin))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(text.String()) {
		if strings.HasPrefix(line, begin) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
