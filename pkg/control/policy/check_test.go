package policy

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// faulty returns the fields that Check finds fault with.
func faulty(t *testing.T, p *meshv1.Policy) []string {
	t.Helper()
	err := Check(p)
	if err == nil {
		return nil
	}
	var invalid *mesh.InvalidError
	if !errors.As(err, &invalid) || len(invalid.Faults) == 0 {
		t.Fatalf("%v is not an InvalidError with faults", err)
	}
	var fields []string
	for _, f := range invalid.Faults {
		if f.Reason == "" {
			t.Errorf("%s is faulty for no reason", f.Field)
		}
		fields = append(fields, f.Field)
	}
	return fields
}

func seconds(n float64) *durationpb.Duration {
	return durationpb.New(time.Duration(n * float64(time.Second)))
}

func TestEveryFieldHasTheBoundsThatTheAPIDocuments(t *testing.T) {
	invalid := &durationpb.Duration{Seconds: 1, Nanos: -1}
	breaker := func(b *meshv1.Breaker) *meshv1.Policy { return &meshv1.Policy{Breaker: b} }
	number := func(set func(*meshv1.Breaker, uint32)) func(uint32) *meshv1.Policy {
		return func(n uint32) *meshv1.Policy {
			b := &meshv1.Breaker{}
			set(b, n)
			return breaker(b)
		}
	}
	duration := func(set func(*meshv1.Breaker, *durationpb.Duration)) func(*durationpb.Duration) *meshv1.Policy {
		return func(d *durationpb.Duration) *meshv1.Policy {
			b := &meshv1.Breaker{}
			set(b, d)
			return breaker(b)
		}
	}
	timeout := func(d *durationpb.Duration) *meshv1.Policy { return &meshv1.Policy{RequestTimeout: d} }
	balancing := func(b meshv1.LoadBalancing) *meshv1.Policy { return &meshv1.Policy{LoadBalancing: b} }
	consecutive := number(func(b *meshv1.Breaker, n uint32) { b.ConsecutiveFailures = n })
	percent := number(func(b *meshv1.Breaker, n uint32) { b.FailurePercent = n })
	minimum := number(func(b *meshv1.Breaker, n uint32) { b.MinimumRequests = n })
	probes := number(func(b *meshv1.Breaker, n uint32) { b.HalfOpenRequests = n })
	ejection := number(func(b *meshv1.Breaker, n uint32) { b.MaxEjectionPercent = n })
	panicking := number(func(b *meshv1.Breaker, n uint32) { b.PanicThresholdPercent = n })
	window := duration(func(b *meshv1.Breaker, d *durationpb.Duration) { b.Window = d })
	open := duration(func(b *meshv1.Breaker, d *durationpb.Duration) { b.OpenTime = d })
	longest := duration(func(b *meshv1.Breaker, d *durationpb.Duration) { b.MaxOpenTime = d })
	after := func(openTime, maxOpenTime float64) *meshv1.Policy {
		return breaker(&meshv1.Breaker{OpenTime: seconds(openTime), MaxOpenTime: seconds(maxOpenTime)})
	}

	for _, c := range []struct {
		field     string
		good, bad []*meshv1.Policy
	}{
		{
			"loadBalancing",
			[]*meshv1.Policy{balancing(0), balancing(meshv1.LoadBalancing_LEAST_REQUEST), balancing(meshv1.LoadBalancing_RANDOM)},
			[]*meshv1.Policy{balancing(5), balancing(-1)},
		},
		{
			"requestTimeout",
			[]*meshv1.Policy{timeout(nil), timeout(seconds(0)), timeout(seconds(0.001)), timeout(seconds(3600))},
			[]*meshv1.Policy{timeout(seconds(0.0009)), timeout(seconds(3600.1)), timeout(seconds(-1)), timeout(invalid)},
		},
		{
			"breaker.consecutiveFailures",
			[]*meshv1.Policy{consecutive(0), consecutive(1), consecutive(1000)},
			[]*meshv1.Policy{consecutive(1001), consecutive(math.MaxUint32)},
		},
		{
			"breaker.failurePercent",
			[]*meshv1.Policy{percent(0), percent(1), percent(100)},
			[]*meshv1.Policy{percent(101)},
		},
		{
			"breaker.minimumRequests",
			[]*meshv1.Policy{minimum(0), minimum(1), minimum(1_000_000)},
			[]*meshv1.Policy{minimum(1_000_001)},
		},
		{
			"breaker.window",
			[]*meshv1.Policy{window(nil), window(seconds(1)), window(seconds(600))},
			[]*meshv1.Policy{window(seconds(0)), window(seconds(0.9)), window(seconds(600.1)), window(seconds(-5)), window(invalid)},
		},
		{
			"breaker.openTime",
			[]*meshv1.Policy{open(nil), open(seconds(0.1)), open(seconds(3600))},
			[]*meshv1.Policy{open(seconds(0)), open(seconds(0.09)), open(seconds(3600.1)), open(invalid)},
		},
		{
			"breaker.maxOpenTime", // not under the open time, given or not
			[]*meshv1.Policy{longest(nil), longest(seconds(5)), longest(seconds(86_400)), after(0.1, 0.1), after(3600, 3600)},
			[]*meshv1.Policy{longest(seconds(4.9)), longest(seconds(86_400.1)), after(10, 9.9), longest(invalid)},
		},
		{
			"breaker.halfOpenRequests",
			[]*meshv1.Policy{probes(0), probes(1), probes(100)},
			[]*meshv1.Policy{probes(101)},
		},
		{
			"breaker.maxEjectionPercent",
			[]*meshv1.Policy{ejection(0), ejection(1), ejection(100)},
			[]*meshv1.Policy{ejection(101)},
		},
		{
			"breaker.panicThresholdPercent",
			[]*meshv1.Policy{panicking(0), panicking(1), panicking(100)},
			[]*meshv1.Policy{panicking(101)},
		},
		{"revision", []*meshv1.Policy{{Revision: 0}, {Revision: 9}}, []*meshv1.Policy{{Revision: -1}}},
	} {
		for _, p := range c.good {
			p.Service, p.Namespace = "orders", "shop"
			if fields := faulty(t, p); fields != nil {
				t.Errorf("%v: fault with %v", p, fields)
			}
		}
		for _, p := range c.bad {
			p.Service, p.Namespace = "orders", "shop"
			if fields := faulty(t, p); !slices.Equal(fields, []string{c.field}) {
				t.Errorf("%v: fault with %v, want %s", p, fields, c.field)
			}
		}
	}
}

