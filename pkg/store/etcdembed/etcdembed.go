package etcdembed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/internal/slogcore"
)

const (
	// DefaultQuotaBytes bounds the data file: 2 GiB, etcd's own default. etcd advises at most 8 GiB.
	DefaultQuotaBytes = 2 << 30
	// DefaultAutoCompactionRetention is how long a reader can be away and still resume.
	DefaultAutoCompactionRetention = time.Hour
	// startTimeout bounds the start when the context does not: etcd replays its log first, which for a full quota takes
	// seconds, not minutes.
	startTimeout = time.Minute
	// closeTimeout is how long Stop waits for etcd after a fatal error, which may have left etcd unable to end.
	closeTimeout = 10 * time.Second
)

// Config says where the server keeps its data and what it listens on.
type Config struct {
	// DataDir holds the data; it is made, 0700, if absent. One running server per directory.
	DataDir string
	// Socket is the path of the Unix socket, at most 107 bytes, in a directory that only the user can enter; that directory is
	// made, 0700, if absent. Default: run/etcd.sock in DataDir, or a new private directory below the system's temporary one
	// if that path is too long.
	Socket string
	// Listen is a loopback address and port, for etcdctl; port 0 picks a free one. Everybody on the machine can read and write
	// through it. Default: none.
	Listen string
	// QuotaBytes is the size of the data file beyond which writes fail with store.ErrNoSpace. Default DefaultQuotaBytes.
	QuotaBytes int64
	// AutoCompactionRetention is how much history stays, as time. Default DefaultAutoCompactionRetention.
	AutoCompactionRetention time.Duration
	// Logger receives what etcd has to say, one level lower than etcd says it. Default: nothing.
	Logger *slog.Logger
}

func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" {
		return c, fmt.Errorf("%w: no data directory", store.ErrInvalid)
	}
	if c.QuotaBytes < 0 || c.AutoCompactionRetention < 0 {
		return c, fmt.Errorf("%w: negative quota or retention", store.ErrInvalid)
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = DefaultQuotaBytes
	}
	if c.AutoCompactionRetention == 0 {
		c.AutoCompactionRetention = DefaultAutoCompactionRetention
	}
	var err error
	if c.Listen != "" {
		c.Listen, err = loopback(c.Listen)
	}
	return c, err
}

// loopback returns addr with its port resolved, or an error if it is not a loopback address: etcd would give the whole state
// to whoever can connect.
func loopback(addr string) (string, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return "", fmt.Errorf("%w: etcd listen address %q is not IP:port: %w", store.ErrInvalid, addr, err)
	}
	if !ap.Addr().IsLoopback() {
		return "", fmt.Errorf("%w: etcd listen address %q is not loopback; the embedded etcd has no authentication, so whoever "+
			"reaches it owns the mesh", store.ErrInvalid, addr)
	}
	if ap.Port() != 0 {
		return addr, nil
	}
	// etcd does not tell which port it got, so find a free one for it. Another process can take it in between; then the start
	// fails and says so.
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("find a free port for etcd: %w", err)
	}
	defer func() { _ = l.Close() }() // nothing was accepted
	return l.Addr().String(), nil
}

// Server is a running etcd. Its methods are safe for concurrent use.
type Server struct {
	etcd    *embed.Etcd
	client  *etcdstore.Store
	keys    *keys // nil: it has not come so far
	socket  string
	listen  string
	release func() // lock and temporary directory

	fatal   chan error    // written by etcd's logger, once
	failed  chan error    // Err
	stop    chan struct{} // closed by Stop
	running sync.WaitGroup
	once    sync.Once
	err     error // Stop's result
	serving atomic.Bool
}

// logger returns the logger for etcd's own words. While it starts and stops it warns of what is as it should be, and what is
// not comes as an error: then only that is passed on.
func (s *Server) logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return nil
	}
	return slog.New(phased{l.Handler(), &s.serving})
}

// phased is a handler that makes everything below an error a matter of debugging, unless serving is set.
type phased struct {
	slog.Handler
	serving *atomic.Bool
}

func (p phased) level(l slog.Level) slog.Level {
	if l < slog.LevelError && !p.serving.Load() {
		return min(l, slog.LevelDebug)
	}
	return l
}

