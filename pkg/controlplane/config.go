package controlplane

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// Defaults of a Config.
const (
	DefaultDataDir     = "fairlead-data"
	DefaultGRPCAddr    = "127.0.0.1:15010"
	DefaultHTTPAddr    = "127.0.0.1:15014"
	DefaultTrustDomain = "cluster.local"
	DefaultDrainTime   = 2 * time.Second

	DefaultSagaRetention = 24 * time.Hour
	DefaultSagaQuota     = etcdembed.DefaultQuotaBytes
)

// Config is what a control plane is told at its start.
type Config struct {
	// DataDir holds the embedded etcd, which is used unless Etcd names a cluster.
	// Default DefaultDataDir.
	DataDir string
	// EtcdListen is a loopback host:port at which etcdctl reaches the embedded etcd.
	// Empty: none.
	EtcdListen string
	Etcd       Etcd

	// GRPCAddr is where sidecars and gRPC clients connect, HTTPAddr where REST, metrics
	// and probes are served. Defaults DefaultGRPCAddr and DefaultHTTPAddr.
	GRPCAddr, HTTPAddr string
	// Insecure permits these on addresses that other machines reach.
	Insecure bool
	// TrustDomain of the mesh's identities. Default DefaultTrustDomain.
	TrustDomain string

	// SagaEgress is the host:port of a sidecar's port for outgoing requests, through which the steps of sagas are called. Empty: the
	// instances of services are called from here.
	SagaEgress string
	// SagaEtcdEndpoints is an etcd cluster for sagas, reached as Etcd is. Empty: one is embedded, in DataDir/sagas, with the first
	// saga; with Etcd, no sagas are coordinated.
	SagaEtcdEndpoints []string
	// SagaPeerAddr is the host:port where other control planes that share SagaEtcdEndpoints reach GRPCAddr, to pass on what is asked of the sagas that are
	// owned here. Default: what GRPCAddr is bound to, if all of SagaEtcdEndpoints are on this machine, or that is an address that others may reach.
	SagaPeerAddr string
	// SagaQuota bounds the file of the embedded one, in bytes: 16 MiB to 8 GiB. Default DefaultSagaQuota.
	SagaQuota int64
	// SagaRetention is how long a saga is kept that has ended, 1 s to a year. Default DefaultSagaRetention.
	SagaRetention time.Duration

	// OTLPEndpoint is where the spans of the API, and of the calls of sagas, are sent: see [tracing.Config]. Empty:
	// nowhere.
	OTLPEndpoint string
	// TraceRatio is the share of the traces begun here that are sampled, 0 to 1.
	TraceRatio float64

	// DrainTime is over how long the streams are ended at shutdown. Default
	// DefaultDrainTime.
	DrainTime time.Duration

	LogLevel *slog.LevelVar
	Log      *slog.Logger
	// HandleSignals lets SIGTERM and SIGINT end the process's control plane.
	HandleSignals bool
	// Ready is called once, when the control plane listens, which is before it has read
	// the store; nil: nobody is.
	Ready func(Addresses)
}

// Etcd says how to reach a cluster.
type Etcd struct {
	Endpoints         []string
	CACert, Cert, Key string // PEM files
	User              string // name:password
}

// Addresses is where a control plane listens.
type Addresses struct {
	GRPC, HTTP net.Addr
	Etcd       string // of the embedded etcd, for etcdctl; "" if it does not
}

