package table

import (
	"context"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// Route returns the entry of the first route that matches. Nothing has to be
// learnt, so wait is always false.
func (r *Routes) Route(authority, path []byte, _ int64) (e *Entry, why reason.Reason, wait bool) {
	if e = r.Match(authority, path); e == nil {
		why = reason.NoRoute
	}
	return e, why, false
}

// Await is Route.
func (r *Routes) Await(_ context.Context, authority, path []byte) (*Entry, reason.Reason) {
	e, why, _ := r.Route(authority, path, 0)
	return e, why
}

// Inbound leads every request, whatever its authority, to the application beside
// the sidecar.
type Inbound struct{ entry Entry }

// NewInbound returns the router of a workload's inbound listener. destination
// names the workload's service.
func NewInbound(app *upstream.Cluster, destination string, m *metrics.Proxy) *Inbound {
	const unknown = "unknown" // who calls, until identities say
	return &Inbound{Entry{
		Cluster:     app,
		Timeout:     mesh.DefaultInboundTimeout,
		Requests:    m.Destination(unknown, destination),
		Source:      unknown,
		Destination: destination,
		Inbound:     true,
	}}
}

// Route returns the one entry.
func (i *Inbound) Route([]byte, []byte, int64) (*Entry, reason.Reason, bool) {
	return &i.entry, reason.None, false
}

// Await is Route.
func (i *Inbound) Await(context.Context, []byte, []byte) (*Entry, reason.Reason) {
	return &i.entry, reason.None
}
