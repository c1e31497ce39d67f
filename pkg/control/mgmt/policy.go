package mgmt

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/policy"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// policyService implements mesh.v1.Policies.
type policyService struct {
	meshv1.UnimplementedPoliciesServer
	Config
}

func (s *policyService) GetPolicy(_ context.Context, r *meshv1.GetPolicyRequest) (*meshv1.Policy, error) {
	name, err := s.service(r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, err
	}
	p := s.Policies.Get(name)
	if p == nil {
		return nil, statusOf(policy.ErrNotFound)
	}
	return p, nil
}

func (s *policyService) PutPolicy(ctx context.Context, r *meshv1.PutPolicyRequest) (*meshv1.Policy, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	p, err := ofService(r.GetPolicy(), r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, statusOf(err)
	}
	if p, err = s.Policies.Put(ctx, p); err != nil {
		return nil, statusOf(err)
	}
	return p, statusOf(s.View.Await(ctx, p.GetRevision()))
}

// ofService returns a policy with the names that the request says beside it. faults is
// what is already known to be wrong with it.
func ofService(p *meshv1.Policy, namespace, service string, faults ...mesh.Fault) (*meshv1.Policy, error) {
	if p == nil {
		return nil, &mesh.InvalidError{What: "the request", Faults: []mesh.Fault{{Field: "policy", Reason: "is required"}}}
	}
	p = proto.Clone(p).(*meshv1.Policy)
	faults = append(faults, agree(&p.Namespace, namespace, &p.Service, service)...)
	p.Namespace = cmp.Or(p.GetNamespace(), mesh.DefaultNamespace)
	if len(faults) == 0 {
		return p, nil
	}
	return nil, &mesh.InvalidError{What: "the policy", Faults: mesh.WithOthers(faults, policy.Check(p))}
}

func (s *policyService) DeletePolicy(ctx context.Context, r *meshv1.DeletePolicyRequest) (*meshv1.DeletePolicyResponse, error) {
	name, err := s.service(r.GetNamespace(), r.GetService())
	if err != nil {
		return nil, err
	}
	revision, err := s.Policies.Delete(ctx, name)
	if err != nil {
		return nil, statusOf(err)
	}
	return &meshv1.DeletePolicyResponse{Revision: revision}, statusOf(s.View.Await(ctx, revision))
}
