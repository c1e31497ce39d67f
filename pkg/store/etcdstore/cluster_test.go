package etcdstore_test

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
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

// The environment variables that turn the test binary into an etcd process.
const (
	childDir    = "FAIRLEAD_TEST_ETCD_DIR"
	childListen = "FAIRLEAD_TEST_ETCD_LISTEN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serve(dir, os.Getenv(childListen)); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serve runs an etcd that takes only clients with a certificate of dir's authority, until standard input ends.
func serve(dir, listen string) error {
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "data")
	c.LogLevel = "error"
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "https", Host: listen}}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")
	c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = filepath.Join(dir, "ca.pem"), true
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin) // only its end matters
	return err
}

// cluster is an etcd in a process of its own, with TLS, client certificates and users.
type cluster struct {
	t       *testing.T
	dir     string
	listen  string
	command *exec.Cmd
}

const (
	user     = "mesh"
	password = "sesame"
)

// startCluster starts an etcd whose user may read and write Fairlead's keys and no others.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), listen: closedPort(t)}
	writeCertificates(t, c.dir)
	c.start()
	t.Cleanup(c.kill)
	c.enableAuth()
	return c
}

func (c *cluster) start() {
	c.t.Helper()
	c.command = exec.Command(os.Args[0])
	c.command.Env = append(os.Environ(), childDir+"="+c.dir, childListen+"="+c.listen)
	c.command.Stderr = os.Stderr
	if _, err := c.command.StdinPipe(); err != nil { // its end would stop the process
		c.t.Fatal(err)
	}
	stdout, err := c.command.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		c.t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		c.t.Fatalf("etcd process: %s %v", line, err)
	}
}

func (c *cluster) kill() {
	_ = c.command.Process.Kill() // it may have ended already
	_ = c.command.Wait()         // killed is what it shall be
}

func (c *cluster) enableAuth() {
	c.t.Helper()
	config := c.config()
	pool := x509.NewCertPool()
	authority, err := os.ReadFile(config.CACert)
	if err != nil || !pool.AppendCertsFromPEM(authority) {
		c.t.Fatal("the authority cannot be read", err)
	}
	pair, err := tls.LoadX509KeyPair(config.Cert, config.Key)
	if err != nil {
		c.t.Fatal(err)
	}
	root, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + c.listen},
		TLS:       &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	_, err1 := root.UserAdd(ctx, "root", "root")
	_, err2 := root.UserGrantRole(ctx, "root", "root")
	_, err3 := root.RoleAdd(ctx, "fairlead")
	_, err4 := root.RoleGrantPermission(ctx, "fairlead", store.Root, clientv3.GetPrefixRangeEnd(store.Root), clientv3.PermissionType(clientv3.PermReadWrite))
	_, err5 := root.UserAdd(ctx, user, password)
	_, err6 := root.UserGrantRole(ctx, user, "fairlead")
	_, err7 := root.AuthEnable(ctx)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		c.t.Fatal(err)
	}
}

// config reaches the cluster; the first of its endpoints is dead.
func (c *cluster) config() etcdstore.Config {
	return etcdstore.Config{
		Endpoints: []string{"https://" + closedPort(c.t), "https://" + c.listen},
		CACert:    filepath.Join(c.dir, "ca.pem"),
		Cert:      filepath.Join(c.dir, "client.pem"),
		Key:       filepath.Join(c.dir, "client-key.pem"),
		User:      user,
		Password:  password,
	}
}

func (c *cluster) connect() *etcdstore.Store {
	c.t.Helper()
	s, err := etcdstore.New(c.t.Context(), c.config())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return s
}

// closedPort returns an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// writeCertificates makes an authority, and a server and a client that it vouches for.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	signer := writeCertificate(t, dir, "ca", authority, authority, nil)
	writeCertificate(t, dir, "server", &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, authority, signer)
	writeCertificate(t, dir, "client", &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, authority, signer)
}

// writeCertificate writes name.pem and name-key.pem; without a signer, it signs itself.
func writeCertificate(t *testing.T, dir, name string, c, authority *x509.Certificate, signer *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	signed, err := x509.CreateCertificate(rand.Reader, c, authority, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem":     {Type: "CERTIFICATE", Bytes: signed},
		name + "-key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key
}

func TestAClusterWithTLSAndUsersIsReachedThoughItsFirstEndpointIsDead(t *testing.T) {
	c := startCluster(t)
	s := c.connect()
	key := store.Root + "a"
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(key, []byte("1"))}}); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Get(t.Context(), key); err != nil || string(e.Value) != "1" {
		t.Errorf("read %q, %v; want what was written", e.Value, err)
	}
	if _, err := s.Size(t.Context()); err != nil {
		t.Errorf("the size of the store: %v", err)
	}
}

// etcd keeps its users' tokens in memory, so that a restart forgets them.
func TestARestartOfAClusterWithUsersIsSurvived(t *testing.T) {
	c := startCluster(t)
	s := c.connect()
	key := store.Root + "a"
	write := func(value string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put(key, []byte(value))}})
		return err
	}
	lease, err := s.Grant(t.Context(), time.Minute)
	if err := errors.Join(err, write("1")); err != nil {
		t.Fatal(err)
	}
	_, recorder := storetest.StartMirror(t, s, store.Root)
	c.kill()
	c.start()
	storetest.Eventually(t, "a write is taken", func() bool { return write("2") == nil })
	storetest.Eventually(t, "the mirror goes on", func() bool { return recorder.State()[key] == "2" })
	if _, err := s.Renew(t.Context(), lease.ID); err != nil {
		t.Errorf("the lease is not renewed: %v", err)
	}
	if _, err := s.List(t.Context(), store.ListRequest{Prefix: store.Root}); err != nil {
		t.Errorf("list: %v", err)
	}
}

// forgetful is an etcd 3.4 with client certificates on, as far as tokens go: it answers nothing that carries a token which it
// does not know, not even the request for a new one.
type forgetful struct {
	pb.UnimplementedAuthServer
	pb.UnimplementedKVServer
	tokens atomic.Int64 // the number of the one that it knows
}

func (f *forgetful) known(ctx context.Context, need bool) error {
	md, _ := metadata.FromIncomingContext(ctx)
	token := md.Get(rpctypes.TokenFieldNameGRPC)
	switch {
	case len(token) == 0 && !need:
		return nil
	case len(token) == 0:
		return rpctypes.ErrGRPCUserEmpty
	case token[0] != strconv.FormatInt(f.tokens.Load(), 10):
		return rpctypes.ErrGRPCInvalidAuthToken
	}
	return nil
}

func (f *forgetful) Authenticate(ctx context.Context, _ *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	if err := f.known(ctx, false); err != nil {
		return nil, err
	}
	return &pb.AuthenticateResponse{Header: &pb.ResponseHeader{}, Token: strconv.FormatInt(f.tokens.Load(), 10)}, nil
}

func (f *forgetful) Range(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := f.known(ctx, true); err != nil {
		return nil, err
	}
	return &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1, Revision: 1}}, nil
}

func TestATokenThatTheServerForgotIsNotShownToItForANewOne(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, server := &forgetful{}, grpc.NewServer()
	pb.RegisterAuthServer(server, f)
	pb.RegisterKVServer(server, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) }) // it ends with Stop
	defer serving.Wait()
	defer server.Stop()
	s, err := etcdstore.New(t.Context(), etcdstore.Config{Endpoints: []string{"http://" + l.Addr().String()}, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // nothing was written
	f.tokens.Add(1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := s.Head(ctx); err != nil {
		t.Errorf("after the server forgot its tokens: %v", err)
	}
}
