package etcdstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/internal/slogcore"
)

const (
	// keepAliveTime and keepAliveTimeout bound the life of a dead connection. 5 s is the least that etcd's servers permit
	// (embed.DefaultGRPCKeepAliveMinTime); asking more often gets the connection closed with too_many_pings.
	keepAliveTime    = 5 * time.Second
	keepAliveTimeout = 5 * time.Second
	// repeatAfter is how often the client library may say the same: without etcd it has something to say of every attempt of
	// every request.
	repeatAfter = 30 * time.Second
	// defaultProbeTimeout is Config.ProbeTimeout's default.
	defaultProbeTimeout = 5 * time.Second
)

// What New says of files that it cannot use, beside which file and why.
var (
	ErrAuthorities = errors.New("etcd authorities")
	ErrCertificate = errors.New("etcd client certificate")
)

// Config says how to reach the cluster.
type Config struct {
	// Endpoints are the client URLs of the members: "https://host:2379", "http://…", "host:2379" or "unix:///path".
	Endpoints []string
	// CACert is a PEM file with the authorities that sign the servers' certificates. Default: those of the system.
	CACert string
	// Cert and Key are PEM files with the client's certificate and key; both or neither.
	Cert, Key string
	// User and Password for etcd's own authentication; both or neither.
	User, Password string
	// KV is of an etcd in this process, which is asked directly for keys, listings and transactions; what it refuses, it refuses as a server does. Default: the
	// endpoints are asked for all.
	KV pb.KVClient
	// ProbeTimeout is how long New waits for the first answer. Default 5 s.
	ProbeTimeout time.Duration
	// Logger receives what the client library has to say, one level lower than it says it, and the same not twice within 30 s.
	// Default: nothing.
	Logger *slog.Logger
}

// Store implements store.Store. It is safe for concurrent use.
type Store struct {
	endpoints []string
	keys      *clientv3.Client
	lists     *clientv3.Client
	watches   *clientv3.Client
	logins    *clientv3.Client // carries no token; nil without a user

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	mu      sync.Mutex     // orders run and Close
	running sync.WaitGroup // the watches' goroutines
}

// New connects and waits until the cluster has answered a linearizable read, so that success means that it can serve. The error
// names the endpoints, and what the last attempt failed with.
func New(ctx context.Context, c Config) (*Store, error) {
	config, err := c.client()
	if err != nil {
		return nil, err
	}
	var last failure
	config.DialOptions = append(config.DialOptions, grpc.WithChainUnaryInterceptor(last.note))
	s := &Store{endpoints: c.Endpoints}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.connect(config); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("connect to etcd at %s: %w", strings.Join(c.Endpoints, ", "), last.explain(readError(err)))
	}
	if c.KV != nil {
		s.keys.KV, s.lists.KV = clientv3.NewKVFromKVClient(c.KV, s.keys), clientv3.NewKVFromKVClient(c.KV, s.lists)
	}
	ctx, cancel := context.WithTimeout(ctx, config.DialTimeout)
	defer cancel()
	if _, err := s.Head(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("no answer from etcd at %s within %v: %w", strings.Join(c.Endpoints, ", "), config.DialTimeout, last.explain(err))
	}
	return s, nil
}

// failure is what an attempt of a request failed with last. The client library repeats requests until their time is up, and then
// only says that it is.
type failure struct{ message atomic.Pointer[string] }

func (f *failure) note(ctx context.Context, method string, q, a any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	err := invoke(ctx, method, q, a, c, o...)
	if message := status.Convert(err).Message(); err != nil && !strings.HasPrefix(message, context.DeadlineExceeded.Error()) {
		f.message.Store(&message)
	}
	return err
}

// explain adds what failed to an error that says that the time was up.
func (f *failure) explain(err error) error {
	if message := f.message.Load(); message != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s", err, *message)
	}
	return err
}

// connect makes the clients, all but that for logins with the user's token, and lets them fetch that from the one for logins,
// which has none: with client certificates on, etcd 3.4 refuses whatever carries a token that it has forgotten, as it forgets
// all of them when it restarts, even the request for a new one.
func (s *Store) connect(config clientv3.Config) error {
	var err error
	if config.Username != "" {
		anonymous := config
		anonymous.Username, anonymous.Password = "", ""
		if s.logins, err = clientv3.New(anonymous); err != nil {
			return err
		}
	}
	for _, connection := range []**clientv3.Client{&s.keys, &s.lists, &s.watches} {
		if *connection, err = clientv3.New(config); err != nil {
			return err
		}
		if s.logins != nil {
			(*connection).Auth = clientv3.NewAuth(s.logins)
		}
	}
	return nil
}

func (c Config) client() (clientv3.Config, error) {
	if len(c.Endpoints) == 0 {
		return clientv3.Config{}, fmt.Errorf("%w: no etcd endpoint", store.ErrInvalid)
	}
	if (c.User == "") != (c.Password == "") {
		return clientv3.Config{}, fmt.Errorf("%w: etcd user without password or password without user", store.ErrInvalid)
	}
	secrets, err := c.tls()
	if err != nil {
		return clientv3.Config{}, err
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = defaultProbeTimeout
	}
	return clientv3.Config{
		Endpoints:            c.Endpoints,
		DialTimeout:          c.ProbeTimeout,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		TLS:                  secrets,
		Username:             c.User,
		Password:             c.Password,
		Logger:               zap.New(zapcore.NewSamplerWithOptions(slogcore.New(c.Logger), repeatAfter, 1, 0)),
	}, nil
}

// tls returns nil if nothing asks for TLS.
func (c Config) tls() (*tls.Config, error) {
	if (c.Cert == "") != (c.Key == "") {
		return nil, fmt.Errorf("%w: etcd client certificate without key or key without certificate", store.ErrInvalid)
	}
	secure := c.CACert != "" || c.Cert != ""
	for _, e := range c.Endpoints {
		secure = secure || strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs:")
	}
	if !secure {
		return nil, nil //nolint:nilnil // clientv3.Config's way to say plaintext
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAuthorities, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%w: %w: no certificate in %s", ErrAuthorities, store.ErrInvalid, c.CACert)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("%w in %s and %s: %w", ErrCertificate, c.Cert, c.Key, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
	var errs []error
	for _, connection := range []*clientv3.Client{s.keys, s.lists, s.watches, s.logins} {
		if connection == nil {
			continue
		}
		if err := connection.Close(); err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// run starts a goroutine that Close waits for, unless the store is closed.
func (s *Store) run(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.running.Go(f)
	return true
}
