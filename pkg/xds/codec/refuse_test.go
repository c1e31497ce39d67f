package codec

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// decodeAny decodes a resource of any type for its error.
func decodeAny(a *anypb.Any) error {
	typ, _ := ParseType(a.GetTypeUrl())
	var err error
	switch typ {
	case TypeListener:
		_, err = DecodeListener(a)
	case TypeRoute:
		_, err = DecodeRoute(a)
	case TypeCluster:
		_, err = DecodeCluster(a)
	case TypeEndpoints:
		_, err = DecodeEndpoints(a)
	}
	return err
}

// altered encodes v, lets change alter the message, and decodes that.
func altered[M proto.Message](t *testing.T, e Encoded, m M, change func(M)) error {
	t.Helper()
	if err := proto.Unmarshal(e.Body, m); err != nil {
		t.Fatal(err)
	}
	change(m)
	return decodeAny(pack(m))
}

func TestResourcesOutsideOfTheSubsetAreRefusedWithPath(t *testing.T) {
	cluster := func(change func(*clusterv3.Cluster)) error {
		return altered(t, must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second})), &clusterv3.Cluster{}, change)
	}
	route := func(change func(*routev3.Route)) error {
		r := mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{{Name: "v", Domains: []string{"*"},
			Routes: []mesh.Route{{Action: mesh.RouteAction{Cluster: "c", Timeout: time.Second}}}}}}
		return altered(t, must(EncodeRoute(r)), &routev3.RouteConfiguration{}, func(m *routev3.RouteConfiguration) {
			change(m.VirtualHosts[0].Routes[0])
		})
	}
	manager := func(change func(*managerv3.HttpConnectionManager)) error {
		l := must(EncodeListener(mesh.Listener{Name: "orders.default", RouteName: "r"}))
		return altered(t, l, &listenerv3.Listener{}, func(m *listenerv3.Listener) {
			inner := &managerv3.HttpConnectionManager{}
			if !unpack(m.ApiListener.ApiListener, inner) {
				t.Fatal("no manager")
			}
			change(inner)
			m.ApiListener.ApiListener = pack(inner)
		})
	}
	endpoints := func(change func(*endpointv3.LocalityLbEndpoints)) error {
		a := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.1:80")}}
		return altered(t, must(EncodeEndpoints(a)), &endpointv3.ClusterLoadAssignment{}, func(m *endpointv3.ClusterLoadAssignment) {
			change(m.Endpoints[0])
		})
	}
	for want, got := range map[string]error{
		"lb_subset_config: not supported by Fairlead": cluster(func(c *clusterv3.Cluster) {
			c.LbSubsetConfig = &clusterv3.Cluster_LbSubsetConfig{}
		}),
		"<9999>: field is not known, so not supported by Fairlead": cluster(func(c *clusterv3.Cluster) { addUnknown(c) }),
		"eds_cluster_config<9999>: field is not known":             cluster(func(c *clusterv3.Cluster) { addUnknown(c.EdsClusterConfig) }),
		"connect_timeout<9999>: field is not known":                cluster(func(c *clusterv3.Cluster) { addUnknown(c.ConnectTimeout) }),
		"connect_timeout: is {seconds: 1, nanos: -7}": cluster(func(c *clusterv3.Cluster) {
			c.ConnectTimeout = &durationpb.Duration{Seconds: 1, Nanos: -7}
		}),
		"type: LOGICAL_DNS is not supported by Fairlead": cluster(func(c *clusterv3.Cluster) {
			c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		}),
		"type: must be EDS or STATIC": cluster(func(c *clusterv3.Cluster) { c.ClusterDiscoveryType = nil }),
		"eds_cluster_config.eds_config: must be ads": cluster(func(c *clusterv3.Cluster) {
			c.EdsClusterConfig.EdsConfig = nil
		}),
		`eds_cluster_config.service_name: is "d", not the cluster's name`: cluster(func(c *clusterv3.Cluster) {
			c.EdsClusterConfig.ServiceName = "d"
		}),
		`metadata.filter_metadata: not supported`: cluster(func(c *clusterv3.Cluster) {
			c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.lb": {}}}
		}),
		`metadata.typed_filter_metadata["other"]: not supported`: cluster(func(c *clusterv3.Cluster) {
			c.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{"other": {}}}
		}),
		`metadata.typed_filter_metadata["fairlead.cluster.v1"]: type "type.googleapis.com/no.such.Thing" is not supported`: cluster(func(c *clusterv3.Cluster) {
			c.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{clusterMetadata: {TypeUrl: typePrefix + "no.such.Thing"}}}
		}),
		`metadata.typed_filter_metadata["fairlead.cluster.v1"]: not a mesh.v1.ClusterExtension`: cluster(func(c *clusterv3.Cluster) {
			c.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{
				clusterMetadata: {TypeUrl: typePrefix + "mesh.v1.ClusterExtension", Value: []byte{0xff}}}}
		}),
		"load_balancing_policy.policies: must not be empty": cluster(func(c *clusterv3.Cluster) {
			c.LoadBalancingPolicy = &clusterv3.LoadBalancingPolicy{}
		}),
		"name: xdstp: names are not supported": cluster(func(c *clusterv3.Cluster) { c.Name = "xdstp://a/b" }),
		"name: must be UTF-8":                  cluster(func(c *clusterv3.Cluster) { c.Name = "a\nb" }),
		"virtual_hosts[0].routes[0].match: must have prefix, path, safe_regex or connect_matcher": route(func(r *routev3.Route) {
			r.Match = nil
		}),
		"virtual_hosts[0].routes[0].match.dynamic_metadata: not supported": route(func(r *routev3.Route) {
			r.Match.DynamicMetadata = []*matcherv3.MetadataMatcher{{Filter: "x"}}
		}),
		"virtual_hosts[0].routes[0].route.cluster_header: not supported": route(func(r *routev3.Route) {
			r.GetRoute().ClusterSpecifier = &routev3.RouteAction_ClusterHeader{ClusterHeader: "x"}
		}),
		"routes[0].typed_per_filter_config: not supported": route(func(r *routev3.Route) {
			r.TypedPerFilterConfig = map[string]*anypb.Any{"x": {}}
		}),
		"routes[0].route.max_stream_duration.max_stream_duration: not supported": route(func(r *routev3.Route) {
			r.GetRoute().MaxStreamDuration.MaxStreamDuration = durationpb.New(time.Second)
		}),
		"api_listener.api_listener.merge_slashes: not supported": manager(func(m *managerv3.HttpConnectionManager) {
			m.MergeSlashes = true
		}),
		"api_listener.api_listener.tracing: not supported by Fairlead: spans are sent where --otlp-endpoint says": manager(func(m *managerv3.HttpConnectionManager) {
			m.Tracing = &managerv3.HttpConnectionManager_Tracing{}
		}),
		"api_listener.api_listener: must have route_config or rds": manager(func(m *managerv3.HttpConnectionManager) {
			m.RouteSpecifier = nil
		}),
		"api_listener.api_listener.rds.config_source.self: not supported": manager(func(m *managerv3.HttpConnectionManager) {
			m.GetRds().ConfigSource.ConfigSourceSpecifier = &corev3.ConfigSource_Self{Self: &corev3.SelfConfigSource{}}
		}),
		"api_listener.api_listener.http_filters[0].typed_config: must be the filter of gRPC-Web: no other comes before the router's": manager(func(m *managerv3.HttpConnectionManager) {
			m.HttpFilters = append(m.HttpFilters, m.HttpFilters[0])
		}),
		"http_filters[0].typed_config.respect_expected_rq_timeout: not supported": manager(func(m *managerv3.HttpConnectionManager) {
			m.HttpFilters[0].ConfigType = &managerv3.HttpFilter_TypedConfig{TypedConfig: pack(&routerv3.Router{RespectExpectedRqTimeout: true})}
		}),
		"endpoints[0].priority: not supported": endpoints(func(l *endpointv3.LocalityLbEndpoints) { l.Priority = 1 }),
		"endpoints[0].load_balancing_weight: is 0": endpoints(func(l *endpointv3.LocalityLbEndpoints) {
			l.LoadBalancingWeight = wrapperspb.UInt32(0)
		}),
		"endpoints[0].lb_endpoints[0].endpoint_name: not supported": endpoints(func(l *endpointv3.LocalityLbEndpoints) {
			l.LbEndpoints[0].HostIdentifier = &endpointv3.LbEndpoint_EndpointName{EndpointName: "x"}
		}),
		"endpoints[0].lb_endpoints[0].health_status: TIMEOUT is not supported": endpoints(func(l *endpointv3.LocalityLbEndpoints) {
			l.LbEndpoints[0].HealthStatus = corev3.HealthStatus_TIMEOUT
		}),
		"endpoints[0].lb_endpoints[1].endpoint.address: 10.0.0.1:80 is there twice": endpoints(func(l *endpointv3.LocalityLbEndpoints) {
			l.LbEndpoints = append(l.LbEndpoints, l.LbEndpoints[0])
		}),
	} {
		var refused *Error
		if !errors.As(got, &refused) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v\nwant %s", got, want)
		}
	}
}

