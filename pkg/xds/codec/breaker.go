package codec

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The ranges of package breaker.
const (
	maxConsecutive = 1_000_000
	maxMinimum     = 1_000_000_000
	maxProbes      = 1_000
	minWindow      = 100 * time.Millisecond
	maxWindow      = time.Hour
	minOpen        = time.Millisecond
	maxOpen        = time.Hour
	maxMaxOpen     = 24 * time.Hour
)

// Envoy's defaults for outlier_detection, where a message is silent.
const (
	envoyConsecutive = 5
	envoyVolume      = 50
	envoyThreshold   = 85
	envoyInterval    = 10 * time.Second
	envoyBase        = 30 * time.Second
	envoyMax         = 300 * time.Second
	envoyPercent     = 10
	envoyPanic       = 50 // of common_lb_config
)

// outlierProto says a breaker with all defaults filled in so that Envoy and
// grpc-go eject by the same two criteria. Every criterion is switched on or off
// expressly: a message that is silent has success rates enforced (gRFC A50).
// Consecutive 5xx count gateway failures and failed connections already.
func outlierProto(b mesh.Breaker) *clusterv3.OutlierDetection {
	if b.Disabled {
		return nil
	}
	n := wrapperspb.UInt32
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    n(b.ConsecutiveFailures),
		EnforcingConsecutive_5Xx:           n(100),
		EnforcingConsecutiveGatewayFailure: n(0),
		EnforcingSuccessRate:               n(0),
		EnforcingFailurePercentage:         n(100),
		FailurePercentageThreshold:         n(b.FailurePercent),
		FailurePercentageRequestVolume:     n(b.MinimumRequests),
		FailurePercentageMinimumHosts:      n(minimumHosts),
		Interval:                           durationpb.New(b.Window),
		BaseEjectionTime:                   durationpb.New(b.OpenTime),
		MaxEjectionTime:                    durationpb.New(b.MaxOpenTime),
		MaxEjectionTimeJitter:              durationpb.New(b.OpenTime / 4),
		MaxEjectionPercent:                 n(b.MaxEjectionPercent),
		AlwaysEjectOneHost:                 wrapperspb.Bool(true),
	}
}

// minimumHosts is from how many hosts on a share of them may be ejected.
const minimumHosts = 2

// breakerValue reads a breaker. No outlier_detection is none, as in Envoy. Where
// the extension speaks too, it wins.
func breakerValue(f *faults, path string, o *clusterv3.OutlierDetection, extensionPath string, x *meshv1.BreakerExtension) mesh.Breaker {
	extensionPath = field(extensionPath, "breaker")
	if o == nil {
		if x != nil && !x.GetDisabled() {
			f.add(extensionPath, "has no outlier_detection to extend")
		}
		return mesh.Breaker{Disabled: true}
	}
	b := outlierValue(f, field(path, "outlier_detection"), o)
	extend(f, extensionPath, &b, x)
	if b.MaxOpenTime < b.OpenTime {
		f.add(field(path, "outlier_detection.max_ejection_time"), "is %s, less than base_ejection_time, %s", short(b.MaxOpenTime), short(b.OpenTime))
	}
	if x.GetDisabled() {
		return mesh.Breaker{Disabled: true}
	}
	return b
}