func (c Config) withDefaults() Config {
	c.DataDir = cmp.Or(c.DataDir, DefaultDataDir)
	c.GRPCAddr = cmp.Or(c.GRPCAddr, DefaultGRPCAddr)
	c.HTTPAddr = cmp.Or(c.HTTPAddr, DefaultHTTPAddr)
	c.TrustDomain = cmp.Or(c.TrustDomain, DefaultTrustDomain)
	c.DrainTime = cmp.Or(c.DrainTime, DefaultDrainTime)
	c.SagaQuota = cmp.Or(c.SagaQuota, DefaultSagaQuota)
	c.SagaRetention = cmp.Or(c.SagaRetention, DefaultSagaRetention)
	if c.LogLevel == nil {
		c.LogLevel = new(slog.LevelVar)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate returns all faults at once, each naming its flag.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, a := range []struct{ flag, address string }{{"--grpc-addr", c.GRPCAddr}, {"--http-addr", c.HTTPAddr}} {
		if !c.Insecure && !mesh.IsLoopback(a.address) {
			fault("%s %s is not a loopback address: without certificates, whoever reaches it can register instances and "+
				"change policies; use a loopback address, or accept that with --insecure", a.flag, a.address)
		}
	}
	if c.EtcdListen != "" && !mesh.IsLoopback(c.EtcdListen) {
		fault("--etcd-listen %s is not a loopback address: whoever reaches it can change everything", c.EtcdListen)
	}
	if c.DataDir == "" && len(c.Etcd.Endpoints) == 0 {
		fault("--data-dir is empty: the embedded etcd needs a directory")
	}
	c.Etcd.validate(fault)
	c.validateSagas(fault)
	if c.EtcdListen != "" && len(c.Etcd.Endpoints) > 0 {
		fault("--etcd-listen is for the embedded etcd, which --etcd-endpoints replaces")
	}
	if err := mesh.CheckTrustDomain(c.TrustDomain); err != nil {
		fault("--trust-domain %q: %w", c.TrustDomain, err)
	}
	if c.DrainTime <= 0 {
		fault("--drain-time is %v: it must be more than 0", c.DrainTime)
	}
	if !(c.TraceRatio >= 0 && c.TraceRatio <= 1) { // which is so of NaN, too
		fault("--trace-ratio is %v, not 0 to 1", c.TraceRatio)
	}
	if err := tracing.CheckEndpoint(c.OTLPEndpoint); err != nil {
		fault("--otlp-endpoint %q: %w", c.OTLPEndpoint, err)
	}
	return errors.Join(faults...)
}

// The bounds of what is said of sagas. A smaller quota has no room for etcd's own pages beside a few batches, and etcd advises no larger one.
const (
	minSagaQuota     = 16 << 20
	maxSagaQuota     = 8 << 30
	maxSagaRetention = 365 * 24 * time.Hour
)

func (c Config) validateSagas(fault func(string, ...any)) {
	if c.SagaEgress != "" && len(c.SagaEtcdEndpoints) == 0 && len(c.Etcd.Endpoints) > 0 {
		fault("--saga-egress with --etcd-endpoints needs --saga-etcd-endpoints: replicas that share the mesh's etcd share that of sagas, which is another cluster")
	}
	if c.SagaQuota < minSagaQuota || c.SagaQuota > maxSagaQuota {
		fault("--saga-etcd-quota is %d MiB, not 16MiB to 8GiB", c.SagaQuota>>20)
	}
	if c.SagaRetention < time.Second || c.SagaRetention > maxSagaRetention {
		fault("--saga-retention is %v, not 1s to %v", c.SagaRetention, maxSagaRetention)
	}
	if c.SagaPeerAddr != "" {
		host, port, err := net.SplitHostPort(c.SagaPeerAddr)
		if ip, _ := netip.ParseAddr(host); err != nil || host == "" || port == "0" || ip.IsUnspecified() {
			fault("--saga-peer-addr %q is no HOST:PORT where other control planes reach this one", c.SagaPeerAddr)
		}
		if len(c.SagaEtcdEndpoints) == 0 {
			fault("--saga-peer-addr needs --saga-etcd-endpoints, by which control planes share their sagas")
		}
	}
	for _, endpoint := range c.SagaEtcdEndpoints {
		if !dialable(endpoint) {
			fault("--saga-etcd-endpoints: %q is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", endpoint)
		}
	}
}

// sagaPeerAddr returns where other control planes reach the gRPC port, which is bound to an address; empty: nowhere that is known.
func (c Config) sagaPeerAddr(bound net.Addr) string {
	if len(c.SagaEtcdEndpoints) == 0 || c.SagaPeerAddr != "" {
		return c.SagaPeerAddr
	}
	at, err := netip.ParseAddrPort(bound.String())
	if err != nil {
		return ""
	}
	if !slices.ContainsFunc(c.SagaEtcdEndpoints, func(endpoint string) bool { return !onThisMachine(endpoint) }) {
		if at.Addr().IsUnspecified() {
			return fmt.Sprintf("127.0.0.1:%d", at.Port())
		}
		return at.String()
	}
	if at.Addr().IsLoopback() || at.Addr().IsUnspecified() {
		return ""
	}
	return at.String()
}

// onThisMachine reports whether an endpoint of etcd is.
func onThisMachine(endpoint string) bool {
	scheme, address, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, address = "http", endpoint
	}
	return strings.HasPrefix(scheme, "unix") || mesh.IsLoopback(strings.TrimSuffix(address, "/"))
}

func (e Etcd) validate(fault func(string, ...any)) {
	if len(e.Endpoints) == 0 && (e.CACert != "" || e.Cert != "" || e.Key != "" || e.User != "") {
		fault("--etcd-cacert, --etcd-cert, --etcd-key and --etcd-user need --etcd-endpoints")
	}
	for _, endpoint := range e.Endpoints {
		if !dialable(endpoint) {
			fault("--etcd-endpoints: %q is not HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH", endpoint)
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		fault("--etcd-cert and --etcd-key need each other")
	}
	if name, password, ok := strings.Cut(e.User, ":"); e.User != "" && (!ok || name == "" || password == "") {
		fault("--etcd-user must be NAME:PASSWORD")
	}
}

// dialable reports whether the client of etcd takes an endpoint for what it says.
func dialable(endpoint string) bool {
	scheme, address, ok := strings.Cut(endpoint, "://")
	if !ok {
		scheme, address = "http", endpoint
	}
	switch scheme {
	case "unix", "unixs":
		return address != ""
	case "http", "https":
		host, port, err := net.SplitHostPort(strings.TrimSuffix(address, "/"))
		number, bad := strconv.ParseUint(port, 10, 16)
		return err == nil && bad == nil && host != "" && number != 0
	}
	return false
}

// replicaID names this process among the replicas, those before its restart included.
func replicaID() string { return "cp-" + strings.ToLower(rand.Text()[:10]) }