func (p phased) Enabled(ctx context.Context, l slog.Level) bool {
	return p.Handler.Enabled(ctx, p.level(l))
}

func (p phased) Handle(ctx context.Context, r slog.Record) error {
	if r.Level = p.level(r.Level); !p.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return p.Handler.Handle(ctx, r)
}

func (p phased) WithAttrs(a []slog.Attr) slog.Handler {
	return phased{p.Handler.WithAttrs(a), p.serving}
}

func (p phased) WithGroup(name string) slog.Handler {
	return phased{p.Handler.WithGroup(name), p.serving}
}

// Start starts the server and returns once it serves. If another process runs on the same data directory it fails at once with
// an error that names that process.
func Start(ctx context.Context, c Config) (*Server, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := claim(c.DataDir, c.Socket)
	if err != nil {
		return nil, err
	}
	s := &Server{
		socket:  p.socket,
		listen:  c.Listen,
		release: p.release,
		fatal:   make(chan error, 1),
		failed:  make(chan error, 1),
		stop:    make(chan struct{}),
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.start(ctx, c, p); err != nil {
		_ = s.Stop() // err is the one that matters
		return nil, fmt.Errorf("start embedded etcd in %s: %w", c.DataDir, err)
	}
	s.serving.Store(true)
	s.running.Go(s.supervise)
	return s, nil
}

func (s *Server) start(ctx context.Context, c Config, p paths) error {
	if err := s.startEtcd(s.config(c, p)); err != nil {
		return err
	}
	// etcd made the socket inside a directory that is 0700, so nobody came in before this.
	if err := os.Chmod(p.socket, 0o600); err != nil {
		return err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.fatal:
		return err
	case err := <-s.etcd.Err():
		return err
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", ctx.Err())
	}
	var err error
	s.keys = &keys{server: v3rpc.NewQuotaKVServer(s.etcd.Server)}
	s.client, err = etcdstore.New(ctx, etcdstore.Config{Endpoints: []string{"unix://" + p.socket}, KV: s.keys, Logger: c.Logger})
	if err != nil {
		return err
	}
	return s.endAlarm(ctx) // there may be more room than when it was raised
}

// startEtcd runs embed.StartEtcd on a goroutine of its own, since a fatal error of etcd ends the goroutine that meets it. It panics at some data that are damaged, which is
// an error here.
func (s *Server) startEtcd(config *embed.Config) error {
	var started error
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				started = fmt.Errorf("its data are damaged: put back a backup of the directory (etcd panicked: %v)", p)
			}
		}()
		s.etcd, started = embed.StartEtcd(config)
	}()
	<-done
	select {
	case err := <-s.fatal:
		return err
	default:
		return started
	}
}

func (s *Server) config(c Config, p paths) *embed.Config {
	config := embed.NewConfig()
	config.Name = "fairlead"
	config.Dir = p.data
	config.ListenClientUrls = []url.URL{{Scheme: "unix", Path: p.socket}}
	if c.Listen != "" {
		config.ListenClientUrls = append(config.ListenClientUrls, url.URL{Scheme: "http", Host: c.Listen})
	}
	config.AdvertiseClientUrls = config.ListenClientUrls
	// A single member talks to nobody, so it listens for nobody. The address only takes part in the member's and the
	// cluster's id; nothing is bound to it.
	config.ListenPeerUrls = nil
	config.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// The cluster's id is a hash of address and token. The token is random so that each data directory has an id of its own
	// and a replaced one is noticed; etcd reads it only when it makes a new directory.
	config.InitialClusterToken = rand.Text()
	config.QuotaBackendBytes = c.QuotaBytes
	config.AutoCompactionMode = embed.CompactorModePeriodic
	config.AutoCompactionRetention = c.AutoCompactionRetention.String()
	config.MaxTxnOps = store.MaxTxnOps
	// The contract bounds keys and values; etcd bounds the encoded request, which frames them.
	config.MaxRequestBytes = store.MaxRequestBytes + 64*1024
	config.WarningApplyDuration = time.Second // 100 ms, of a machine that is busy, would be lines by the thousand
	config.EnableGRPCGateway = false
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(loggerOf(s.logger(c.Logger), s.fatal))
	return config
}