func outlierValue(f *faults, path string, o *clusterv3.OutlierDetection) mesh.Breaker {
	at := func(name string) string { return field(path, name) }
	b := mesh.Breaker{
		ConsecutiveFailures: number(f, at("consecutive_5xx"), o.GetConsecutive_5Xx(), envoyConsecutive, 1, maxConsecutive),
		Window:              duration(f, at("interval"), o.GetInterval(), envoyInterval, minWindow, maxWindow),
		OpenTime:            duration(f, at("base_ejection_time"), o.GetBaseEjectionTime(), envoyBase, minOpen, maxOpen),
		HalfOpenRequests:    mesh.DefaultHalfOpenRequests,
		MaxEjectionPercent:  number(f, at("max_ejection_percent"), o.GetMaxEjectionPercent(), envoyPercent, 1, 100),
	}
	b.MaxOpenTime = duration(f, at("max_ejection_time"), o.GetMaxEjectionTime(), max(envoyMax, b.OpenTime), minOpen, maxMaxOpen)
	duration(f, at("max_ejection_time_jitter"), o.GetMaxEjectionTimeJitter(), 0, 0, maxMaxOpen)
	number(f, at("enforcing_consecutive_5xx"), o.GetEnforcingConsecutive_5Xx(), 100, 100, 100)
	number(f, at("enforcing_consecutive_gateway_failure"), o.GetEnforcingConsecutiveGatewayFailure(), 0, 0, 0)
	number(f, at("enforcing_success_rate"), o.GetEnforcingSuccessRate(), 0, 0, 0)
	if o.GetAlwaysEjectOneHost() != nil && !o.GetAlwaysEjectOneHost().GetValue() {
		f.add(at("always_eject_one_host"), "false is %s: one of two or more hosts may always be ejected", notSupported)
	}
	b.FailurePercent, b.MinimumRequests = failureShare(f, at, o, b.ConsecutiveFailures)
	return b
}

// failureShare reads the share of failures that opens a breaker. Without one, as
// is Envoy's default, it returns a share that cannot be reached before the
// failures in a row are: all of at least that many requests.
func failureShare(f *faults, at func(string) string, o *clusterv3.OutlierDetection, consecutive uint32) (percent, minimum uint32) {
	percent = number(f, at("failure_percentage_threshold"), o.GetFailurePercentageThreshold(), envoyThreshold, 1, 100)
	minimum = number(f, at("failure_percentage_request_volume"), o.GetFailurePercentageRequestVolume(), envoyVolume, 1, maxMinimum)
	switch enforcing := o.GetEnforcingFailurePercentage().GetValue(); enforcing {
	case 100:
		if o.GetFailurePercentageMinimumHosts() == nil {
			f.add(at("failure_percentage_minimum_hosts"), "must be %d: Envoy's default of 5 is %s", minimumHosts, notSupported)
		}
		number(f, at("failure_percentage_minimum_hosts"), o.GetFailurePercentageMinimumHosts(), minimumHosts, minimumHosts, minimumHosts)
		return percent, minimum
	case 0:
		return 100, max(mesh.DefaultMinimumRequests, consecutive)
	default:
		f.add(at("enforcing_failure_percentage"), "is %d, not 0 or 100", enforcing)
		return percent, minimum
	}
}

// extend overrides b with those fields of x that are set.
func extend(f *faults, path string, b *mesh.Breaker, x *meshv1.BreakerExtension) {
	override := func(name string, to *uint32, v, high uint32) {
		if v == 0 {
			return
		}
		if v > high {
			f.add(field(path, name), "is %d, not 1 to %d", v, high)
		}
		*to = v
	}
	override("failure_percent", &b.FailurePercent, x.GetFailurePercent(), 100)
	override("minimum_requests", &b.MinimumRequests, x.GetMinimumRequests(), maxMinimum)
	override("half_open_requests", &b.HalfOpenRequests, x.GetHalfOpenRequests(), maxProbes)
	b.Window = duration(f, field(path, "window"), x.GetWindow(), b.Window, minWindow, maxWindow)
	b.MaxOpenTime = duration(f, field(path, "max_open_time"), x.GetMaxOpenTime(), b.MaxOpenTime, minOpen, maxMaxOpen)
}

// panicProto always says the threshold: a message that is silent has Envoy's.
func panicProto(percent uint32) *clusterv3.Cluster_CommonLbConfig {
	return &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: float64(percent)}}
}

func panicValue(f *faults, path string, p *typev3.Percent) uint32 {
	if p == nil {
		return envoyPanic
	}
	return percentage(f, path, p)
}

// percentage reads a whole one.
func percentage(f *faults, path string, p *typev3.Percent) uint32 {
	v := p.GetValue()
	if !(v >= 0 && v <= 100) || v != math.Trunc(v) { // NaN is not within
		f.add(path, "is %v, not a whole number from 0 to 100", v)
		return 0
	}
	return uint32(v)
}
