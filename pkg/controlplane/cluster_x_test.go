package controlplane_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
)

// Environment variables that turn the test binary into a member of an etcd cluster: its directory, with certificates, and where
// it listens.
const (
	memberDir    = "FAIRLEAD_TEST_ETCD_DIR"
	memberListen = "FAIRLEAD_TEST_ETCD_LISTEN"
)

// serveMember runs an etcd as operators do, with TLS, client certificates and etcd's own users, until it is killed.
func serveMember(dir string) error {
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "data")
	config.ListenClientUrls = []url.URL{{Scheme: "https", Host: os.Getenv(memberListen)}}
	config.AdvertiseClientUrls = config.ListenClientUrls
	config.ListenPeerUrls = nil
	config.ClientTLSInfo.CertFile, config.ClientTLSInfo.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	config.ClientTLSInfo.TrustedCAFile, config.ClientTLSInfo.ClientCertAuth = filepath.Join(dir, "ca.pem"), true
	config.BcryptCost = 4 // the least there is
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	return <-e.Err()
}

// member is an etcd in a process of its own: this test binary, started again.
type member struct {
	t           *testing.T
	dir, listen string
	command     *exec.Cmd
}

func startMember(t *testing.T) *member {
	t.Helper()
	m := &member{t: t, dir: t.TempDir(), listen: freeAddress(t)}
	writeCertificates(t, m.dir)
	m.start()
	t.Cleanup(m.kill)
	m.enableUsers()
	return m
}

func (m *member) start() {
	m.t.Helper()
	m.command = exec.Command(os.Args[0])
	m.command.Env = append(os.Environ(), memberDir+"="+m.dir, memberListen+"="+m.listen)
	m.command.Stderr = os.Stderr
	stdout, err := m.command.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.command.Start(); err != nil {
		m.t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		m.t.Fatalf("etcd process: %q %v", line, err)
	}
}

func (m *member) kill() {
	_ = m.command.Process.Kill() // it may have ended already
	_ = m.command.Wait()         // killed is what it shall be
}

func (m *member) file(name string) string { return filepath.Join(m.dir, name) }

// enableUsers makes root, and a user "fairlead" who may do what docs/running.md says that it must.
func (m *member) enableUsers() {
	m.t.Helper()
	pair, err := tls.LoadX509KeyPair(m.file("cert.pem"), m.file("key.pem"))
	if err != nil {
		m.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(m.file("ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		m.t.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + m.listen},
		TLS:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	for _, do := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "mesh"); return err },
		func() error {
			prefix := "/fairlead/v1/"
			_, err := c.RoleGrantPermission(ctx, "mesh", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "fairlead", "secret"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "fairlead", "mesh"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			m.t.Fatal(err)
		}
	}
}

// config is a control plane's that uses the cluster, whose first member is dead.
func (m *member) config() controlplane.Config {
	return controlplane.Config{
		GRPCAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
		Etcd: controlplane.Etcd{
			Endpoints: []string{"https://127.0.0.1:1", "https://" + m.listen},
			CACert:    m.file("ca.pem"), Cert: m.file("cert.pem"), Key: m.file("key.pem"), User: "fairlead:secret",
		},
	}
}

// writeCertificates writes ca.pem, and a certificate for 127.0.0.1 that servers and clients can show, with its key.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"fairlead test"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, content := range map[string][]byte{
		"ca.pem": certificate, "cert.pem": certificate, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// posted reports whether the API did what it was asked, and shows what it said if not.
func posted(t *testing.T, url, body string) bool {
	t.Helper()
	a, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Log(err)
		return false
	}
	defer func() { _ = a.Body.Close() }()
	if text, _ := io.ReadAll(a.Body); a.StatusCode != http.StatusOK {
		t.Logf("%s: %s: %s", url, a.Status, text)
	}
	return a.StatusCode == http.StatusOK
}

// The tokens by which etcd knows its users live in its memory, so that a restart forgets them.
func TestClusterWithCertificatesAndUsersIsFoundAgainAfterItsRestart(t *testing.T) {
	etcd := startMember(t)
	addresses, _ := runControlPlaneAt(t, etcd.config())
	instances := "http://" + addresses.HTTP.String() + "/v1/namespaces/default/services/orders/instances"
	body := `{"id":%q,"address":"127.0.0.1","ports":[{"number":1}],"ttl":"120s"}`
	eventually(t, "the first is registered", func() bool { return posted(t, instances, fmt.Sprintf(body, "a1")) })

	etcd.kill()
	time.Sleep(2 * time.Second) // requests and the watch meet an etcd that is gone
	etcd.start()
	before := metric(t, addresses, "fairlead_store_revision")
	eventually(t, "the lease is renewed", func() bool { return posted(t, instances+"/a1:renew", "{}") })
	eventually(t, "the second is registered", func() bool { return posted(t, instances, fmt.Sprintf(body, "a2")) })
	eventually(t, "the watch goes on", func() bool { return metric(t, addresses, "fairlead_store_revision") > before })
	if got := registered(t, addresses, "orders"); got != "a1 a2" {
		t.Errorf("registered: %s", got)
	}
}