// loggerOf is what etcd logs to.
func loggerOf(l *slog.Logger, fatal chan<- error) *zap.Logger {
	return zap.New(slogcore.New(l), zap.WithFatalHook(fatalHook{fatal}), zap.WithPanicHook(fatalHook{fatal}))
}

// fatalHook reports what etcd logs as fatal, or would panic with, in place of ending the process.
type fatalHook struct{ to chan<- error }

// OnWrite implements zapcore.CheckWriteHook.
func (h fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := fmt.Errorf("etcd: %s", e.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok {
			err = fmt.Errorf("%w: %w", err, cause)
		}
	}
	select {
	case h.to <- err:
	default: // one was reported already; the first is the cause
	}
	runtime.Goexit()
}

// supervise reports the first failure until Stop.
func (s *Server) supervise() {
	defer close(s.failed)
	select {
	case err := <-s.fatal:
		s.failed <- err
	case err := <-s.etcd.Err():
		s.failed <- fmt.Errorf("embedded etcd ended: %w", err)
	case <-s.etcd.Server.StopNotify():
		s.failed <- errors.New("embedded etcd stopped by itself")
	case <-s.stop:
	}
}

// Store returns the client of the server. It belongs to the server: Stop closes it.
func (s *Server) Store() *etcdstore.Store { return s.client }

// Socket returns the path of the Unix socket.
func (s *Server) Socket() string { return s.socket }

// Listen returns the loopback address for etcdctl, with the port that port 0 became, or "".
func (s *Server) Listen() string { return s.listen }

// Defragment gives the free pages of the data file back to the file system, and lets writes go on that failed with store.ErrNoSpace, if there is room by
// then. Until it returns, which takes about as long as writing what is in use, the server answers nobody.
func (s *Server) Defragment(ctx context.Context) error {
	if err := s.etcd.Server.Backend().Defrag(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	return s.endAlarm(ctx)
}

// endAlarm ends the alarm by which etcd refuses writes, which stays until it is told that there is room. If there is none, the next write raises it again.
func (s *Server) endAlarm(ctx context.Context) error {
	alarms, err := s.etcd.Server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET, Alarm: pb.AlarmType_NOSPACE})
	if err != nil {
		return err
	}
	for _, a := range alarms.Alarms {
		if _, err := s.etcd.Server.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm}); err != nil {
			return err
		}
	}
	return nil
}

// Err delivers at most one error: the server failed and serves no more. It is closed by a failure or by Stop.
func (s *Server) Err() <-chan error { return s.failed }

// Stop stops the server, waits until its data is on disk and its files are released. It can be called again, and then returns
// what the first call did.
func (s *Server) Stop() error {
	s.once.Do(func() {
		s.serving.Store(false)
		close(s.stop)
		s.running.Wait()
		if s.client != nil {
			s.err = s.client.Close()
		}
		if s.keys != nil {
			s.keys.close()
		}
		if s.etcd != nil {
			s.err = errors.Join(s.err, s.closeEtcd())
		}
		s.release()
	})
	return s.err
}

// closeEtcd gives up after a while, since a fatal error may have ended a goroutine that Close waits for.
func (s *Server) closeEtcd() error {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.etcd.Close()
	}()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-closed:
		return nil
	case <-t.C:
		return fmt.Errorf("embedded etcd did not stop within %v", closeTimeout)
	}
}

// paths are the files of one server.
type paths struct {
	data, socket string
	release      func()
}

// claim makes the directories, takes the lock and chooses the socket.
func claim(dir, socket string) (paths, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return paths{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return paths{}, fmt.Errorf("data directory: %w", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return paths{}, err
	}
	socket, remove, err := placeSocket(dir, socket)
	if err != nil {
		_ = lock.Close()
		return paths{}, err
	}
	release := func() {
		remove()
		_ = lock.Close() // releases the lock; nothing was written that could be lost
	}
	return paths{data: filepath.Join(dir, "etcd"), socket: socket, release: release}, nil
}