// What is fixed in docs/xds-subset.md has one value, and what has a range no other.
func TestValuesOutsideOfTheirRangesAreRefusedWithPath(t *testing.T) {
	n := wrapperspb.UInt32
	for path, change := range map[string]func(c *clusterv3.Cluster, o *clusterv3.OutlierDetection){
		"connect_timeout": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.ConnectTimeout = durationpb.New(2 * time.Hour)
		},
		"lb_policy": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.LbConfig, c.LbPolicy = nil, clusterv3.Cluster_MAGLEV
		},
		"least_request_lb_config.choice_count": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
			c.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{ChoiceCount: n(3)}}
		},
		`metadata.typed_filter_metadata["fairlead.cluster.v1"].weighted_round_robin`: func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.LbConfig, c.LbPolicy = nil, clusterv3.Cluster_RANDOM
			extended(c, &meshv1.ClusterExtension{WeightedRoundRobin: true})
		},
		`metadata.typed_filter_metadata["fairlead.cluster.v1"].breaker.half_open_requests`: func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			extended(c, &meshv1.ClusterExtension{Breaker: &meshv1.BreakerExtension{HalfOpenRequests: 1001}})
		},
		"circuit_breakers.thresholds[0].priority": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.CircuitBreakers.Thresholds[0].Priority = 2
		},
		"circuit_breakers.thresholds[1].priority": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.CircuitBreakers.Thresholds = append(c.CircuitBreakers.Thresholds, c.CircuitBreakers.Thresholds[0])
		},
		"circuit_breakers.thresholds[0].max_pending_requests": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.CircuitBreakers.Thresholds[0].MaxPendingRequests = n(0)
		},
		"circuit_breakers.thresholds[0].max_requests": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.CircuitBreakers.Thresholds[0].MaxRequests = n(0)
		},
		"circuit_breakers.thresholds[0].max_connections": func(c *clusterv3.Cluster, _ *clusterv3.OutlierDetection) {
			c.CircuitBreakers.Thresholds[0].MaxConnections = n(0)
		},
		"outlier_detection.consecutive_5xx": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.Consecutive_5Xx = n(0)
		},
		"outlier_detection.enforcing_consecutive_5xx": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.EnforcingConsecutive_5Xx = n(50)
		},
		"outlier_detection.enforcing_consecutive_gateway_failure": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.EnforcingConsecutiveGatewayFailure = n(100)
		},
		"outlier_detection.enforcing_success_rate": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.EnforcingSuccessRate = n(100)
		},
		"outlier_detection.enforcing_failure_percentage": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.EnforcingFailurePercentage = n(50)
		},
		"outlier_detection.failure_percentage_threshold": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.FailurePercentageThreshold = n(101)
		},
		"outlier_detection.failure_percentage_request_volume": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.FailurePercentageRequestVolume = n(0)
		},
		"outlier_detection.failure_percentage_minimum_hosts": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.EnforcingFailurePercentage, o.FailurePercentageMinimumHosts = n(100), n(5)
		},
		"outlier_detection.interval": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.Interval = durationpb.New(time.Millisecond)
		},
		"outlier_detection.base_ejection_time": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.BaseEjectionTime, o.MaxEjectionTime = durationpb.New(2*time.Hour), durationpb.New(3*time.Hour)
		},
		"outlier_detection.max_ejection_time": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.MaxEjectionTime = durationpb.New(25 * time.Hour)
		},
		"outlier_detection.max_ejection_percent": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.MaxEjectionPercent = n(0)
		},
		"outlier_detection.always_eject_one_host": func(_ *clusterv3.Cluster, o *clusterv3.OutlierDetection) {
			o.AlwaysEjectOneHost = wrapperspb.Bool(false)
		},
	} {
		got := altered(t, must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second})), &clusterv3.Cluster{}, func(c *clusterv3.Cluster) {
			change(c, c.GetOutlierDetection())
		})
		var refused *Error
		if !errors.As(got, &refused) || len(refused.Faults) != 1 || !strings.HasPrefix(got.Error(), path+": ") {
			t.Errorf("%v\nwant one fault, of %s", got, path)
		}
	}
}

