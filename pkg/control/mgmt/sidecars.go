package mgmt

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
)

// sidecarService implements mesh.v1.Sidecars.
type sidecarService struct {
	meshv1.UnimplementedSidecarsServer
	Config
}

func (s *sidecarService) ListSidecars(context.Context, *meshv1.ListSidecarsRequest) (*meshv1.ListSidecarsResponse, error) {
	answer := &meshv1.ListSidecarsResponse{}
	for _, c := range s.Cache.Clients() {
		sidecar := &meshv1.Sidecar{
			Node: c.Node, Service: c.Service, ConnectedAt: timestamppb.New(c.Since), Address: c.Peer, UserAgent: c.UserAgent,
		}
		for _, t := range c.Types {
			sidecar.Types = append(sidecar.Types, typeState(t))
		}
		answer.Sidecars = append(answer.Sidecars, sidecar)
	}
	return answer, nil
}

func typeState(t xdsserver.TypeState) *meshv1.TypeState {
	s := &meshv1.TypeState{TypeUrl: t.Type.URL(), Subscribed: uint32(t.Subscribed)}
	for _, a := range t.Applied {
		s.Applied = append(s.Applied, &meshv1.AppliedResource{Name: a.Name, Version: a.Version})
	}
	for _, r := range t.Rejected {
		s.Rejected = append(s.Rejected, &meshv1.RejectedResource{Name: r.Name, Version: r.Version, Reason: r.Reason, At: timestamppb.New(r.At)})
	}
	return s
}
