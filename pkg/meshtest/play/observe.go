package play

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

// Host is what the client's sidecar knows of an instance.
type Host struct {
	Instance string `json:"instance"`
	Health   string `json:"health"`
	Breaker  string `json:"breaker"`
}

// Hosts asks the client's sidecar for the instances that it knows, at its admin port.
func (m *Mesh) Hosts(ctx context.Context) ([]Host, error) {
	var status struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []Host `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := getJSON(ctx, "http://"+m.admin+"/clusters?format=json", &status); err != nil {
		return nil, err
	}
	for _, c := range status.Clusters {
		if strings.HasPrefix(c.Name, "orders.default") {
			return c.Hosts, nil
		}
	}
	return nil, nil
}

// Breaker returns the state of the client's breaker for an instance, "" if there is
// none.
func (m *Mesh) Breaker(ctx context.Context, instance string) string {
	hosts, _ := m.Hosts(ctx) // a sidecar that does not answer has no breaker to show
	for _, h := range hosts {
		if h.Instance == instance {
			return h.Breaker
		}
	}
	return ""
}

// Metric returns a metric of the client's sidecar, -1 if it has none.
func (m *Mesh) Metric(ctx context.Context, name string) float64 {
	body, err := get(ctx, "http://"+m.admin+"/stats/prometheus")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			var v float64
			if _, err := fmt.Sscan(value, &v); err == nil {
				return v
			}
		}
	}
	return -1
}

// Retries counts the requests that the client's sidecar has sent twice, by its access
// log.
func (m *Mesh) Retries() (int, error) {
	log, err := os.ReadFile(filepath.Join(m.dir, clientName+".log"))
	if err != nil {
		return 0, err
	}
	n, logged := 0, 0
	for line := range bytes.Lines(log) {
		var access struct {
			Method  string
			Retries int
		}
		if json.Unmarshal(line, &access) != nil || access.Method == "" {
			continue // said by the sidecar's own log
		}
		logged++
		if access.Retries > 0 {
			n++
		}
	}
	if logged == 0 {
		return 0, errors.New("the client's sidecar has logged no request")
	}
	return n, nil
}

// Registered asks the API for the instances of the orders service.
func (m *Mesh) Registered(ctx context.Context) ([]string, error) {
	var list struct {
		Instances []struct{ ID, Status string }
	}
	if err := getJSON(ctx, "http://"+m.http+"/v1/namespaces/default/services/orders/instances", &list); err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range list.Instances {
		ids = append(ids, i.ID)
	}
	return ids, nil
}

// PutPolicy sets the policy of the orders service through the API.
func (m *Mesh) PutPolicy(ctx context.Context, policy string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+m.http+"/v1/namespaces/default/services/orders/policy", strings.NewReader(policy))
	if err != nil {
		return err
	}
	return do(q)
}

// Fault makes an instance misbehave from now on, as in "delay=150ms"; "" ends it.
func (m *Mesh) Fault(ctx context.Context, instance, fault string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+m.instance(instance).appAddr+"/fault?"+fault, http.NoBody)
	if err != nil {
		return err
	}
	return do(q)
}

func do(q *http.Request) error {
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return err
	}
	defer func() { _ = a.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(a.Body, 4<<10))
	if a.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", q.Method, q.URL, a.Status, body)
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(a.Body, 8<<20))
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, a.Status, bytes.TrimSpace(body))
	}
	return body, err
}

func getJSON(ctx context.Context, url string, into any) error {
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// settled is how old a trace must be to be complete: each sidecar exports once a
// second.
const settled = 2500 * time.Millisecond

// LastTrace returns the spans of the newest complete trace that crossed two
// sidecars, parents first; nil if there is none.
func (m *Mesh) LastTrace() []otlptest.Span {
	spans := m.Spans.Spans()
	before := time.Now().Add(-settled)
	for n := len(spans) - 1; n >= 0; n-- {
		s := spans[n]
		if s.ParentID != "" || s.Service != "shop.default" || s.End.After(before) {
			continue
		}
		if trace := m.Spans.Trace(s.TraceID); len(trace) >= 4 {
			return tree(trace)
		}
	}
	return nil
}

// traced reports whether a service has sent a span of a method.
func (m *Mesh) traced(service, method string) bool {
	return slices.ContainsFunc(m.Spans.Spans(), func(s otlptest.Span) bool {
		return s.Service == service && strings.Contains("/"+s.Name, method)
	})
}

// tree puts the spans of a trace into the order of a tree.
func tree(spans []otlptest.Span) []otlptest.Span {
	children := map[string][]otlptest.Span{}
	for _, s := range spans {
		children[s.ParentID] = append(children[s.ParentID], s)
	}
	var ordered []otlptest.Span
	var walk func(parent string)
	walk = func(parent string) {
		for _, s := range children[parent] {
			ordered = append(ordered, s)
			walk(s.SpanID)
		}
	}
	walk("")
	return ordered
}

// TraceLines draws a trace, a line per span, of at most width columns if there are 40
// or more.
func TraceLines(spans []otlptest.Span, width int) []string {
	names := min(max(width, 40)-17, 46) // what kind and duration leave
	depth := map[string]int{}
	var lines []string
	for _, s := range spans {
		d := 0
		if s.ParentID != "" {
			d = depth[s.ParentID] + 1
		}
		depth[s.SpanID] = d
		lead := ""
		if d > 0 {
			lead = strings.Repeat("   ", d-1) + "└─ "
		}
		to := ""
		if i := s.Attributes["fairlead.instance"]; i != "" {
			to = " → " + i
		}
		lines = append(lines, fmt.Sprintf("%-*.*s %-7s %8s", names, names, lead+s.Service+" "+s.Name+to, s.Kind, s.Duration().Round(10*time.Microsecond)))
	}
	return lines
}
