package admin

import (
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var drainTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// proxy is what the tests' server shows.
type proxy struct {
	level    slog.LevelVar
	drained  atomic.Int64 // how often a drain was begun
	dumpErr  error
	clusters []ClusterStatus
	certs    []CertStatus
}

func (p *proxy) config() Config {
	registry := metrics.New(metrics.Config{Logger: slog.New(slog.DiscardHandler)})
	registry.CounterFunc("fairlead_things_total", "things", func() uint64 { return 1_000_000 })
	registry.CounterVec("fairlead_refused_total", "refused", "reason").With("a \"b\"\n").Inc()
	registry.GaugeFunc("fairlead_unknown", "not known", func() float64 { var zero float64; return zero / zero })
	return Config{
		Ready: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "config: waiting for the first table\n")
		}),
		Metrics:  registry,
		Clusters: func() []ClusterStatus { return p.clusters },
		Listeners: func() []ListenerStatus {
			return []ListenerStatus{{"outbound", "127.0.0.1:15001", 3}, {"inbound", "[::]:15006", 0}}
		},
		ConfigDump: func() ([]byte, error) { return []byte(`{"configs":[]}`), p.dumpErr },
		Certs:      func() []CertStatus { return p.certs },
		LogLevel:   &p.level,
		Drain:      func() { p.drained.Add(1) },
		DrainingSince: func() time.Time {
			if p.drained.Load() == 0 {
				return time.Time{}
			}
			return drainTime
		},
	}
}

func sample() *proxy {
	return &proxy{clusters: []ClusterStatus{
		{Name: "stock.default:http", Policy: "RANDOM"},
		{Name: "orders.default:http", Policy: "LEAST_REQUEST", Hosts: []HostStatus{
			{
				Address: netip.MustParseAddrPort("10.0.0.1:15006"), Instance: "a1", Zone: "z1", Weight: 100, Health: "HEALTHY",
				Active: 2, Requests: 1000, Failures: 5, IdleConnections: 4,
				Breaker: "open", ConsecutiveFailures: 5, ReadyAt: drainTime,
			},
			{
				Address: netip.MustParseAddrPort("[fd00::2]:80"), Instance: "a2", Zone: "z\n\x1b[2J", Weight: 1, Health: "UNKNOWN",
				Breaker: "closed",
			},
			{Address: netip.MustParseAddrPort("10.0.0.3:80"), Weight: 1, Health: "DRAINING"},
		}},
	}}
}

