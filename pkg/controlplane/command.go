package controlplane

import (
	"log"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
)

// Command returns the control plane's command line.
func Command() *cobra.Command {
	var (
		config                       = Config{LogLevel: new(slog.LevelVar), HandleSignals: true}.withDefaults()
		grpcAddr flags.ListenAddress = DefaultGRPCAddr
		httpAddr flags.ListenAddress = DefaultHTTPAddr
		etcd     flags.ListenAddress
		egress   flags.Address
		peer     flags.Address
		quota    = flags.Size(DefaultSagaQuota)
		format   string
	)
	c := &cobra.Command{
		Use:     "controlplane",
		Short:   "Keep the registry and tell the sidecars",
		Version: flags.Version(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.GRPCAddr, config.HTTPAddr, config.EtcdListen = string(grpcAddr), string(httpAddr), string(etcd)
			config.SagaEgress, config.SagaPeerAddr, config.SagaQuota = string(egress), string(peer), int64(quota)
			var stopLog func()
			config.Log, stopLog = flags.NewLogger(config.LogLevel, format, os.Stderr)
			defer stopLog()
			// net/http's client knows no other log than that of the process. What it says there is about what participants of sagas send.
			log.SetFlags(0)
			log.SetOutput(slog.NewLogLogger(config.Log.Handler(), slog.LevelDebug).Writer())
			if err := config.validate(); err != nil {
				return &flags.UsageError{Err: err}
			}
			return Run(cmd.Context(), config)
		},
	}
	f := c.Flags()
	f.StringVar(&config.DataDir, "data-dir", DefaultDataDir, "directory of the embedded etcd; made if absent")
	f.Var(&etcd, "etcd-listen", "loopback address at which etcdctl reaches the embedded etcd (default: none)")
	f.StringSliceVar(&config.Etcd.Endpoints, "etcd-endpoints", nil, "etcd cluster to use instead of the embedded one, as host:port or URL, separated by commas")
	f.StringVar(&config.Etcd.CACert, "etcd-cacert", "", "PEM file with the authorities of the cluster's certificates (default: the system's)")
	f.StringVar(&config.Etcd.Cert, "etcd-cert", "", "PEM file with the client certificate for the cluster")
	f.StringVar(&config.Etcd.Key, "etcd-key", "", "PEM file with the key of --etcd-cert")
	f.StringVar(&config.Etcd.User, "etcd-user", "", "NAME:PASSWORD for the cluster; others on this machine see flags, but not the variable")
	f.Var(&grpcAddr, "grpc-addr", "where sidecars and gRPC clients connect")
	f.Var(&httpAddr, "http-addr", "where REST, metrics and probes are served")
	f.BoolVar(&config.Insecure, "insecure", false, "permit addresses that other machines reach, though nothing is encrypted or authenticated")
	f.StringVar(&config.TrustDomain, "trust-domain", DefaultTrustDomain, "SPIFFE trust domain of the mesh's identities")
	f.Var(&egress, "saga-egress", "a sidecar's port for outgoing requests, through which the steps of sagas are called (default: the instances that are registered are called from here)")
	f.StringSliceVar(&config.SagaEtcdEndpoints, "saga-etcd-endpoints", nil, "etcd cluster for sagas, reached as --etcd-endpoints is (default: a second embedded one, in --data-dir/sagas; with --etcd-endpoints, none, and no sagas)")
	f.Var(&peer, "saga-peer-addr", "where other control planes that share --saga-etcd-endpoints reach --grpc-addr (default: what that is bound to, unless it is on loopback and that etcd is not)")
	f.Var(&quota, "saga-etcd-quota", "size of the file of the embedded etcd for sagas: when half of it is in use, no more sagas are taken; 8GiB at the most")
	f.DurationVar(&config.SagaRetention, "saga-retention", DefaultSagaRetention, "how long a saga is kept that has ended")
	f.StringVar(&config.OTLPEndpoint, "otlp-endpoint", "", "where spans of the API and of the calls of sagas go: grpc://host:4317 or http://host:4318; empty turns tracing off")
	f.Float64Var(&config.TraceRatio, "trace-ratio", 1, "share of the traces begun here that are sampled, 0 to 1")
	f.DurationVar(&config.DrainTime, "drain-time", DefaultDrainTime, "over how long the streams are ended at shutdown")
	f.Var(flags.OneOf(&format, flags.LogText, flags.LogText, flags.LogJSON), "log-format", "format of the log on standard error")
	f.Var(flags.LogLevel{Level: config.LogLevel}, "log-level", "what to log on standard error")
	return c
}
