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
	t.Run("over TLS", func(t *testing.T) {
		out := h2spec(t, secured(t, bin, to), "--tls", "--insecure")
		if want := "146 tests, 146 passed, 0 skipped, 0 failed"; !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	})
	t.Run("in the clear", func(t *testing.T) {
		s := sidecar(t, bin, overHTTP2, "", to)
		out := h2spec(t, s.port)
		// A port that speaks HTTP/1.1, too, answers what begins with nobody's preface in
		// that, with 400, and closes the connection. The tool wants no word.
		_, failed, _ := strings.Cut(out, "Failures:")
		if want := "146 tests, 145 passed, 0 skipped, 1 failed"; !strings.Contains(out, want) || !strings.Contains(failed, "× 2: Sends invalid connection preface") ||
			!strings.Contains(failed, "looked like an HTTP/1.1 header") {
			t.Errorf("it does not say %q, for the preface that is HTTP/1.1's", want)
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

// secured puts a sidecar that speaks TLS in front of a port.
func secured(t *testing.T, bin string, to int) int {
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
	dir, port := t.TempDir(), freePort(t)
	identity, path := filepath.Join(dir, "tls.pem"), filepath.Join(dir, "bootstrap.yaml")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	text := strings.Replace(fmt.Sprintf(bootstrap, freePort(t), port, "", "", to), "\n    - filters:", fmt.Sprintf(listenerTLS, identity), 1)
	for file, content := range map[string][]byte{identity: both, path: []byte(text)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off")
	await(t, port)
	return port
}
