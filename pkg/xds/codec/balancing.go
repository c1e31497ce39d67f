package codec

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// choices is how many hosts least request compares, in Envoy, grpc-go and here.
const choices = 2

// setBalancing says the policy in the way that Envoy and grpc-go both accept.
// grpc-go refuses the enum's RANDOM and has no such policy, so it is given a list
// to take the first policy it knows from (gRFC A52): round robin.
func setBalancing(f *faults, m *clusterv3.Cluster, p mesh.LBPolicy) {
	switch p {
	case mesh.LBLeastRequest:
		m.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
		m.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{
			LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: wrapperspb.UInt32(choices)},
		}
	case mesh.LBRoundRobin, mesh.LBWeightedRoundRobin:
		m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	case mesh.LBRandom:
		m.LoadBalancingPolicy = &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{
			policyProto("envoy.load_balancing_policies.random", &randomv3.Random{}),
			policyProto("envoy.load_balancing_policies.round_robin", &roundv3.RoundRobin{}),
		}}
	default:
		f.add("lb_policy", "policy %d is %s", p, notSupported)
	}
}

func policyProto(name string, config proto.Message) *clusterv3.LoadBalancingPolicy_Policy {
	return &clusterv3.LoadBalancingPolicy_Policy{
		TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(config)},
	}
}

// readBalancing lets load_balancing_policy win over lb_policy, as in Envoy.
func readBalancing(f *faults, path string, m *clusterv3.Cluster) mesh.LBPolicy {
	if m.GetLoadBalancingPolicy() != nil {
		return readPolicies(f, field(path, "load_balancing_policy.policies"), m.GetLoadBalancingPolicy().GetPolicies())
	}
	if m.GetLeastRequestLbConfig() != nil && m.GetLbPolicy() != clusterv3.Cluster_LEAST_REQUEST {
		f.add(field(path, "least_request_lb_config"), "has no effect without lb_policy LEAST_REQUEST")
	}
	switch m.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		return mesh.LBRoundRobin
	case clusterv3.Cluster_LEAST_REQUEST:
		at := field(path, "least_request_lb_config.choice_count")
		number(f, at, m.GetLeastRequestLbConfig().GetChoiceCount(), choices, choices, choices)
		return mesh.LBLeastRequest
	case clusterv3.Cluster_RANDOM:
		return mesh.LBRandom
	}
	f.add(field(path, "lb_policy"), "%s is %s: it must be LEAST_REQUEST, ROUND_ROBIN or RANDOM", m.GetLbPolicy(), notSupported)
	return mesh.LBRoundRobin
}

// readPolicies takes the first of a list. All of them must be in the subset, so
// the first is the first that is known.
func readPolicies(f *faults, path string, list []*clusterv3.LoadBalancingPolicy_Policy) mesh.LBPolicy {
	if len(list) == 0 {
		f.add(path, "must not be empty")
		return mesh.LBRoundRobin
	}
	for i, p := range list {
		checkName(f, field(item(path, i), "typed_extension_config.name"), p.GetTypedExtensionConfig().GetName())
	}
	at := field(item(path, 0), "typed_extension_config.typed_config")
	config := list[0].GetTypedExtensionConfig().GetTypedConfig()
	least := &leastv3.LeastRequest{}
	switch {
	case unpack(config, &randomv3.Random{}):
		return mesh.LBRandom
	case unpack(config, &roundv3.RoundRobin{}):
		return mesh.LBRoundRobin
	case unpack(config, least):
		number(f, field(at, "choice_count"), least.GetChoiceCount(), choices, choices, choices)
		return mesh.LBLeastRequest
	}
	f.add(at, "must be a load balancing policy")
	return mesh.LBRoundRobin
}
