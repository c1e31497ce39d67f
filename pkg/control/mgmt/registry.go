package mgmt

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// registryService implements mesh.v1.Registry.
type registryService struct {
	meshv1.UnimplementedRegistryServer
	Config
	closing context.Context //nolint:containedctx // it is the life of the API, not of a call
}

func (s *registryService) ListServices(ctx context.Context, r *meshv1.ListServicesRequest) (*meshv1.ListServicesResponse, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	if r.GetNamespace() != "" {
		if err := mesh.CheckLabel(r.GetNamespace()); err != nil {
			return nil, statusOf(&mesh.InvalidError{What: "the request", Faults: []mesh.Fault{{Field: "namespace", Reason: err.Error()}}})
		}
	}
	services, revision := s.View.Services(r.GetNamespace())
	answer := &meshv1.ListServicesResponse{Revision: revision}
	for _, known := range services {
		answer.Services = append(answer.Services, s.describe(known))
	}
	return answer, s.settled(ctx)
}

func (s *registryService) GetService(ctx context.Context, r *meshv1.GetServiceRequest) (*meshv1.Service, error) {
	name, err := s.service(r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, err
	}
	known, ok := s.View.Service(name)
	if !ok {
		return nil, statusUnknownService(name)
	}
	return s.describe(known), s.settled(ctx)
}

// settled returns when all that was read of the view is in force: who reads of an
// instance finds it through the data planes, too.
func (s *registryService) settled(ctx context.Context) error {
	revision, _ := s.View.Revision()
	return statusOf(s.View.Await(ctx, revision))
}

func (s *registryService) describe(known discovery.Service) *meshv1.Service {
	d := &meshv1.Service{
		Name: known.Name.Name, Namespace: known.Name.Namespace, Ports: known.Ports,
		Instances: uint32(len(known.Instances)), HeldInstances: uint32(len(s.Holder.Held(known.Name))), Revision: known.Revision,
	}
	for _, record := range known.Instances {
		if discovery.Usable(record.Instance) {
			d.UsableInstances++
		}
	}
	return d
}

func (s *registryService) ListInstances(ctx context.Context, r *meshv1.ListInstancesRequest) (*meshv1.ListInstancesResponse, error) {
	name, err := s.service(r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, err
	}
	known, ok := s.View.Service(name)
	if !ok {
		return nil, statusUnknownService(name)
	}
	revision, _ := s.View.Revision()
	answer := &meshv1.ListInstancesResponse{Instances: instances(known.Instances), Revision: revision}
	for _, h := range s.Holder.Held(name) {
		answer.Held = append(answer.Held, &meshv1.HeldInstance{
			Instance: h.Record.Instance, LostAt: timestamppb.New(h.Lost), HeldUntil: timestamppb.New(h.Until()),
		})
	}
	return answer, s.settled(ctx)
}

func instances(records []*discovery.Record) []*meshv1.Instance {
	all := make([]*meshv1.Instance, 0, len(records))
	for _, record := range records {
		all = append(all, record.Instance)
	}
	return all
}

func (s *registryService) GetInstance(ctx context.Context, r *meshv1.GetInstanceRequest) (*meshv1.Instance, error) {
	key, err := s.instance(r.GetNamespace(), r.GetService(), r.GetId())
	if err != nil {
		return nil, err
	}
	record, ok := s.View.Instance(key)
	if !ok {
		return nil, statusOf(discovery.ErrNotFound)
	}
	return record.Instance, s.settled(ctx)
}

func (s *registryService) RegisterInstance(ctx context.Context, r *meshv1.RegisterInstanceRequest) (*meshv1.Instance, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	i, err := s.named(r.GetInstance(), r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, statusOf(err)
	}
	registered, err := s.Registry.Register(ctx, i)
	return registered, statusOf(err)
}

// named returns an instance with the names that the request says beside it. faults is
// what is already known to be wrong with it.
func (c *Config) named(i *meshv1.Instance, namespace, service string, faults ...mesh.Fault) (*meshv1.Instance, error) {
	if i == nil {
		return nil, &mesh.InvalidError{What: "the request", Faults: []mesh.Fault{{Field: "instance", Reason: "is required"}}}
	}
	i = proto.Clone(i).(*meshv1.Instance)
	faults = append(faults, agree(&i.Namespace, namespace, &i.Service, service)...)
	if len(faults) == 0 {
		return i, nil
	}
	return nil, &mesh.InvalidError{What: "the instance", Faults: mesh.WithOthers(faults, c.Registry.Check(i))}
}

// agree completes the names that an object says of itself with those that the
// request says beside it. The object may repeat them, but not say others.
func agree(ownNamespace *string, namespace string, ownService *string, service string) (faults []mesh.Fault) {
	for _, n := range []struct {
		field, beside string
		own           *string
	}{{"namespace", namespace, ownNamespace}, {"service", service, ownService}} {
		switch {
		case *n.own == "":
			*n.own = n.beside
		case n.beside != "" && n.beside != *n.own:
			faults = append(faults, mesh.Fault{Field: n.field, Reason: fmt.Sprintf("is %.70q here and %.70q in the request", *n.own, n.beside)})
		}
	}
	return faults
}

func (s *registryService) RenewInstance(ctx context.Context, r *meshv1.RenewInstanceRequest) (*meshv1.RenewInstanceResponse, error) {
	key, err := s.instance(r.GetNamespace(), r.GetService(), r.GetId())
	if err != nil {
		return nil, err
	}
	ttl, err := s.Registry.Renew(ctx, key)
	if err != nil {
		return nil, statusOf(err)
	}
	return &meshv1.RenewInstanceResponse{Ttl: durationpb.New(ttl)}, nil
}

func (s *registryService) DeregisterInstance(ctx context.Context, r *meshv1.DeregisterInstanceRequest) (*meshv1.DeregisterInstanceResponse, error) {
	key, err := s.instance(r.GetNamespace(), r.GetService(), r.GetId())
	if err != nil {
		return nil, err
	}
	revision, err := s.Registry.Deregister(ctx, key)
	if errors.Is(err, discovery.ErrNotFound) && s.Holder.Release(key.Service, key.ID) > 0 {
		revision, _ = s.View.Revision()
		return &meshv1.DeregisterInstanceResponse{Revision: revision}, nil
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return &meshv1.DeregisterInstanceResponse{Revision: revision}, nil
}

func (s *registryService) ReleaseInstances(_ context.Context, r *meshv1.ReleaseInstancesRequest) (*meshv1.ReleaseInstancesResponse, error) {
	name, err := s.service(r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, err
	}
	if _, ok := s.View.Service(name); !ok {
		return nil, statusUnknownService(name)
	}
	return &meshv1.ReleaseInstancesResponse{Released: uint32(s.Holder.Release(name, ""))}, nil
}
