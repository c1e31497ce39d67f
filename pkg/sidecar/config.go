package sidecar

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// Config is what a sidecar is told at its start. Exactly one of ControlPlane and
// Bootstrap must be set.
type Config struct {
	// ControlPlane is the host:port of the control plane's gRPC listener.
	ControlPlane string
	// Bootstrap is the path of an Envoy v3 Bootstrap file to serve instead.
	Bootstrap string

	Workload Workload

	// InboundAddr is where peers reach the application through the sidecar; used if
	// there is an application. OutboundAddr is where the application calls others.
	InboundAddr, OutboundAddr string
	// TCPUpstreams are local ports for calls that are not HTTP, each
	// [ADDR:]PORT=SERVICE[.NAMESPACE][:PORT]: connections to it are relayed to that service.
	// ADDR is a loopback address, by default 127.0.0.1.
	TCPUpstreams []string
	// AdminAddr is the host:port of the admin port, on loopback. Empty: what the
	// bootstrap file says, or none.
	AdminAddr string

	// SeparatePeers lets requests to other sidecars go in what the called application speaks,
	// over as many connections as that takes. Without it all HTTP to one sidecar goes
	// multiplexed over few HTTP/2 connections.
	SeparatePeers bool

	// OTLPEndpoint is where spans are sent: see [tracing.Config]. Empty: nowhere.
	OTLPEndpoint string
	// TraceRatio is the share of the traces begun here that are sampled, 0 to 1.
	TraceRatio float64

	// AccessLog is where access log lines go; nil: nowhere.
	AccessLog       io.Writer
	AccessLogFormat accesslog.Format

	// DrainTimeout bounds the finishing of requests at shutdown. Default 20 s.
	DrainTimeout time.Duration

	// AllowExternalConnect lets the application use OutboundAddr as the proxy, by CONNECT, for
	// what is not in the mesh.
	AllowExternalConnect bool

	// TunnelIdleTimeout ends tunnels, upgraded connections and CONNECT's, and connections that
	// are relayed, in which nothing moves. Default 1 h.
	TunnelIdleTimeout time.Duration

	LogLevel *slog.LevelVar
	Log      *slog.Logger
	// HandleSignals lets SIGTERM and SIGINT end the process's sidecar.
	HandleSignals bool
	// Ready is called once, when the sidecar listens; nil: nobody is.
	Ready func(Addresses)
}

// Workload is what runs beside the sidecar.
type Workload struct {
	// Service and Namespace name it; one that only calls needs no name.
	Service, Namespace string
	// InstanceID names the instance within its service. Default: the host's name and
	// a random part.
	InstanceID string
	// AppAddr is the host:port on which the application takes requests. Empty: the
	// workload only calls.
	AppAddr string
	// AppProtocol is what the application speaks there: HTTP, HTTP2, GRPC or TCP. Default HTTP.
	AppProtocol mesh.Protocol
	// DetectProtocol lets every connection to it say by its first bytes whether it is HTTP;
	// what is not is relayed to the application as it is. AppProtocol is what requests are
	// sent on in, and what the registry is told.
	DetectProtocol bool
	// AdvertiseAddr is the IP address, or address:port, by which peers reach InboundAddr.
	// Default: the address from which the control plane is reached, and InboundAddr's
	// port.
	AdvertiseAddr string
	Labels        map[string]string
	Zone          string
	// Weight is the instance's share of the traffic, 1 to 10,000. Default 1.
	Weight uint32
	// HealthPath is asked for on AppAddr to see whether the application is well;
	// grpc:NAME asks by the gRPC health protocol for a service, which may be empty.
	// Empty: the application is well, if it accepts connections.
	HealthPath string
}

// Addresses is where a sidecar listens.
type Addresses struct {
	Admin net.Addr // nil: no admin port
	// Listeners by name: outbound and inbound, or those of the bootstrap file.
	Listeners map[string]net.Addr
}

// The names of a mesh sidecar's listeners.
const (
	Outbound = "outbound"
	Inbound  = "inbound"
)

const (
	defaultDrainTimeout      = 20 * time.Second
	defaultTunnelIdleTimeout = time.Hour
)

