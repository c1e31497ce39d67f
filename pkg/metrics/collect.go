package metrics

import "github.com/prometheus/client_golang/prometheus"

// Kind is the type of a family that is read from live state.
type Kind uint8

// The kinds that [Registry.Collect] takes.
const (
	KindGauge Kind = iota
	KindCounter
)

// Emit adds a series to a scrape. Values of the same labels are added up.
type Emit func(value float64, labelValues ...string)

// Collect makes a family whose series are listed anew at each scrape, which
// suits what has its own life: hosts, breakers, streams. What is gone is simply
// no longer emitted. Series past the cap are added up as "other".
//
// read may be called by several goroutines at once and must not block. It emits
// as many label values as there are labels.
func (r *Registry) Collect(name, help string, kind Kind, labels []string, read func(Emit)) {
	valueType := prometheus.GaugeValue
	if kind == KindCounter {
		valueType = prometheus.CounterValue
	}
	r.prometheus.MustRegister(&stateCollector{
		desc:      prometheus.NewDesc(name, help, labels, nil),
		valueType: valueType,
		labels:    len(labels),
		maxSeries: r.maxSeries,
		read:      read,
	})
}

type stateCollector struct {
	desc      *prometheus.Desc
	valueType prometheus.ValueType
	labels    int
	maxSeries int
	read      func(Emit)
}

type emitted struct {
	values []string
	sum    float64
}

func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	series := map[string]*emitted{}
	c.read(func(value float64, values ...string) {
		values = labelValues(values)
		key := seriesKey(values)
		if _, ok := series[key]; !ok && len(series) >= c.maxSeries {
			values = others(c.labels)
			key = seriesKey(values)
		}
		if s, ok := series[key]; ok {
			s.sum += value
			return
		}
		series[key] = &emitted{values, value}
	})
	for _, s := range series {
		m, err := prometheus.NewConstMetric(c.desc, c.valueType, s.sum, s.values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(c.desc, err)
		}
		ch <- m
	}
}
