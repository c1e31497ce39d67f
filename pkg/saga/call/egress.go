package call

import (
	"context"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// Egress makes calls through a sidecar's port for outgoing requests, which finds the instances, balances, and breaks circuits. It is
// safe for concurrent use.
type Egress struct {
	address string
	wire    wire
}

// NewEgress returns calls through the sidecar at an address, host:port. Each is a span of tracer, below the one that its saga was started in.
func NewEgress(address string, tracer *tracing.Tracer) *Egress {
	e := &Egress{address: address}
	e.wire.configure(tracer, 0)
	return e
}

// Close closes the connections that are idle.
func (e *Egress) Close() { e.wire.close() }

// Call implements coordinator.Caller.
func (e *Egress) Call(ctx context.Context, r *coordinator.Request) saga.Outcome {
	return e.wire.call(ctx, r, func() (target, error) {
		return target{address: e.address, sidecar: true, done: func(breaker.Outcome) {}}, nil
	})
}