func (c Config) withDefaults() Config {
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrainTimeout)
	c.TunnelIdleTimeout = cmp.Or(c.TunnelIdleTimeout, defaultTunnelIdleTimeout)
	if c.LogLevel == nil {
		c.LogLevel = new(slog.LevelVar)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Workload.Namespace = cmp.Or(c.Workload.Namespace, mesh.DefaultNamespace)
	c.Workload.Weight = cmp.Or(c.Workload.Weight, 1)
	c.Workload.AppProtocol = cmp.Or(c.Workload.AppProtocol, mesh.ProtocolHTTP)
	if c.Workload.InstanceID == "" {
		c.Workload.InstanceID = randomID()
	}
	return c
}

// randomID makes an instance id from the host's name, which people know, and
// chance, since several sidecars may run on a host.
func randomID() string {
	host, err := os.Hostname()
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	if err != nil || mesh.CheckLabel(label) != nil || len(label) > 40 {
		label = "instance"
	}
	return label + "-" + strings.ToLower(rand.Text()[:6])
}

// validate returns all faults at once, each naming its flag.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch {
	case c.Bootstrap == "" && c.ControlPlane == "":
		fault("either --control-plane (host:port) or --bootstrap (a file) is required")
	case c.Bootstrap != "" && c.ControlPlane != "":
		fault("--control-plane and --bootstrap exclude each other")
	case c.ControlPlane != "":
		c.Workload.validate(fault)
		if c.OutboundAddr != "" && !mesh.IsLoopback(c.OutboundAddr) {
			fault("--outbound-addr %s is not a loopback address: whoever reaches it calls in this workload's name", c.OutboundAddr)
		}
		c.validateUpstreams(fault)
	}
	if c.AdminAddr != "" && !mesh.IsLoopback(c.AdminAddr) {
		fault("--admin-addr %s is not a loopback address: whoever reaches the admin port can drain this process and read its memory", c.AdminAddr)
	}
	if c.DrainTimeout <= 0 {
		fault("--drain-timeout is %v: it must be more than 0", c.DrainTimeout)
	}
	if c.TunnelIdleTimeout < time.Second {
		fault("--tunnel-idle-timeout is %v: it must be 1 s or more", c.TunnelIdleTimeout)
	}
	if !(c.TraceRatio >= 0 && c.TraceRatio <= 1) { // which is so of NaN, too
		fault("--trace-ratio is %v, not 0 to 1", c.TraceRatio)
	}
	if err := tracing.CheckEndpoint(c.OTLPEndpoint); err != nil {
		fault("--otlp-endpoint %q: %w", c.OTLPEndpoint, err)
	}
	return errors.Join(faults...)
}

func (w Workload) validate(fault func(string, ...any)) {
	if w.AppAddr != "" && w.Service == "" {
		fault("--app-addr needs --service: the name by which others call the application")
	}
	if w.Service != "" {
		if _, err := mesh.NewServiceName(w.Service, ""); err != nil {
			fault("--service: %w", err)
		}
	}
	if err := mesh.CheckLabel(w.Namespace); w.Namespace != "" && err != nil {
		fault("--namespace %q: %w", w.Namespace, err)
	}
	if err := mesh.CheckLabel(w.InstanceID); w.InstanceID != "" && err != nil {
		fault("--instance-id %q: %w", w.InstanceID, err)
	}
	if w.AdvertiseAddr != "" {
		if _, _, err := parseAdvertised(w.AdvertiseAddr, 1); err != nil {
			fault("--advertise-addr %w", err)
		}
	}
	if w.Weight < 1 || w.Weight > mesh.MaxWeight {
		fault("--weight is %d, not 1 to %d", w.Weight, mesh.MaxWeight)
	}
	if len(w.Labels) > mesh.MaxLabels {
		fault("--label: %d are given, at most %d are kept", len(w.Labels), mesh.MaxLabels)
	} else {
		for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
			for _, reason := range mesh.LabelFaults(k, w.Labels[k]) {
				fault("--label %.70q: %s", k, reason)
			}
		}
	}
	if err := mesh.CheckZone(w.Zone); err != nil {
		fault("--zone %.70q: %w", w.Zone, err)
	}
	if w.HealthPath != "" && w.AppAddr != "" {
		if _, err := probeOf(w); err != nil {
			fault("--health-path %.70q: %w", w.HealthPath, err)
		}
	}
}

// name is the workload's service, as metrics and spans call it.
func (w Workload) name() string {
	if w.Service == "" {
		return unknown
	}
	return w.Service + "." + w.Namespace
}
