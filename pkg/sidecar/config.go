package sidecar

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/accesslog"
)

// Config is what a sidecar is told at its start.
type Config struct {
	// Bootstrap is the path of an Envoy v3 Bootstrap file.
	Bootstrap string
	// AdminAddr is the host:port of the admin port, on loopback. Empty: what the
	// bootstrap file says, or none.
	AdminAddr string

	// OTLPEndpoint is where spans are sent: see [tracing.Config]. Empty: nowhere.
	OTLPEndpoint string
	// TraceRatio is the share of the traces begun here that are sampled, 0 to 1.
	TraceRatio float64

	// AccessLog is where access log lines go; nil: nowhere.
	AccessLog       io.Writer
	AccessLogFormat accesslog.Format

	// DrainTimeout bounds the finishing of requests at shutdown. Default 20 s.
	DrainTimeout time.Duration

	LogLevel *slog.LevelVar
	Log      *slog.Logger
	// HandleSignals lets SIGTERM and SIGINT end the process's sidecar.
	HandleSignals bool
	// Ready is called once, when the sidecar serves; nil: nobody is.
	Ready func(Addresses)
}

// Addresses is where a sidecar listens.
type Addresses struct {
	Admin     net.Addr // nil: no admin port
	Listeners map[string]net.Addr
}

func (c Config) withDefaults() Config {
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 20 * time.Second
	}
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
	if c.Bootstrap == "" {
		faults = append(faults, errors.New("--bootstrap is required: the path of an Envoy v3 Bootstrap file"))
	}
	if c.AdminAddr != "" && !mesh.IsLoopback(c.AdminAddr) {
		faults = append(faults, fmt.Errorf("--admin-addr %s is not a loopback address: whoever reaches the admin port can drain this process and read its memory", c.AdminAddr))
	}
	if c.TraceRatio < 0 || c.TraceRatio > 1 {
		faults = append(faults, fmt.Errorf("--trace-ratio is %v, not 0 to 1", c.TraceRatio))
	}
	return errors.Join(faults...)
}
