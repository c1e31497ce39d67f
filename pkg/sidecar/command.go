package sidecar

import (
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
)

// Command returns the sidecar's command line.
func Command() *cobra.Command {
	var (
		config       = Config{LogLevel: new(slog.LevelVar), HandleSignals: true, DrainTimeout: defaultDrainTimeout, TunnelIdleTimeout: defaultTunnelIdleTimeout}
		controlPlane flags.Address
		app          flags.Address
		inbound      flags.ListenAddress = "0.0.0.0:15006"
		outbound     flags.ListenAddress = "127.0.0.1:15001"
		admin        flags.ListenAddress = "127.0.0.1:15000"
		labels       flags.KeyValues
		accessLog    string
		protocol     string
		multiplex    bool
	)
	c := &cobra.Command{
		Use:     "sidecar (--control-plane HOST:PORT | --bootstrap FILE)",
		Short:   "Proxy the traffic of one workload",
		Version: flags.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.ControlPlane, config.Workload.AppAddr = string(controlPlane), string(app)
			config.InboundAddr, config.OutboundAddr = string(inbound), string(outbound)
			config.Workload.Labels = labels
			config.Workload.DetectProtocol = protocol == "auto"
			config.Workload.AppProtocol, _ = mesh.ParseProtocol(strings.ToUpper(protocol)) // OneOf has checked it, and auto is HTTP
			config.SeparatePeers = !multiplex
			// A bootstrap file may say where the admin port is: the default does not override it.
			if config.Bootstrap == "" || cmd.Flags().Changed("admin-addr") {
				config.AdminAddr = string(admin)
			}
			var stopLog func()
			config.Log, stopLog = flags.NewLogger(config.LogLevel, flags.LogText, os.Stderr)
			defer stopLog()
			if accessLog != "off" {
				config.AccessLog = os.Stdout
				config.AccessLogFormat, _ = accesslog.ParseFormat(accessLog) // OneOf has checked it
			}
			if err := config.validate(); err != nil {
				return &flags.UsageError{Err: err}
			}
			if names, needed := idle(cmd.Flags(), config); len(names) > 0 {
				config.Log.Warn("flags have no effect", "flags", strings.Join(names, ", "), "without", needed)
			}
			return Run(cmd.Context(), config)
		},
	}
	f := c.Flags()
	w := &config.Workload
	f.Var(&controlPlane, "control-plane", "the control plane's gRPC listener")
	f.StringVar(&config.Bootstrap, "bootstrap", "", "Envoy v3 Bootstrap file, YAML or JSON, to serve instead of joining a mesh")
	f.StringVar(&w.Service, "service", "", "name of the service that the workload serves, or by which it calls")
	f.StringVar(&w.Namespace, "namespace", mesh.DefaultNamespace, "namespace of the service")
	f.StringVar(&w.InstanceID, "instance-id", "", "id of this instance, unique in its service (default: host name and a random part)")
	f.Var(&app, "app-addr", "where the application takes requests; without it the workload only calls")
	f.Var(flags.OneOf(&protocol, "http", "http", "http2", "grpc", "tcp", "auto"), "app-protocol", "what the application speaks on --app-addr; http2 and grpc in the clear, with prior knowledge; tcp for all that is not HTTP; auto: each connection says by its first bytes whether it is HTTP, and is passed on as it is if not")
	f.StringVar(&w.AdvertiseAddr, "advertise-addr", "", "IP address or address:port by which peers reach --inbound-addr (default: the address that reaches the control plane)")
	f.Var(&inbound, "inbound-addr", "where peers reach the application")
	f.Var(&outbound, "outbound-addr", "loopback address where the application calls other services")
	f.StringSliceVar(&config.TCPUpstreams, "tcp-upstream", nil, "local port whose connections are relayed to a service: `[ADDR:]PORT=SERVICE[.NAMESPACE][:PORT]`; may be repeated")
	f.Var(&admin, "admin-addr", "loopback address of the admin port")
	f.Var(&labels, "label", "label of the instance; may be repeated")
	f.StringVar(&w.Zone, "zone", "", "zone the instance is in")
	f.Uint32Var(&w.Weight, "weight", 1, "share of the service's traffic, 1 to 10000")
	f.StringVar(&w.HealthPath, "health-path", "", "path on --app-addr that answers 200 to 399 while the application is well, or grpc:NAME for the gRPC health protocol (default: it is, if it accepts connections)")
	f.BoolVar(&multiplex, "multiplex", true, "carry HTTP to other sidecars multiplexed over few HTTP/2 connections, whatever the applications speak")
	f.StringVar(&config.OTLPEndpoint, "otlp-endpoint", "", "where spans go: grpc://host:4317 or http://host:4318; empty turns tracing off")
	f.Float64Var(&config.TraceRatio, "trace-ratio", 0.01, "share of the traces begun here that are sampled, 0 to 1")
	f.Var(flags.OneOf(&accessLog, "text", "text", "json", "off"), "access-log", "format of the access log on standard output")
	f.DurationVar(&config.DrainTimeout, "drain-timeout", defaultDrainTimeout, "how long requests may take to finish at shutdown")
	f.DurationVar(&config.TunnelIdleTimeout, "tunnel-idle-timeout", defaultTunnelIdleTimeout, "how long an upgraded connection, as of WebSocket, one by CONNECT or one of TCP may go without a byte")
	f.BoolVar(&config.AllowExternalConnect, "allow-external-connect", false, "let the application CONNECT through --outbound-addr, as by HTTPS_PROXY, to what is not in the mesh")
	f.Var(flags.LogLevel{Level: config.LogLevel}, "log-level", "what to log on standard error")
	return c
}

// idle returns the flags that are set and do nothing, for want of another one. Whoever
// sets one by hand means something by it; scripts that set the same for all sidecars do not.
func idle(set *pflag.FlagSet, config Config) (names []string, needed string) {
	var without []string
	switch {
	case config.ControlPlane == "":
		needed = "--control-plane"
		without = []string{"advertise-addr", "allow-external-connect", "app-addr", "app-protocol", "health-path", "inbound-addr", "label", "multiplex", "outbound-addr", "service", "tcp-upstream", "weight", "zone"}
	case config.Workload.AppAddr == "":
		needed = "--app-addr"
		without = []string{"advertise-addr", "app-protocol", "health-path", "inbound-addr", "label", "weight"}
	}
	for _, name := range without {
		if f := set.Lookup(name); f.Changed && f.Value.String() != "" {
			names = append(names, "--"+name)
		}
	}
	return names, needed
}