func extended(c *clusterv3.Cluster, x *meshv1.ClusterExtension) {
	c.Metadata = &corev3.Metadata{TypedFilterMetadata: map[string]*anypb.Any{clusterMetadata: pack(x)}}
}

func TestLongestOpenTimeIsNoShorterThanTheFirst(t *testing.T) {
	for base, want := range map[time.Duration]time.Duration{time.Second: 300 * time.Second, time.Hour: time.Hour} {
		m := &clusterv3.Cluster{}
		if err := proto.Unmarshal(must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second})).Body, m); err != nil {
			t.Fatal(err)
		}
		m.OutlierDetection.BaseEjectionTime, m.OutlierDetection.MaxEjectionTime = durationpb.New(base), nil
		if c, err := DecodeCluster(pack(m)); err != nil || c.Breaker.OpenTime != base || c.Breaker.MaxOpenTime != want {
			t.Errorf("open for %v, at most %v (%v); want %v and %v", c.Breaker.OpenTime, c.Breaker.MaxOpenTime, err, base, want)
		}
	}
}

func TestIPv4AddressesInIPv6AreIPv4(t *testing.T) {
	a := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.1:80")}}
	m := &endpointv3.ClusterLoadAssignment{}
	if err := proto.Unmarshal(must(EncodeEndpoints(a)).Body, m); err != nil {
		t.Fatal(err)
	}
	m.Endpoints[0].LbEndpoints[0].GetEndpoint().Address.GetSocketAddress().Address = "::ffff:10.0.0.1"
	got, err := DecodeEndpoints(pack(m))
	if err != nil || got.Endpoints[0].Address != a.Endpoints[0].Address {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAHostInTwoSpellingsIsThereTwice(t *testing.T) {
	a := mesh.LoadAssignment{Cluster: "c", Endpoints: []mesh.Endpoint{endpoint("10.0.0.1:80"), endpoint("10.0.0.2:80")}}
	err := altered(t, must(EncodeEndpoints(a)), &endpointv3.ClusterLoadAssignment{}, func(m *endpointv3.ClusterLoadAssignment) {
		m.Endpoints[0].LbEndpoints[1].GetEndpoint().Address.GetSocketAddress().Address = "::ffff:10.0.0.1"
	})
	if err == nil || !strings.Contains(err.Error(), "lb_endpoints[1].endpoint.address: 10.0.0.1:80 is there twice") {
		t.Error(err)
	}
}

func addUnknown(m proto.Message) {
	raw := protowire.AppendTag(nil, 9999, protowire.VarintType)
	m.ProtoReflect().SetUnknown(protoreflect.RawFields(protowire.AppendVarint(raw, 1)))
}

func TestAnotherTypeIsNotDecoded(t *testing.T) {
	e := must(EncodeRoute(mesh.RouteConfiguration{Name: "r"}))
	if _, err := DecodeCluster(e.Any()); err == nil {
		t.Error("a route is taken for a cluster")
	}
	if _, err := DecodeCluster(nil); err == nil {
		t.Error("nothing is taken for a cluster")
	}
	if _, err := DecodeRoute(&anypb.Any{TypeUrl: RouteURL, Value: make([]byte, MaxResourceBytes+1)}); err == nil {
		t.Error("a resource without bound is taken")
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	err := altered(t, must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second})), &clusterv3.Cluster{}, func(c *clusterv3.Cluster) {
		c.Name = ""
		c.RespectDnsTtl = true //nolint:staticcheck // that it is deprecated makes no difference
		c.ConnectTimeout = durationpb.New(-time.Second)
		c.OutlierDetection.MaxEjectionPercent = wrapperspb.UInt32(500)
		addUnknown(c.OutlierDetection)
	})
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Faults) != 5 {
		t.Errorf("want five faults, got\n%v", err)
	}
}

