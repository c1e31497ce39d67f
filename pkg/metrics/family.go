package metrics

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// DurationBuckets are the upper bounds, in seconds, of histograms of request
// durations: 0.5 ms, about what a hop within a node takes, to 60 s, past which
// requests have usually timed out; 1-2.5-5 steps keep the error of a quantile
// within a factor of 2.5, with one series of 17 buckets.
func DurationBuckets() []float64 {
	return []float64{
		0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
	}
}

// Counter is a handle on a series that only grows. The zero value is not
// usable. It is safe for concurrent use and does not allocate.
type Counter struct{ series prometheus.Counter }

// Inc adds one.
func (c Counter) Inc() { c.series.Inc() }

// CounterVec is a family of counters. It is safe for concurrent use.
type CounterVec struct {
	vec   *prometheus.CounterVec
	limit seriesLimit
}

// CounterVec makes a family of counters with the given label names.
func (r *Registry) CounterVec(name, help string, labels ...string) *CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.prometheus.MustRegister(vec)
	return &CounterVec{vec, newSeriesLimit(r.maxSeries)}
}

// With returns the series of the given label values, one per label name, or
// the one of "other" when the family is full. It takes a lock and allocates:
// call it when configuration changes and keep the handle.
func (v *CounterVec) With(values ...string) Counter {
	return Counter{v.vec.WithLabelValues(v.limit.admit(values)...)}
}

// Histogram is a handle on a series of a histogram. The zero value is not usable.
// It is safe for concurrent use and does not allocate.
type Histogram struct{ series prometheus.Observer }

// Observe adds one value, in the family's unit.
func (h Histogram) Observe(v float64) { h.series.Observe(v) }

// HistogramVec is a family of histograms. It is safe for concurrent use.
type HistogramVec struct {
	vec   *prometheus.HistogramVec
	limit seriesLimit
}

// HistogramVec makes a family of histograms with the given upper bounds of
// buckets, in rising order and without +Inf, such as [DurationBuckets], and the
// given label names.
func (r *Registry) HistogramVec(name, help string, buckets []float64, labels ...string) *HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.prometheus.MustRegister(vec)
	return &HistogramVec{vec, newSeriesLimit(r.maxSeries)}
}

// With is as [CounterVec.With].
func (v *HistogramVec) With(values ...string) Histogram {
	return Histogram{v.vec.WithLabelValues(v.limit.admit(values)...)}
}

// CounterFunc makes a family of one series that is read at each scrape. read
// must be safe for concurrent use and must not block.
func (r *Registry) CounterFunc(name, help string, read func() uint64) {
	r.prometheus.MustRegister(prometheus.NewCounterFunc(
		prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(read()) }))
}

// GaugeFunc is as [Registry.CounterFunc] for a gauge.
func (r *Registry) GaugeFunc(name, help string, read func() float64) {
	r.prometheus.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// seriesLimit admits label values up to a cap.
type seriesLimit struct {
	limit int
	mu    *sync.Mutex
	known map[string]struct{} // guarded by mu; label values, joined
}

func newSeriesLimit(limit int) seriesLimit {
	return seriesLimit{limit: limit, mu: new(sync.Mutex), known: map[string]struct{}{}}
}

// admit returns the values cleaned, or "other" for each.
func (l seriesLimit) admit(values []string) []string {
	values = labelValues(values)
	key := seriesKey(values)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[key]; ok {
		return values
	}
	if len(l.known) >= l.limit {
		return others(len(values))
	}
	l.known[key] = struct{}{}
	return values
}

// seriesKey joins by a byte that valid UTF-8 does not contain.
func seriesKey(values []string) string { return strings.Join(values, "\xff") }
