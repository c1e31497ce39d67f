package conformance_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

// How the suite's runner starts this test binary again, as the server under test.
const (
	actAsServer = "FAIRLEAD_CONFORMANCE_SERVER" // what the reference server is to speak: "same" as its clients, or "http2"
	binaries    = "FAIRLEAD_CONFORMANCE_BIN"
)

func TestMain(m *testing.M) {
	if upstream := os.Getenv(actAsServer); upstream != "" {
		if err := serve(os.Getenv(binaries), upstream); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// features are what the suite may ask for. HTTP/3 is not among them.
const features = `
features:
  versions: [HTTP_VERSION_1, HTTP_VERSION_2]
  protocols: [PROTOCOL_CONNECT, PROTOCOL_GRPC, PROTOCOL_GRPC_WEB]
  supports_h2c: true
  supports_tls: true
  supports_tls_client_certs: true
  supports_trailers: true
  supports_half_duplex_bidi_over_http1: true
  supports_connect_get: true
  supports_message_receive_limit: true
`

// TestConnectConformance runs Connect's suite, of Connect, gRPC and gRPC-Web over HTTP/1.1 and
// HTTP/2, in the clear, over TLS and with certificates of clients, against its reference
// server behind a sidecar, which ends TLS: with a server that speaks what the clients do, and
// with one of HTTP/2 only, so that the sidecar translates.
func TestConnectConformance(t *testing.T) {
	wanted(t)
	bin := build(t, "./cmd/sidecar")
	tools := exec.Command("go", "build", "-o", bin+"/", "tool")
	tools.Dir = filepath.Join(root, ".ci", "tools", "connect")
	if out, err := tools.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	config := filepath.Join(t.TempDir(), "features.yaml")
	if err := os.WriteFile(config, []byte(features), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, upstream := range []string{"same", "http2"} {
		t.Run("a server that speaks "+upstream, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(bin, "connectconformance"), "--mode", "server", "--conf", config, "--max-servers", "2", "--parallel", "4", "--", self)
			cmd.Env = append(os.Environ(), actAsServer+"="+upstream, binaries+"="+bin)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else {
				t.Logf("%s", out[max(0, len(out)-400):])
			}
		})
	}
}

// serve is the server under test: the reference server with a sidecar before it. The runner
// sends a ServerCompatRequest and gets a ServerCompatResponse, each with its length
// before it, and ends it by SIGTERM.
func serve(bin, upstream string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	request, err := readMessage(os.Stdin)
	if err != nil {
		return err
	}
	const httpVersion, version2 = 2, 2 // the field, and its value for HTTP/2
	version := number(request, httpVersion)
	if upstream == "http2" {
		version = version2
		request = protowire.AppendVarint(protowire.AppendTag(request, httpVersion, protowire.VarintType), version2) // the last one counts
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	filters, certificate, err := listenerOf(request, dir)
	if err != nil {
		return err
	}
	const useTLS, clientCertificate = 4, 5
	request = protowire.AppendVarint(protowire.AppendTag(request, useTLS, protowire.VarintType), 0)
	request = protowire.AppendBytes(protowire.AppendTag(request, clientCertificate, protowire.BytesType), nil)
	reference := exec.CommandContext(ctx, filepath.Join(bin, "referenceserver"))
	reference.Cancel = func() error { return reference.Process.Signal(syscall.SIGTERM) }
	reference.Stderr = os.Stderr
	in, err := reference.StdinPipe()
	if err != nil {
		return err
	}
	out, err := reference.StdoutPipe()
	if err != nil {
		return err
	}
	if err := reference.Start(); err != nil {
		return err
	}
	defer func() { stop(); _ = reference.Wait() }()
	if err := errors.Join(writeMessage(in, request), in.Close()); err != nil {
		return err
	}
	response, err := readMessage(out)
	if err != nil {
		return err
	}
	const portField = 2
	protocol := ""
	if version == version2 {
		protocol = overHTTP2
	}
	port, stopped, err := front(ctx, bin, dir, filters, protocol, int(number(response, portField))) //nolint:gosec // a port
	if err != nil {
		return err
	}
	defer func() { stop(); <-stopped }()
	answer := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "127.0.0.1")
	answer = protowire.AppendVarint(protowire.AppendTag(answer, portField, protowire.VarintType), uint64(port)) //nolint:gosec // a port
	if certificate != nil {
		const pemCertificate = 3
		answer = protowire.AppendBytes(protowire.AppendTag(answer, pemCertificate, protowire.BytesType), certificate)
	}
	if err := writeMessage(os.Stdout, answer); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// front starts a sidecar before the reference server's port, until ctx ends; then stopped is
// closed.
func front(ctx context.Context, bin, dir, filters, protocol string, to int) (port int, stopped chan struct{}, err error) {
	port, err = freeport.Find()
	if err != nil {
		return 0, nil, err
	}
	admin, err := freeport.Find()
	if err != nil {
		return 0, nil, err
	}
	path := filepath.Join(dir, "bootstrap.yaml")
	text := fmt.Sprintf(bootstrap, admin, port, "", protocol, to)
	text = strings.Replace(text, "\n    - filters:", filters, 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return 0, nil, err
	}
	proxy := exec.CommandContext(ctx, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off", "--log-level", "error")
	proxy.Cancel = func() error { return proxy.Process.Signal(syscall.SIGTERM) }
	proxy.Stderr = os.Stderr
	if err := proxy.Start(); err != nil {
		return 0, nil, err
	}
	stopped = make(chan struct{})
	go func() { _ = proxy.Wait(); close(stopped) }()
	return port, stopped, listens(port)
}

// listenerOf returns what the bootstrap file has for "filters", and the certificate that the
// clients are to trust, if a request asks for TLS.
func listenerOf(request []byte, dir string) (filters string, certificate []byte, err error) {
	const useTLS, clientCertificate, credentials, certificateOf, keyOf = 4, 5, 7, 1, 2
	filters = "\n    - filters:"
	if number(request, useTLS) == 0 {
		return filters, nil, nil
	}
	own := content(request, credentials)
	certificate = content(own, certificateOf)
	path := filepath.Join(dir, "tls.pem")
	if err := os.WriteFile(path, append(append(slices.Clone(certificate), '\n'), content(own, keyOf)...), 0o600); err != nil {
		return "", nil, err
	}
	filters = fmt.Sprintf(listenerTLS, path)
	if trusted := content(request, clientCertificate); len(trusted) > 0 {
		path := filepath.Join(dir, "clients.pem")
		if err := os.WriteFile(path, trusted, 0o600); err != nil {
			return "", nil, err
		}
		const own = "          common_tls_context:\n"
		filters = strings.Replace(filters, own, "          require_client_certificate: true\n"+own+
			fmt.Sprintf("            validation_context: {trusted_ca: {filename: %q}}\n", path), 1)
	}
	return filters, certificate, nil
}

func listens(port int) (err error) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return c.Close()
		}
	}
	return err
}

func readMessage(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeMessage(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)) //nolint:gosec // small
	return err
}

// content returns a field of bytes or a message, the last there is.
func content(b []byte, field protowire.Number) (v []byte) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return nil
		}
		b = b[size:]
		if n == field && kind == protowire.BytesType {
			v, size = protowire.ConsumeBytes(b)
		} else {
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return nil
		}
		b = b[size:]
	}
	return v
}

// number returns a field of a message, 0 if it is not there.
func number(b []byte, field protowire.Number) (v uint64) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return 0
		}
		b = b[size:]
		if n == field && kind == protowire.VarintType {
			v, size = protowire.ConsumeVarint(b)
		} else {
			size = protowire.ConsumeFieldValue(n, kind, b)
		}
		if size < 0 {
			return 0
		}
		b = b[size:]
	}
	return v
}