func TestWhereTheExtensionSpeaksItWins(t *testing.T) {
	e := must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second, Breaker: mesh.Breaker{HalfOpenRequests: 7, FailurePercent: 20}}))
	m := &clusterv3.Cluster{}
	if err := proto.Unmarshal(e.Body, m); err != nil {
		t.Fatal(err)
	}
	m.OutlierDetection.FailurePercentageThreshold = wrapperspb.UInt32(90) // for Envoy
	x := readExtension(&faults{}, "", m)
	x.Breaker.FailurePercent = 30
	m.Metadata.TypedFilterMetadata[clusterMetadata] = pack(x)
	c, err := DecodeCluster(pack(m))
	if err != nil || c.Breaker.FailurePercent != 30 || c.Breaker.HalfOpenRequests != 7 {
		t.Errorf("%+v, %v", c.Breaker, err)
	}
	x.Breaker.Disabled = true
	m.Metadata.TypedFilterMetadata[clusterMetadata] = pack(x)
	if c, err = DecodeCluster(pack(m)); err != nil || c.Breaker != (mesh.Breaker{Disabled: true}) {
		t.Errorf("%+v, %v", c.Breaker, err)
	}
}

func TestPanicThresholdsAreWholePercentages(t *testing.T) {
	e := must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second}))
	for _, v := range []float64{-1, 0.5, 101, math.NaN(), math.Inf(1)} {
		err := altered(t, e, &clusterv3.Cluster{}, func(m *clusterv3.Cluster) { m.CommonLbConfig.HealthyPanicThreshold.Value = v })
		if err == nil || !strings.Contains(err.Error(), "common_lb_config.healthy_panic_threshold.value: ") {
			t.Errorf("%v: %v", v, err)
		}
	}
	err := altered(t, e, &clusterv3.Cluster{}, func(m *clusterv3.Cluster) { m.CommonLbConfig.IgnoreNewHostsUntilFirstHc = true })
	if err == nil || !strings.Contains(err.Error(), "common_lb_config.ignore_new_hosts_until_first_hc: ") {
		t.Errorf("another field: %v", err)
	}
}

