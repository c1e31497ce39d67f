package catalog

import (
	"context"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
)

// maxAuthority is the longest authority that can name a service: three labels of
// 63 octets with what may follow them.
const maxAuthority = 256

// Router finds a request's destination by its authority. It is safe for
// concurrent use.
type Router struct {
	Catalog *Catalog
	// Namespace of names that do not say one.
	Namespace string
}

// Route returns the entry of a destination that is known. wait is true if it has
// to be learnt first.
func (r Router) Route(authority, path []byte, now int64) (e *table.Entry, why reason.Reason, wait bool) {
	var buf [maxAuthority + 64]byte
	name, ok := r.name(buf[:0], authority)
	if !ok {
		return nil, reason.NotAMeshName, false
	}
	d := r.Catalog.Lookup(name, now)
	if d == nil {
		return nil, reason.None, true
	}
	e, why = match(d, authority, path)
	return e, why, false
}

// Await is Route for a destination that nobody called before. See [Catalog.Await].
func (r Router) Await(ctx context.Context, authority, path []byte) (*table.Entry, reason.Reason) {
	name, ok := r.name(nil, authority)
	if !ok {
		return nil, reason.NotAMeshName
	}
	d, why := r.Catalog.Await(ctx, string(name))
	if why != reason.None {
		return nil, why
	}
	return match(d, authority, path)
}

func (r Router) name(buf, authority []byte) ([]byte, bool) {
	if len(authority) > maxAuthority {
		return nil, false
	}
	name, err := mesh.AppendDestination(buf, authority, r.Namespace)
	return name, err == nil
}

func match(d *Destination, authority, path []byte) (*table.Entry, reason.Reason) {
	if e := d.Routes.Match(authority, path); e != nil {
		return e, reason.None
	}
	return nil, reason.NoRoute
}