func server(t *testing.T, config Config) *Server {
	t.Helper()
	s, err := New(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do sends one request to the handler; headers are name, value, name, value.
func do(s *Server, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:15000"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		} else {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

func TestAnswersAreAsInTheGoldenFiles(t *testing.T) {
	s := server(t, sample().config())
	withCert := sample()
	withCert.certs = []CertStatus{{
		Used: "listener web", File: "/etc/certs/tls.crt", DaysLeft: 1, Refused: "is not PEM",
		SubjectAltNames: []string{"spiffe://mesh/ns/default/sa/orders"}, SerialNumber: "1f",
		ValidFrom: drainTime, ExpirationTime: drainTime.Add(24 * time.Hour),
	}}
	empty := server(t, (&proxy{}).config())
	for name, c := range map[string]struct {
		server      *Server
		target      string
		contentType string
	}{
		"index.html":          {s, "/", "text/html; charset=utf-8"},
		"help.txt":            {s, "/help", "text/plain; charset=utf-8"},
		"clusters.txt":        {s, "/clusters", "text/plain; charset=utf-8"},
		"clusters.json":       {s, "/clusters?format=json", "application/json"},
		"clusters-none.json":  {empty, "/clusters?format=json", "application/json"},
		"listeners.txt":       {s, "/listeners", "text/plain; charset=utf-8"},
		"listeners.json":      {s, "/listeners?format=json", "application/json"},
		"stats.txt":           {s, "/stats", "text/plain; charset=utf-8"},
		"stats.json":          {s, "/stats?format=json", "application/json"},
		"stats-filtered.txt":  {s, "/stats?filter=^fairlead_(refused|x).*reason", "text/plain; charset=utf-8"},
		"stats-filtered.json": {s, "/stats?filter=nothing&format=json", "application/json"},
		"certs-none.json":     {empty, "/certs", "application/json"},
		"certs.json":          {server(t, withCert.config()), "/certs", "application/json"},
		"config_dump.json":    {s, "/config_dump", "application/json"},
		"logging.txt":         {s, "/logging", "text/plain; charset=utf-8"},
		"logging.json":        {s, "/logging?format=json", "application/json"},
		"drain-no.txt":        {s, "/drain", "text/plain; charset=utf-8"},
		"drain-no.json":       {s, "/drain?format=json", "application/json"},
	} {
		w := do(c.server, "GET", c.target)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != c.contentType {
			t.Errorf("%s: %d %s", c.target, w.Code, w.Header().Get("Content-Type"))
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", c.target, w.Header())
		}
		golden(t, name, w.Body.String())
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s (-got, +want):\n%s", name, diff)
	}
}

func TestReadyIsAnsweredByItsOwner(t *testing.T) {
	w := do(server(t, sample().config()), "GET", "/ready")
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "first table") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestMetricsAreServedUnderEachOfTheirNames(t *testing.T) {
	s := server(t, sample().config())
	for _, target := range []string{"/stats/prometheus", "/metrics", "/stats?format=prometheus"} {
		if w := do(s, "GET", target); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "\nfairlead_things_total 1e+06\n") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

func TestProfilesAreServed(t *testing.T) {
	s := server(t, sample().config())
	for target, want := range map[string]string{
		"/debug/pprof/":                  "full goroutine stack dump",
		"/debug/pprof/goroutine?debug=1": "goroutine profile: total",
		"/debug/pprof/cmdline":           "admin.test",
		"/debug/pprof/symbol":            "num_symbols",
	} {
		if w := do(s, "GET", target); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.200s", target, w.Code, w.Body)
		}
	}
}

func TestLoggingChangesTheLevel(t *testing.T) {
	p := sample()
	s := server(t, p.config())
	if w := do(s, "POST", "/logging?level=debug"); w.Code != http.StatusOK || w.Body.String() != "level: debug\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, query := range []string{"", "?level=", "?level=loud", "?level=error&format=xml"} {
		if w := do(s, "POST", "/logging"+query); w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
	}
	if p.level.Level() != slog.LevelDebug {
		t.Errorf("level %v", p.level.Level())
	}
}

func TestDrainBeginsAndShowsSinceWhen(t *testing.T) {
	p := sample()
	s := server(t, p.config())
	if w := do(s, "POST", "/drain?format=xml"); w.Code != http.StatusBadRequest || p.drained.Load() != 0 {
		t.Errorf("refused and begun: %d", w.Code)
	}
	w := do(s, "POST", "/drain")
	if w.Code != http.StatusOK || p.drained.Load() != 1 {
		t.Errorf("%d, begun %d times", w.Code, p.drained.Load())
	}
	golden(t, "drain-yes.txt", w.Body.String())
	golden(t, "drain-yes.json", do(s, "GET", "/drain?format=json").Body.String())
}

func TestGETChangesNothing(t *testing.T) {
	p := sample()
	s := server(t, p.config())
	for _, r := range s.table() {
		if r.Method == get && !strings.HasPrefix(r.Path, "/debug/") {
			do(s, "GET", r.Path+"?level=debug")
			do(s, "HEAD", r.Path+"?level=debug")
		}
	}
	if p.drained.Load() != 0 || p.level.Level() != slog.LevelInfo {
		t.Errorf("drained %d times, level %v", p.drained.Load(), p.level.Level())
	}
}

func TestOtherMethodsAreRefusedWithThoseAllowed(t *testing.T) {
	s := server(t, sample().config())
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/clusters", "GET, HEAD"},
		{"POST", "/", "GET, HEAD"},
		{"DELETE", "/drain", "GET, HEAD, POST"},
		{"PUT", "/logging", "GET, HEAD, POST"},
		{"POST", "/debug/pprof/profile", "GET, HEAD"},
	} {
		w := do(s, c.method, c.path)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.path, w.Code, w.Header().Get("Allow"))
		}
	}
	if w := do(s, "GET", "/nowhere"); w.Code != http.StatusNotFound {
		t.Errorf("an unknown path: %d", w.Code)
	}
}

func TestBadQueriesAreRefused(t *testing.T) {
	s := server(t, sample().config())
	for _, target := range []string{
		"/clusters?format=xml", "/stats?filter=(", "/stats?filter=" + strings.Repeat("a", maxFilter+1), "/drain?format=yaml",
	} {
		if w := do(s, "GET", target); w.Code != http.StatusBadRequest {
			t.Errorf("%.40s: %d", target, w.Code)
		}
	}
}

func TestAFailedDumpSaysWhy(t *testing.T) {
	p := sample()
	p.dumpErr = errors.New("cluster x: cannot be encoded")
	if w := do(server(t, p.config()), "GET", "/config_dump"); w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "cluster x") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAMissingFunctionIsNamed(t *testing.T) {
	config := sample().config()
	config.Drain, config.Clusters, config.Certs = nil, nil, nil
	_, err := New(config, slog.New(slog.DiscardHandler))
	if err == nil || err.Error() != "admin: Clusters is required\nDrain is required" {
		t.Error(err)
	}
}
