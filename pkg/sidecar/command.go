package sidecar

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
)

// Command returns the sidecar's command line.
func Command() *cobra.Command {
	var (
		config    = Config{LogLevel: new(slog.LevelVar), HandleSignals: true}
		admin     flags.Address
		accessLog string
	)
	c := &cobra.Command{
		Use:     "sidecar --bootstrap FILE",
		Short:   "Proxy the traffic of one workload",
		Version: flags.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.AdminAddr = string(admin)
			config.Log = flags.NewLogger(config.LogLevel, flags.LogText, os.Stderr)
			if accessLog != "off" {
				config.AccessLog = os.Stdout
				config.AccessLogFormat, _ = accesslog.ParseFormat(accessLog) // OneOf has checked it
			}
			if err := config.validate(); err != nil {
				return &flags.UsageError{Err: err}
			}
			return Run(cmd.Context(), config)
		},
	}
	f := c.Flags()
	f.StringVar(&config.Bootstrap, "bootstrap", "", "Envoy v3 Bootstrap file, YAML or JSON, with the listeners and clusters to serve")
	f.Var(&admin, "admin-addr", "loopback address of the admin port (default: what the bootstrap file says)")
	f.StringVar(&config.OTLPEndpoint, "otlp-endpoint", "", "where spans go: grpc://host:4317 or http://host:4318; empty turns tracing off")
	f.Float64Var(&config.TraceRatio, "trace-ratio", 0.01, "share of the traces begun here that are sampled, 0 to 1")
	f.Var(flags.OneOf(&accessLog, "text", "text", "json", "off"), "access-log", "format of the access log on standard output")
	f.DurationVar(&config.DrainTimeout, "drain-timeout", config.withDefaults().DrainTimeout, "how long requests may take to finish at shutdown")
	f.Var(flags.LogLevel{Level: config.LogLevel}, "log-level", "what to log on standard error")
	return c
}
