package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkRequest is what a request costs, beside the same five numbers kept
// in pre-resolved handles of the Prometheus client.
func BenchmarkRequest(b *testing.B) {
	h := NewProxy(New(Config{}), []string{"none"}).Destination("s", "d")
	ours := func() {
		h.Begin()
		h.Done(200, 0, 800*time.Microsecond, 10, 100)
	}
	counter := func() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}) }
	inFlight := prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"})
	requests, bytesIn, bytesOut := counter(), counter(), counter()
	duration := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: DurationBuckets()})
	client := func() {
		inFlight.Inc()
		inFlight.Dec()
		requests.Inc()
		duration.Observe((800 * time.Microsecond).Seconds())
		bytesIn.Add(10)
		bytesOut.Add(100)
	}
	for _, bm := range []struct {
		name string
		f    func()
	}{{"fairlead", ours}, {"prometheus", client}} {
		b.Run(bm.name+"/alone", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bm.f()
			}
		})
		b.Run(bm.name+"/contended", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					bm.f()
				}
			})
		})
	}
}