func TestServiceAndNamespaceAreLabels(t *testing.T) {
	for _, bad := range []string{"", "Orders", "or.ders", "-a", "a-", "or/ders", strings.Repeat("a", 64)} {
		if fields := faulty(t, &meshv1.Policy{Service: bad, Namespace: "shop"}); !slices.Equal(fields, []string{"service"}) {
			t.Errorf("service %q: fault with %v", bad, fields)
		}
		if fields := faulty(t, &meshv1.Policy{Service: "orders", Namespace: bad}); !slices.Equal(fields, []string{"namespace"}) {
			t.Errorf("namespace %q: fault with %v", bad, fields)
		}
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	got := faulty(t, &meshv1.Policy{
		Service: "?", Namespace: "?", LoadBalancing: 9, RequestTimeout: seconds(-1), Revision: -1,
		Breaker: &meshv1.Breaker{
			ConsecutiveFailures: 1001, FailurePercent: 101, MinimumRequests: 1_000_001, Window: seconds(0),
			OpenTime: seconds(0), MaxOpenTime: seconds(0), HalfOpenRequests: 101, MaxEjectionPercent: 101,
		},
	})
	want := []string{
		"service", "namespace", "loadBalancing", "requestTimeout",
		"breaker.consecutiveFailures", "breaker.failurePercent", "breaker.minimumRequests", "breaker.window",
		"breaker.openTime", "breaker.maxOpenTime", "breaker.halfOpenRequests", "breaker.maxEjectionPercent", "revision",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestFaultyOpenTimeDoesNotMoveTheBoundsOfTheLongest(t *testing.T) {
	err := Check(&meshv1.Policy{Service: "a", Namespace: "b", Breaker: &meshv1.Breaker{OpenTime: seconds(200_000), MaxOpenTime: seconds(1)}})
	if err == nil || !strings.Contains(err.Error(), "from 5s to 24h") {
		t.Errorf("the longest must be %v", err)
	}
}
