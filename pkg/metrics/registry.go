package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// Prefix begins the name of every family of ours.
	Prefix = "fairlead_"
	// Other is the label value of what passes a cap.
	Other = "other"

	// DefaultMaxSeries is the cap on the series of one family. 2,000 of the
	// widest family are 40,000 lines a scrape.
	DefaultMaxSeries = 2000

	// maxLabelValue bounds a label value in bytes; the DNS's bound on a name
	// is 253.
	maxLabelValue = 256

	// maxScrapes bounds how many scrapes are served at once.
	maxScrapes = 4
)

// Config configures a [Registry].
type Config struct {
	// MaxSeries is the hard cap on the series of each family, the "other"
	// series not counted. Default [DefaultMaxSeries].
	MaxSeries int
	// Runtime adds the families of the Go runtime, the process and the build
	// (go_*, process_*), which are a process's, so one registry's, alone.
	Runtime bool
	// Logger is told what a scrape could not collect.
	Logger *slog.Logger
}

// Registry is a set of families. It is safe for concurrent use; making a family
// under a name that is taken, or invalid, panics, as it is a mistake in code.
type Registry struct {
	prometheus *prometheus.Registry
	maxSeries  int
	logger     *slog.Logger
}

// New returns a registry.
func New(config Config) *Registry {
	if config.MaxSeries <= 0 {
		config.MaxSeries = DefaultMaxSeries
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{prometheus: prometheus.NewRegistry(), maxSeries: config.MaxSeries, logger: config.Logger}
	if config.Runtime {
		r.prometheus.MustRegister(
			collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
			collectors.NewBuildInfoCollector(),
		)
	}
	return r
}

// Handler serves the families in Prometheus text format or OpenMetrics, by
// Accept. It serves what it could collect if a family fails.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.prometheus, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{r.logger},
		ErrorHandling:       promhttp.ContinueOnError,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: maxScrapes,
	})
}

// scrapeLog is what the Prometheus handler logs to.
type scrapeLog struct{ logger *slog.Logger }

func (l scrapeLog) Println(v ...any) {
	l.logger.Warn("scrape is incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Label is a label of a series.
type Label struct{ Name, Value string }

// Sample is one value of a scrape. Of a histogram it is the count and the sum,
// under the names _count and _sum.
type Sample struct {
	Name   string
	Labels []Label
	Value  float64
}

// Samples returns what a scrape would, sorted by name, for people and tests. An
// error comes with the samples that could be collected.
func (r *Registry) Samples() ([]Sample, error) {
	families, err := r.prometheus.Gather()
	var samples []Sample
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make([]Label, 0, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels = append(labels, Label{l.GetName(), l.GetValue()})
			}
			add := func(suffix string, v float64) {
				samples = append(samples, Sample{f.GetName() + suffix, labels, v})
			}
			switch {
			case m.GetCounter() != nil:
				add("", m.GetCounter().GetValue())
			case m.GetGauge() != nil:
				add("", m.GetGauge().GetValue())
			case m.GetHistogram() != nil:
				add("_count", float64(m.GetHistogram().GetSampleCount()))
				add("_sum", m.GetHistogram().GetSampleSum())
			case m.GetSummary() != nil:
				add("_count", float64(m.GetSummary().GetSampleCount()))
				add("_sum", m.GetSummary().GetSampleSum())
			}
		}
	}
	if err != nil {
		return samples, fmt.Errorf("gather metrics: %w", err)
	}
	return samples, nil
}

// labelValue makes any bytes a label value: valid UTF-8 of bounded length. The
// Prometheus client panics on what is not UTF-8.
func labelValue(s string) string {
	if len(s) > maxLabelValue {
		end := maxLabelValue
		for end > maxLabelValue-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func labelValues(values []string) []string {
	clean := make([]string, len(values))
	for i, v := range values {
		clean[i] = labelValue(v)
	}
	return clean
}

func others(n int) []string {
	values := make([]string, n)
	for i := range values {
		values[i] = Other
	}
	return values
}
