package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/fairlead-mesh/fairlead/pkg/loopback"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
)

// Bounds of what a client may take from the proxy.
const (
	readTimeout    = 10 * time.Second // of a whole request, its head included
	writeTimeout   = 30 * time.Second // of a response; profiles get their seconds besides
	idleTimeout    = time.Minute
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 64 << 10 // only pprof's symbol takes a body
	// maxConnections at once; the next ones wait in the kernel's backlog.
	maxConnections = 64
	// stopTimeout is how long responses under way may take when the server stops.
	stopTimeout = 2 * time.Second
)

// Config is where the server's answers come from. The functions are called by
// several goroutines at once and should not block. All fields but Certs are
// required.
type Config struct {
	// Ready answers /ready: 200, or 503 with what is being waited for.
	Ready http.Handler
	// Metrics is what /stats, /stats/prometheus and /metrics show.
	Metrics *metrics.Registry
	// Clusters and Listeners return a new slice at each call. Clusters are shown
	// sorted by name, hosts and listeners in the order given.
	Clusters  func() []ClusterStatus
	Listeners func() []ListenerStatus
	// ConfigDump returns the configuration in force as JSON.
	ConfigDump func() ([]byte, error)
	// Certs returns the certificates in use; nil means that there are none.
	Certs func() []CertStatus
	// LogLevel is what /logging shows and sets.
	LogLevel *slog.LevelVar
	// Drain begins the drain and returns at once; when it has returned,
	// DrainingSince is not zero. It is called again if somebody asks again.
	Drain func()
	// DrainingSince returns when the drain began, zero if it did not.
	DrainingSince func() time.Time
}

func (c Config) validate() error {
	var faults []error
	for _, field := range []struct {
		name  string
		given bool
	}{
		{"Ready", c.Ready != nil},
		{"Metrics", c.Metrics != nil},
		{"Clusters", c.Clusters != nil},
		{"Listeners", c.Listeners != nil},
		{"ConfigDump", c.ConfigDump != nil},
		{"LogLevel", c.LogLevel != nil},
		{"Drain", c.Drain != nil},
		{"DrainingSince", c.DrainingSince != nil},
	} {
		if !field.given {
			faults = append(faults, fmt.Errorf("%s is required", field.name))
		}
	}
	return errors.Join(faults...)
}

// Server answers the admin port. It refuses, with 403, requests that a web page
// made the browser of somebody on this machine send (see guard), and bounds the
// time, the bytes and the connections that a client may take.
//
// This type is concurrency safe.
type Server struct {
	config  Config
	log     *slog.Logger
	handler http.Handler
}

// New returns a server over config. An error names every missing field.
func New(config Config, log *slog.Logger) (*Server, error) {
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{config: config, log: log}
	s.handler = loopback.Guard("the admin port", http.MaxBytesHandler(s.routes(), maxBodyBytes))
	return s, nil
}

// Serve answers connections of listener, which it closes, until ctx ends, and
// then returns nil. It blocks. Responses under way get 2 s to end; a profile
// being taken ends at once.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:        s.handler,
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:    func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(netutil.LimitListener(listener, maxConnections)) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin: %w", errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		s.log.Warn("admin connections cut", "reason", err)
		_ = server.Close() // nothing is left to do about its error
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}
