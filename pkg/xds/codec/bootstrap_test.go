package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func files(t testing.TB, pattern string, atLeast int) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join("testdata", "bootstrap", pattern))
	if err != nil || len(found) < atLeast {
		t.Fatalf("%s: %d files, want at least %d, %v", pattern, len(found), atLeast, err)
	}
	return found
}

// golden compares got with the contents of a file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got\n%s", file, diff)
	}
}

func TestBootstrapsInTheSubsetAreRead(t *testing.T) {
	for _, file := range files(t, "*.good.*ml", 4) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b, err := DecodeBootstrap(data)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(b, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, filepath.Ext(file))+".golden", string(text)+"\n")
		})
	}
}

func TestBootstrapsOutsideOfTheSubsetAreRefusedWithPathAndLine(t *testing.T) {
	for _, file := range files(t, "*.bad.yaml", 25) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = DecodeBootstrap(data)
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("got %v, want an *Error", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", refused.Error()+"\n")
		})
	}
}

func TestJSONAndYAMLMeanTheSame(t *testing.T) {
	read := func(file string) Bootstrap {
		data, err := os.ReadFile(filepath.Join("testdata", "bootstrap", file))
		if err != nil {
			t.Fatal(err)
		}
		b, err := DecodeBootstrap(data)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if diff := cmp.Diff(read("static.good.yaml"), read("static-json.good.yaml"), equal()...); diff != "" {
		t.Errorf("-yaml +json\n%s", diff)
	}
}

func TestBootstrapNamesItsControlPlane(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "bootstrap", "dynamic.good.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := DecodeBootstrap(data)
	if err != nil {
		t.Fatal(err)
	}
	want := Bootstrap{
		Node:               Node{ID: "shop/orders-1", Cluster: "orders", Zone: "eu-1a", Metadata: map[string]any{"version": "v2", "canary": true}},
		Admin:              netip.MustParseAddrPort("127.0.0.1:15000"),
		StatsFlushInterval: 10 * time.Second,
		ControlPlane:       &ControlPlane{Cluster: "control-plane", Addresses: []string{"fairlead.internal:18000"}, ConnectTimeout: 2 * time.Second},
		WildcardListeners:  true,
		WildcardClusters:   true,
	}
	if diff := cmp.Diff(want, b, equal()...); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestTooManyFaultsAreCounted(t *testing.T) {
	text := "static_resources:\n  clusters:\n"
	for range MaxFaults + 10 {
		text += "  - {lb_subset_config: {}}\n"
	}
	_, err := DecodeBootstrap([]byte(text))
	var refused *Error
	if !errors.As(err, &refused) || len(refused.Faults) != MaxFaults || refused.Omitted == 0 {
		t.Fatalf("%v", err)
	}
	if !strings.Contains(err.Error(), "more") {
		t.Errorf("%v does not say that there is more", err)
	}
}

func TestHostileDocumentsAreBounded(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 8 {
		d := string(rune('0' + i))
		next := string(rune('1' + i))
		ref := strings.TrimSuffix(strings.Repeat("*a"+d+", ", 10), ", ")
		bomb += "a" + next + ": &a" + next + " [" + ref + "]\n"
	}
	for name, text := range map[string]string{
		"too long":       strings.Repeat("#", MaxBootstrapBytes+1),
		"nested":         "node: {metadata: " + strings.Repeat("{a: ", 500) + strings.Repeat("}", 500) + "}",
		"alias bomb":     bomb + "node: {metadata: {x: *a8}}",
		"alias of self":  "node: {metadata: &a {x: *a}}",
		"empty":          "",
		"a list":         "[]",
		"two documents":  "{}\n---\n{}",
		"not text":       "\x00\x01\xff",
		"invalid UTF-8":  "node: {id: \"\xff\"}",
		"key is complex": "? [a]\n: b",
	} {
		if _, err := DecodeBootstrap([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestSilenceMeansEnvoysDefaults(t *testing.T) {
	b, err := DecodeBootstrap([]byte(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {match: {prefix: /none}, route: {cluster: app, timeout: 0s}}
              - {match: {prefix: /}, route: {cluster: app}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]
  - name: checked
    type: STATIC
    outlier_detection: {consecutive_5xx: 50}
    load_assignment: {cluster_name: checked}
`))
	if err != nil {
		t.Fatal(err)
	}
	app, checked := b.Clusters[0], b.Clusters[1]
	routes := b.Listeners[0].Route.VirtualHosts[0].Routes
	if got := routes[0].Action.Timeout; got != 0 {
		t.Errorf("timeout 0s is %v", got)
	}
	if got := routes[1].Action.Timeout; got != 15*time.Second {
		t.Errorf("no timeout is %v", got)
	}
	if app.LB != mesh.LBWeightedRoundRobin || app.ConnectTimeout != 5*time.Second || app.MaxRequests != 1024 || app.MaxConnections != 1024 ||
		!app.Breaker.Disabled || app.Static.Endpoints[0].Weight != 1 || app.Protocol != mesh.ProtocolUnspecified {
		t.Errorf("%+v", app)
	}
	// Envoy has no share of failures unless told to: all of 50 cannot fail before 50 in a row do.
	want := mesh.Breaker{
		ConsecutiveFailures: 50, FailurePercent: 100, MinimumRequests: 50, Window: 10 * time.Second,
		OpenTime: 30 * time.Second, MaxOpenTime: 300 * time.Second, HalfOpenRequests: 1, MaxEjectionPercent: 10, PanicPercent: 50,
	}
	if checked.Breaker != want {
		t.Errorf("%+v\nwant %+v", checked.Breaker, want)
	}
}

// TestWhatIsInlineIsTakenOutOfTheConfiguration has certificates and keys in every place that there is.
func TestWhatIsInlineIsTakenOutOfTheConfiguration(t *testing.T) {
	const (
		socket  = `{name: tls, typed_config: {"@type": type.googleapis.com/%s, common_tls_context: {tls_certificates: [{certificate_chain: {inline_string: chain}, private_key: {%s}}], validation_context: {trusted_ca: {inline_string: ca}}}}}`
		filter  = `filters: [{name: tcp, typed_config: {` + tcpType + `, stat_prefix: p, cluster: c}}]`
		common  = "transport_socket.typed_config.common_tls_context."
		listens = "inline:static_resources.listeners[0]."
	)
	file := func(key string) []byte {
		down, up := fmt.Sprintf(socket, downstreamTLSType, key), fmt.Sprintf(socket, upstreamTLSType, key)
		return []byte(`{static_resources: {listeners: [{address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{` + filter + `, filter_chain_match: {transport_protocol: raw_buffer}, transport_socket: ` + down +
			`}], default_filter_chain: {` + filter + `, transport_socket: ` + down + `}}], clusters: [{name: c, load_assignment: {cluster_name: c}, transport_socket: ` + up + `}]}}`)
	}
	for _, key := range []string{"inline_string: key", "inline_bytes: a2V5", "inline_bytes: !!binary a2V5", `inline_bytes: "a2\nV5\n"`} {
		b, err := DecodeBootstrap(file(key))
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		want := map[string][]byte{}
		for _, at := range []string{listens + "filter_chains[0].", listens + "default_filter_chain.", "inline:static_resources.clusters[0]."} {
			want[at+common+"tls_certificates[0].certificate_chain"] = []byte("chain")
			want[at+common+"tls_certificates[0].private_key"] = []byte("key")
			want[at+common+"validation_context.trusted_ca"] = []byte("ca")
		}
		if diff := cmp.Diff(want, b.Inline); diff != "" {
			t.Errorf("%s: -want +got\n%s", key, diff)
		}
		pair := b.Clusters[0].TLS.Certificates[0]
		if b.Inline[pair.Chain] == nil || b.Inline[pair.Key] == nil || b.Inline[b.Clusters[0].TLS.CA] == nil || b.Inline[b.Listeners[0].Chains[1].TLS.Certificates[0].Key] == nil {
			t.Errorf("%+v", b.Clusters[0].TLS)
		}
	}
	for _, key := range []string{"inline_bytes: SECRET!", "inline_string: !!binary SECRET", "inline_bytes: [SECRET]", "inline_bytes: SECRET, inline_string: SECRET"} {
		if _, err := DecodeBootstrap(file(key)); err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "private_key") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
