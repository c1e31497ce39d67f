package controlplane_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ownNetwork is the environment variable by which a test knows that it runs in a network of its own.
const ownNetwork = "FAIRLEAD_TEST_OWN_NETWORK"

// outsideAddress is this machine's only in that network. It is no loopback address, so that sidecars take it for
// another machine's. (RFC 2544's range for tests of networks.)
var outsideAddress = [4]byte{198, 18, 0, 1}

// inOwnNetwork reports whether the test runs in a network of its own, with outsideAddress. Where it does not, it
// has it run in one, and shows what came of it.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if !inOwnNamespace(t, ownNetwork, syscall.CLONE_NEWNET) {
		return false
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(socket) }()
	for _, set := range []struct {
		of   string
		what uint
		to   func(*unix.Ifreq) error
	}{
		{"lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP); return nil }},
		{"lo:1", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(outsideAddress[:]) }},
	} {
		r, err := unix.NewIfreq(set.of)
		if err == nil {
			err = set.to(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(socket, set.what, r)
		}
		if err != nil {
			t.Fatalf("%s: %v", set.of, err)
		}
	}
	return true
}

// inOwnNamespace reports whether the test runs in a namespace of its own, by which kind it has, and which an environment variable says. Where it does not, it
// has it run in one, and shows what came of it.
func inOwnNamespace(t *testing.T, variable string, kind uintptr) bool {
	t.Helper()
	if os.Getenv(variable) != "" {
		return true
	}
	again := exec.Command(os.Args[0], "-test.v", "-test.timeout=2m", "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), variable+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: kind}
	if uid := os.Geteuid(); uid != 0 {
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	for _, forbidden := range []error{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSPC} {
		if errors.Is(err, forbidden) {
			t.Skipf("no namespace of the test's own can be made, which Linux lets root do, and others where user namespaces are let: %v", err)
		}
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace of its own: %v\n%s", err, out)
	}
	return false
}

// outside listens where sidecars take it for another machine.
func outside(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: outsideAddress[:]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// tunnelEnd is the client's end of a tunnel. It ends its own way by CloseWrite.
type tunnelEnd interface {
	io.ReadWriter
	CloseWrite() error
}

// tcpTunnel is a tunnel by HTTP/1.1.
type tcpTunnel struct {
	*net.TCPConn
	in *bufio.Reader // what came behind the head, too
}

func (c tcpTunnel) Read(p []byte) (int, error) { return c.in.Read(p) }

// streamTunnel is one by HTTP/2.
type streamTunnel struct {
	io.Reader
	*io.PipeWriter
}

func (s streamTunnel) CloseWrite() error { return s.Close() }

// connectBy asks a proxy for a tunnel.
func connectBy(t *testing.T, proxy, authority string, http2 bool) (tunnelEnd, *http.Response) {
	t.Helper()
	out, in := io.Pipe()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "http://"+proxy, out)
	if err != nil {
		t.Fatal(err)
	}
	q.Host = authority
	if http2 {
		transport := &http.Transport{Protocols: new(http.Protocols)}
		transport.Protocols.SetUnencryptedHTTP2(true)
		t.Cleanup(transport.CloseIdleConnections)
		resp, err := transport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return streamTunnel{resp.Body, in}, resp
	}
	nc, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_, _ = fmt.Fprintf(nc, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority)
	r := bufio.NewReader(nc)
	resp, err := http.ReadResponse(r, q)
	if err != nil {
		t.Fatal(err)
	}
	return tcpTunnel{nc.(*net.TCPConn), r}, resp
}

// An application with a sidecar reaches what is not in the mesh through it, as by any other proxy: by the flag alone.
func TestAllowedSidecarConnectsToTheOutside(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	grpcAddr, apiAddr, proxy, admin := freeAddress(t), freeAddress(t), freeAddress(t), freeAddress(t)
	t.Setenv("HTTPS_PROXY", "http://"+proxy) // before the first request, at which a process reads them
	t.Setenv("NO_PROXY", "")
	startCommand(t, apiAddr, "--data-dir", filepath.Join(t.TempDir(), "data"), "--grpc-addr", grpcAddr, "--http-addr", apiAddr)
	start := func(t *testing.T, proxy, admin string, flags ...string) {
		t.Helper()
		command := exec.Command(os.Args[0], append(flags, "--control-plane", grpcAddr, "--service", "shop", "--outbound-addr", proxy, "--admin-addr", admin)...)
		command.Env = append(os.Environ(), sidecarLine+"=1")
		command.Stderr = os.Stderr
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = command.Process.Kill()
			_ = command.Wait() // killed is what it shall be
		})
		eventually(t, "the sidecar is ready", func() bool { return ask("http://"+admin+"/ready") != "" })
	}
	versions := map[string]bool{"HTTP/1.1": false, "HTTP/2": true}

	t.Run("not without the flag", func(t *testing.T) {
		proxy := freeAddress(t)
		start(t, proxy, freeAddress(t))
		for name, http2 := range versions {
			_, resp := connectBy(t, proxy, outside(t).Addr().String(), http2)
			if resp.StatusCode != http.StatusForbidden || resp.Header.Get("fairlead-reason") != "external_refused" {
				t.Errorf("%s: %d %v", name, resp.StatusCode, resp.Header)
			}
		}
	})

	start(t, proxy, admin, "--allow-external-connect")
	large := strings.Repeat("0123456789", 100_000)
	for name, http2 := range versions {
		t.Run("the client ends first, "+name, func(t *testing.T) {
			l := outside(t)
			served := make(chan error, 1)
			go func() {
				nc, err := l.Accept()
				if err != nil {
					served <- err
					return
				}
				defer func() { _ = nc.Close() }()
				_, _ = io.WriteString(nc, "220 at your service\r\n")
				all, err := io.ReadAll(nc)
				_, _ = nc.Write(all) // behind the client's end
				served <- err
			}()
			end, resp := connectBy(t, proxy, l.Addr().String(), http2)
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("%d %v", resp.StatusCode, resp.Header)
			}
			greeting := make([]byte, len("220 at your service\r\n"))
			if _, err := io.ReadFull(end, greeting); err != nil || string(greeting) != "220 at your service\r\n" {
				t.Errorf("%q, %v", greeting, err)
			}
			if _, err := io.WriteString(end, large); err != nil {
				t.Error(err)
			}
			if err := end.CloseWrite(); err != nil {
				t.Error(err)
			}
			if all, err := io.ReadAll(end); string(all) != large || err != nil {
				t.Errorf("the client: %d bytes, %v", len(all), err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		t.Run("the other end ends first, "+name, func(t *testing.T) {
			l := outside(t)
			served := make(chan string, 1)
			go func() {
				nc, err := l.Accept()
				if err != nil {
					served <- err.Error()
					return
				}
				defer func() { _ = nc.Close() }()
				_, _ = io.WriteString(nc, large)
				_ = nc.(*net.TCPConn).CloseWrite()
				all, err := io.ReadAll(nc)
				served <- fmt.Sprintf("%s %v", all, err)
			}()
			end, _ := connectBy(t, proxy, l.Addr().String(), http2)
			if all, err := io.ReadAll(end); string(all) != large || err != nil {
				t.Errorf("the client: %d bytes, %v", len(all), err)
			}
			_, _ = io.WriteString(end, "thank you")
			_ = end.CloseWrite()
			if got := <-served; got != "thank you <nil>" {
				t.Errorf("the other end: %.100s", got)
			}
		})
	}

	t.Run("HTTPS_PROXY", func(t *testing.T) {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} { // between both ends, which is not the proxy's business
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				_, _ = io.Copy(w, q.Body)
				_, _ = io.WriteString(w, q.Proto)
			}))
			_ = s.Listener.Close()
			s.Listener, s.EnableHTTP2 = outside(t), protocol == "HTTP/2.0"
			s.StartTLS()
			defer s.Close()
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			transport := &http.Transport{
				Proxy:             http.ProxyFromEnvironment,
				TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "example.com"},
				ForceAttemptHTTP2: protocol == "HTTP/2.0",
			}
			defer transport.CloseIdleConnections()
			resp, err := (&http.Client{Transport: transport}).Post("https://"+s.Listener.Addr().String()+"/", "text/plain", strings.NewReader(large))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK || string(body) != large+protocol || err != nil {
				t.Errorf("%s: %d, %d bytes, %v", protocol, resp.StatusCode, len(body), err)
			}
		}
	})

	// The four above have ended in order. Of what HTTPS does in the others, once both ends have told each other in TLS that they
	// end, a part may be a reset: who closes a socket with something unread in it sends one.
	eventually(t, "six tunnels are counted, of which four ended in order", func() bool {
		n, inOrder := 0, 0
		for line := range strings.Lines(ask("http://" + admin + "/metrics")) {
			var count int
			if labels, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(labels, "fairlead_requests_total{") &&
				strings.Contains(labels, `code="200",destination="external"`) {
				_, _ = fmt.Sscan(value, &count)
				n += count
				if strings.Contains(labels, `reason="none"`) {
					inOrder += count
				}
			}
		}
		return n == 6 && inOrder >= 4
	})
}