func TestThePanicThresholdIsAlwaysSaid(t *testing.T) {
	for _, percent := range []uint32{0, 50, 100} {
		var m clusterv3.Cluster
		e := must(EncodeCluster(mesh.Cluster{Name: "c", ConnectTimeout: time.Second, Breaker: mesh.Breaker{PanicPercent: percent}}))
		if err := proto.Unmarshal(e.Body, &m); err != nil {
			t.Fatal(err)
		}
		if p := m.GetCommonLbConfig().GetHealthyPanicThreshold(); p == nil || p.GetValue() != float64(percent) {
			t.Errorf("%d %% is said as %v", percent, p)
		}
	}
}

func TestHostsThatRequestsAreRewrittenToHaveAPortOrNone(t *testing.T) {
	for host, good := range map[string]bool{
		"a": true, "a.example": true, "a.example:80": true, "192.0.2.1": true, "192.0.2.1:65535": true, "[::1]": true, "[::1]:80": true,
		"a:": false, "a:0": false, "a:65536": false, "a:b": false, ":80": false, "::1": false, "[::1": false, "[a]": false, "[192.0.2.1]": false, "[fe80::1%eth0]": false,
		"a b": false, "a/b": false, "u@a": false, "a\r\nb": false, "": false,
	} {
		if isAuthority(host) != good {
			t.Errorf("%q is taken: %t", host, !good)
		}
	}
}

func TestNothingIsRewrittenOfCONNECT(t *testing.T) {
	route := mesh.Route{Match: mesh.RouteMatch{Connect: true}, Action: mesh.RouteAction{Cluster: "c", Host: "a", Path: "/b"}}
	_, err := EncodeRoute(mesh.RouteConfiguration{Name: "r", VirtualHosts: []mesh.VirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []mesh.Route{route}}}})
	for _, want := range []string{"routes[0].route.host_rewrite_literal: with match.connect_matcher", "routes[0].route.prefix_rewrite: with match.connect_matcher"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwithout %s", err, want)
		}
	}
}
