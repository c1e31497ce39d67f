package mgmt

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/guard"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Config says what the API is for.
type Config struct {
	Registry *discovery.Registry
	View     *discovery.View
	Policies *policy.Policies
	Cache    *xdsserver.Cache
	Holder   Holder
	Log      *slog.Logger
}

// Holder tells which lost instances the data planes keep, and lets go of them.
type Holder interface {
	Held(service mesh.ServiceName) []guard.Held
	// Release returns how many it let go of: one, by its id, or if that is empty all.
	Release(service mesh.ServiceName, id string) int
}

// API serves. It is safe for concurrent use.
type API struct {
	c       Config
	closing context.Context //nolint:containedctx // it is the life of the API, not of a call
	close   context.CancelFunc
}

// New returns an API.
func New(c Config) *API {
	a := &API{c: c}
	a.closing, a.close = context.WithCancel(context.Background())
	return a
}

// Register adds the services to a gRPC server.
func (a *API) Register(g grpc.ServiceRegistrar) {
	meshv1.RegisterRegistryServer(g, &registryService{Config: a.c, closing: a.closing})
	meshv1.RegisterPoliciesServer(g, &policyService{Config: a.c})
	meshv1.RegisterSidecarsServer(g, &sidecarService{Config: a.c})
	meshv1.RegisterAttachmentServer(g, &attachmentService{Config: a.c, closing: a.closing})
}

// Close ends the long streams, each within a second: watchers are told, and
// attached instances stay registered.
func (a *API) Close() { a.close() }

// ready refuses what cannot be answered before the store was read.
func (c *Config) ready() error {
	if _, synced := c.View.Revision(); !synced {
		return statusUnsynced()
	}
	return nil
}

// service reads the name of a service from a request.
func (c *Config) service(namespace, name string) (mesh.ServiceName, error) {
	return c.name(namespace, label{"service", name})
}

// instance reads the name of an instance from a request.
func (c *Config) instance(namespace, service, id string) (discovery.Key, error) {
	name, err := c.name(namespace, label{"service", service}, label{"id", id})
	return discovery.Key{Service: name, ID: id}, err
}

type label struct{ field, value string }

// name checks the labels of a name, of which the first is the service's, all of them
// at once.
func (c *Config) name(namespace string, labels ...label) (mesh.ServiceName, error) {
	if err := c.ready(); err != nil {
		return mesh.ServiceName{}, err
	}
	if namespace == "" {
		namespace = mesh.DefaultNamespace
	}
	var faults []mesh.Fault
	for _, l := range append([]label{{"namespace", namespace}}, labels...) {
		if err := mesh.CheckLabel(l.value); err != nil {
			faults = append(faults, mesh.Fault{Field: l.field, Reason: err.Error()})
		}
	}
	if len(faults) > 0 {
		return mesh.ServiceName{}, statusOf(&mesh.InvalidError{What: "the request", Faults: faults})
	}
	return mesh.ServiceName{Namespace: namespace, Name: labels[0].value}, nil
}
