package controlplane

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// sagaMeter counts what the coordinator of sagas does. The names of services and steps are no labels: clients choose them.
type sagaMeter struct {
	calls   map[sagaCall]sagaCalls
	ops     metrics.Histogram
	commits metrics.Histogram
	full    metrics.Counter
}

// sagaCall is by what calls are counted.
type sagaCall struct {
	undo   bool
	answer saga.Answer
}

// sagaCalls are the handles of calls that are counted together.
type sagaCalls struct {
	total    metrics.Counter
	duration metrics.Histogram
}

func newSagaMeter(r *metrics.Registry) *sagaMeter {
	total := r.CounterVec("fairlead_saga_calls_total", "Calls of steps, by kind (action, compensate) and what was answered.", "kind", "answer")
	duration := r.HistogramVec("fairlead_saga_call_duration_seconds", "How long calls of steps took.", metrics.DurationBuckets(), "kind", "answer")
	m := &sagaMeter{
		calls: map[sagaCall]sagaCalls{},
		ops: r.HistogramVec("fairlead_saga_batch_operations", "Operations of a batch that was written to the log of sagas.",
			[]float64{1, 2, 5, 10, 20, 40, 60, 80, 100, 120}).With(),
		commits: r.HistogramVec("fairlead_saga_commit_duration_seconds", "How long writing a batch took.", metrics.DurationBuckets()).With(),
		full:    r.CounterVec("fairlead_saga_refused_starts_total", "Sagas that were not taken because their store is nearly full.").With(),
	}
	for kind, undo := range map[string]bool{"action": false, "compensate": true} {
		for _, a := range []saga.Answer{saga.AnswerDone, saga.AnswerRefused, saga.AnswerUnknown, saga.AnswerPending, saga.AnswerNotRun} {
			m.calls[sagaCall{undo, a}] = sagaCalls{total.With(kind, string(a)), duration.With(kind, string(a))}
		}
	}
	return m
}

// Called implements coordinator.Meter.
func (m *sagaMeter) Called(undo bool, a saga.Answer, took time.Duration) {
	c := m.calls[sagaCall{undo, a}]
	c.total.Inc()
	c.duration.Observe(took.Seconds())
}

// Committed implements coordinator.Meter.
func (m *sagaMeter) Committed(ops int, took time.Duration) {
	m.ops.Observe(float64(ops))
	m.commits.Observe(took.Seconds())
}

// Full implements coordinator.Meter.
func (m *sagaMeter) Full() { m.full.Inc() }

// observeSagas makes the metrics that are read from where sagas stand.
func observeSagas(r *metrics.Registry, census func() coordinator.Census) {
	r.Collect("fairlead_sagas", "Sagas of the shards owned here, by state; those that have ended are kept for a time.", metrics.KindGauge, []string{"state"}, func(emit metrics.Emit) {
		n := census()
		emit(float64(n.Running), string(saga.Running))
		emit(float64(n.Compensating), string(saga.Compensating))
		emit(float64(n.Parked), string(saga.Parked))
		emit(float64(n.Completed), string(saga.Completed))
		emit(float64(n.Compensated), string(saga.Compensated))
	})
	r.GaugeFunc("fairlead_saga_shards", "Shards of sagas owned here.", func() float64 { return float64(census().Shards) })
}
