package conformance_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// h2spec sends what RFC 9113 and RFC 7541 forbid, and looks at what comes back. It is
// built by make conformance-h2spec.
func TestH2Spec(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar")
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(w, "hello")
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	to := app.Listener.Addr().(*net.TCPAddr).Port
	const none = "\n    - filters:"
	for name, test := range map[string]struct {
		replaced, by string // in the bootstrap file
		flags        []string
	}{
		"in the clear": {"stat_prefix: in", "stat_prefix: in\n          codec_type: HTTP2", nil},
		"in the clear, on a port of HTTP/1.1, too": {none, none, nil},
		"over TLS": {none, fmt.Sprintf(listenerTLS, identity(t)), []string{"--tls", "--insecure"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := changed(t, bin, to, test.replaced, test.by)
			out := h2spec(t, s.port, test.flags...)
			if want := "146 tests, 146 passed, 0 skipped, 0 failed"; !strings.Contains(out, want) {
				t.Errorf("it does not say %q", want)
			}
			lines := s.metrics(t, "fairlead_requests_in_flight")
			if len(lines) == 0 {
				t.Error("nothing is said of what is in flight")
			}
			for _, line := range lines {
				if !strings.HasSuffix(line, " 0") {
					t.Errorf("something is left under way: %s", line)
				}
			}
		})
	}
}

// h2spec returns what the tool says of a port.
func h2spec(t *testing.T, port int, more ...string) string {
	t.Helper()
	// It ends with an error if anything fails, which it says, too.
	out, err := exec.Command(filepath.Join(root, "bin/tools/h2spec"), append(more, "--strict", "--port", fmt.Sprint(port))...).CombinedOutput()
	if len(out) == 0 {
		t.Fatalf("h2spec: %v", err)
	}
	t.Logf("%s", out)
	return string(out)
}

const listenerTLS = `
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: %q}, private_key: {filename: %[1]q}}]
      filters:`

// identity returns the file of a certificate and its key.
func identity(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	chain, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tls.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(path, both, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// changed puts a sidecar in front of a port, with a change to its bootstrap file.
func changed(t *testing.T, bin string, to int, what, by string) side {
	t.Helper()
	s := side{freeport.For(t), freeport.For(t)}
	text := fmt.Sprintf(bootstrap, s.admin, s.port, "", "", to)
	if !strings.Contains(text, what) {
		t.Fatalf("the file has no %q", what)
	}
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(strings.Replace(text, what, by, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off")
	await(t, s.port)
	return s
}
