package catalog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
)

// benchmarked is how many destinations the sidecar of the benchmarks knows.
const benchmarked = 1000

// BenchmarkApply is what one update costs a sidecar that knows 1,000 destinations.
func BenchmarkApply(b *testing.B) {
	b.Run("endpoints", func(b *testing.B) {
		r := startBench(b)
		both := [2]mesh.LoadAssignment{assignment(name(7), 1, 2), assignment(name(7), 1, 3)}
		for i := 0; b.Loop(); i++ {
			r.apply(catalog.Update{Kind: catalog.Endpoints, Endpoints: both[i%2 : i%2+1]})
		}
	})
	b.Run("endpoints while a name is unknown", func(b *testing.B) {
		r := startBench(b)
		settled := r.await("nobody.default")
		r.apply(catalog.Update{Kind: catalog.Listeners, Removed: []string{"nobody.default"}})
		if why := <-settled; why != reason.UnknownService {
			b.Fatal(why)
		}
		both := [2]mesh.LoadAssignment{assignment(name(7), 1, 2), assignment(name(7), 1, 3)}
		for i := 0; b.Loop(); i++ {
			r.apply(catalog.Update{Kind: catalog.Endpoints, Endpoints: both[i%2 : i%2+1]})
		}
	})
	b.Run("routes", func(b *testing.B) {
		r := startBench(b)
		update := catalog.Update{Kind: catalog.Routes, Routes: []mesh.RouteConfiguration{routes(name(7), name(7))}}
		for b.Loop() {
			r.apply(update)
		}
	})
}

// BenchmarkLearn is what it costs to learn 1,000 destinations one after the other.
func BenchmarkLearn(b *testing.B) {
	for b.Loop() {
		startBench(b).close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchmarked, "ns/destination")
}

// BenchmarkLookup is what every request pays.
func BenchmarkLookup(b *testing.B) {
	r := startBench(b)
	key := []byte(name(7))
	now := r.clock()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if r.catalog.Lookup(key, now) == nil {
				b.Error("it is not known")
			}
		}
	})
}

func name(i int) string { return fmt.Sprintf("service-%d.default", i) }

func startBench(b *testing.B) *rig {
	r := start(b, catalog.Config{})
	for i := range benchmarked {
		r.learn(name(i))
	}
	if _, why := r.catalog.Await(context.Background(), name(benchmarked-1)); why != reason.None {
		b.Fatal(why)
	}
	return r
}
