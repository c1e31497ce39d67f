package codec

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// leaves returns the paths of s. It does not go into those in others, which have
// sections of their own.
func leaves(path string, s subset, others ...string) []string {
	if len(s) == 0 || slices.Contains(others, path) {
		return []string{path}
	}
	var found []string
	for key, below := range s {
		at := field(path, key)
		switch {
		case key[0] == '@' && len(below) == 0:
			at = path
		case key[0] == '@':
			found = append(found, path)
			at = path
		case strings.Contains(key, "."):
			at = entry(path, key)
		}
		if key[0] == '@' && slices.Contains(others, path) {
			continue
		}
		found = append(found, leaves(at, below, others...)...)
	}
	return found
}

// row is one of a table of docs/xds-subset.md.
type row struct{ path, meaning string }

// documented returns the rows of docs/xds-subset.md by section.
func documented(t *testing.T) map[string][]row {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "docs", "xds-subset.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	columns := regexp.MustCompile("^\\| `([^`]+)` \\| ([a-z ]+) \\|")
	section, rows := "", map[string][]row{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if title, ok := strings.CutPrefix(s.Text(), "## "); ok {
			section = title
		} else if m := columns.FindStringSubmatch(s.Text()); m != nil {
			rows[section] = append(rows[section], row{m[1], m[2]})
		}
	}
	return rows
}

func TestTheDocumentationNamesExactlyTheSubset(t *testing.T) {
	have := documented(t)
	for section, want := range map[string][]string{
		"Bootstrap":                      leaves("", bootstrapSubset(), "static_resources.listeners", "static_resources.clusters"),
		"The control plane's cluster":    leaves("", controlPlaneSubset()),
		"Listener":                       leaves("", listenerSubset(), "api_listener.api_listener", "filter_chains.filters.typed_config", "filter_chains.transport_socket.typed_config", "default_filter_chain.filters.typed_config", "default_filter_chain.transport_socket.typed_config"),
		"HttpConnectionManager":          leaves("", managerSubset(), "route_config"),
		"RouteConfiguration":             leaves("", routeSubset(), "request_headers_to_add", "response_headers_to_add", "virtual_hosts.request_headers_to_add", "virtual_hosts.response_headers_to_add", "virtual_hosts.routes.request_headers_to_add", "virtual_hosts.routes.response_headers_to_add", "virtual_hosts.routes.match.headers", "virtual_hosts.routes.match.query_parameters"),
		"HeaderMatcher":                  leaves("", headerSubset(), "string_match"),
		"QueryParameterMatcher":          leaves("", parameterSubset(), "string_match"),
		"StringMatcher":                  leaves("", stringSubset()),
		"HeaderValueOption":              leaves("", addedSubset()),
		"Cluster":                        append(leaves("", clusterSubset(), "load_assignment", "outlier_detection", "transport_socket.typed_config"), httpOptions+".http_protocol_options", httpOptions+".http2_protocol_options", autoConfig, autoConfig+".http_protocol_options", autoConfig+".http2_protocol_options"), // which say something by being there
		"A cluster's hosts by name":      leaves("", dnsSubset()),
		"DownstreamTlsContext":           leaves("", downstreamSubset(), "common_tls_context"),
		"UpstreamTlsContext":             leaves("", upstreamSubset(), "common_tls_context"),
		"CommonTlsContext":               leaves("", commonSubset()),
		"OutlierDetection":               leaves("", outlierSubset()),
		"ClusterLoadAssignment":          leaves("", endpointsSubset()),
		"TcpProxy":                       leaves("", tcpProxySubset()),
		"ProxyProtocolUpstreamTransport": leaves("", senderSubset()),
	} {
		want = slices.DeleteFunc(want, func(path string) bool {
			return strings.HasPrefix(path, "static_resources") || strings.HasSuffix(path, `.v1"]`) || strings.HasSuffix(path, `HttpProtocolOptions"]`)
		})
		slices.Sort(want)
		want = slices.Compact(want)
		var got []string
		for _, r := range have[section] {
			got = append(got, r.path)
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -allowed +documented\n%s", section, diff)
		}
	}
}
