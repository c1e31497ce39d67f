package admin

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
)

// maxFilter bounds the pattern of /stats, whose compiled form grows with it.
const maxFilter = 256

func (s *Server) stats(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("format") == "prometheus" { // Envoy's other name for it
		s.config.Metrics.Handler().ServeHTTP(w, r)
		return
	}
	pattern := r.URL.Query().Get("filter")
	if len(pattern) > maxFilter {
		http.Error(w, fmt.Sprintf("the filter is longer than %d bytes", maxFilter), http.StatusBadRequest)
		return
	}
	// Like Envoy's: RE2, found anywhere in the name. RE2 takes linear time.
	filter, err := regexp.Compile(pattern)
	if err != nil {
		http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
		return
	}
	samples, err := s.config.Metrics.Samples()
	if err != nil {
		s.log.Warn("not all metrics could be collected", "error", err)
	}
	stats := []stat{}
	for _, sample := range samples {
		if name := statName(sample); filter.MatchString(name) {
			stats = append(stats, stat{name, number(sample.Value)})
		}
	}
	answer(w, r, struct {
		Stats []stat `json:"stats"`
	}{stats}, func(w io.Writer) {
		for _, st := range stats {
			_, _ = fmt.Fprintf(w, "%s: %s\n", st.Name, strconv.FormatFloat(float64(st.Value), 'f', -1, 64))
		}
	})
}

type stat struct {
	Name  string `json:"name"`
	Value number `json:"value"`
}

// statName is the name with its labels as Prometheus writes them.
func statName(s metrics.Sample) string {
	if len(s.Labels) == 0 {
		return s.Name
	}
	labels := make([]string, len(s.Labels))
	for i, l := range s.Labels {
		labels[i] = l.Name + "=" + strconv.Quote(l.Value)
	}
	return s.Name + "{" + strings.Join(labels, ",") + "}"
}

// number is null in JSON, which has no words for it, if it is not finite.
type number float64

// MarshalJSON implements [json.Marshaler].
func (n number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

func (s *Server) clusters(w http.ResponseWriter, r *http.Request) {
	clusters := s.config.Clusters()
	slices.SortFunc(clusters, func(a, b ClusterStatus) int { return cmp.Compare(a.Name, b.Name) })
	for i := range clusters {
		clusters[i].Hosts = list(clusters[i].Hosts)
	}
	answer(w, r, struct {
		Clusters []ClusterStatus `json:"cluster_statuses"`
	}{list(clusters)}, func(w io.Writer) {
		for i := range clusters {
			writeCluster(w, &clusters[i])
		}
	})
}

// writeCluster writes lines of cluster::host::name::value, as Envoy does, which
// are for grep and awk.
func writeCluster(w io.Writer, c *ClusterStatus) {
	name := printable(c.Name)
	_, _ = fmt.Fprintf(w, "%s::lb_policy::%s\n", name, printable(c.Policy))
	_, _ = fmt.Fprintf(w, "%s::hosts::%d\n", name, len(c.Hosts))
	for _, h := range c.Hosts {
		field := func(key string, value any) { _, _ = fmt.Fprintf(w, "%s::%s::%s::%v\n", name, h.Address, key, value) }
		field("instance", printable(h.Instance))
		field("zone", printable(h.Zone))
		field("weight", h.Weight)
		field("health", printable(h.Health))
		field("rq_active", h.Active)
		field("rq_total", h.Requests)
		field("rq_error", h.Failures)
		field("cx_idle", h.IdleConnections)
		if h.Breaker != "" {
			field("breaker", printable(h.Breaker))
			field("consecutive_failures", h.ConsecutiveFailures)
		}
		if !h.ReadyAt.IsZero() {
			field("ready_at", rfc3339(h.ReadyAt))
		}
	}
}

func (s *Server) listeners(w http.ResponseWriter, r *http.Request) {
	listeners := s.config.Listeners()
	answer(w, r, struct {
		Listeners []ListenerStatus `json:"listener_statuses"`
	}{list(listeners)}, func(w io.Writer) {
		for _, l := range listeners {
			_, _ = fmt.Fprintf(w, "%s::%s::connections::%d\n", printable(l.Name), printable(l.Address), l.Connections)
		}
	})
}

func (s *Server) configDump(w http.ResponseWriter, _ *http.Request) {
	dump, err := s.config.ConfigDump()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(dump)
}

func (s *Server) certs(w http.ResponseWriter, _ *http.Request) {
	var certs []CertStatus
	if s.config.Certs != nil {
		certs = s.config.Certs()
	}
	writeJSON(w, struct {
		Certs []CertStatus `json:"certificates"`
	}{list(certs)})
}

func (s *Server) logging(w http.ResponseWriter, r *http.Request) {
	level := strings.ToLower(s.config.LogLevel.Level().String())
	answer(w, r, map[string]string{"level": level}, func(w io.Writer) { _, _ = fmt.Fprintf(w, "level: %s\n", level) })
}

func (s *Server) setLogging(w http.ResponseWriter, r *http.Request) {
	if !knownFormat(w, r) {
		return
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(r.URL.Query().Get("level"))); err != nil {
		http.Error(w, "want ?level= and one of debug, info, warn, error", http.StatusBadRequest)
		return
	}
	s.config.LogLevel.Set(level)
	s.log.Info("log level changed", "level", level, "client", r.RemoteAddr)
	s.logging(w, r)
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	since := s.config.DrainingSince()
	answer(w, r, drainStatus{!since.IsZero(), since.UTC()}, func(w io.Writer) {
		if since.IsZero() {
			_, _ = io.WriteString(w, "not draining\n")
			return
		}
		_, _ = fmt.Fprintf(w, "draining since %s\n", rfc3339(since))
	})
}

func (s *Server) beginDrain(w http.ResponseWriter, r *http.Request) {
	if !knownFormat(w, r) {
		return
	}
	s.log.Info("drain requested", "client", r.RemoteAddr)
	s.config.Drain()
	s.drain(w, r)
}

// knownFormat answers with 400 if the query wants a format that there is not.
// What changes something asks before it does.
func knownFormat(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Query().Get("format") {
	case "", "text", "json":
		return true
	}
	http.Error(w, "want ?format=text or json", http.StatusBadRequest)
	return false
}

// answer writes v as JSON or what text writes, by the query's format.
func answer(w http.ResponseWriter, r *http.Request, v any, text func(io.Writer)) {
	if !knownFormat(w, r) {
		return
	}
	if r.URL.Query().Get("format") == "json" {
		writeJSON(w, v)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	b := bufio.NewWriter(w)
	text(b)
	_ = b.Flush() // the client went away: nobody to tell
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	_ = e.Encode(v) // the types are plain; the client went away
}

// list makes an absent list an empty one, which JSON tells apart.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// printable quotes what could forge a line or act on a terminal: zones and ids
// are somebody else's text.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
