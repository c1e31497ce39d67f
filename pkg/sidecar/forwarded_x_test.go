package sidecar_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// forwardedFields is an application that answers with what it is told of the client.
func forwardedFields(t *testing.T) int {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Envoy-External-Address", "X-Envoy-Internal", "X-Envoy-Retry-On", "X-Envoy-Peer"} {
			_, _ = fmt.Fprintf(w, "%s;", strings.Join(r.Header.Values(name), "|"))
		}
	}))
	t.Cleanup(app.Close)
	return app.Listener.Addr().(*net.TCPAddr).Port
}

func TestHostsAreToldWhoseRequestItIs(t *testing.T) {
	port := forwardedFields(t)
	from := map[string]string{
		"X-Forwarded-For": "198.51.100.1, 198.51.100.2", "X-Forwarded-Proto": "https", "X-Envoy-External-Address": "198.51.100.3",
		"X-Envoy-Internal": "true", "X-Envoy-Retry-On": "5xx", "X-Envoy-Peer": "p",
	}
	for said, want := range map[string]struct{ bare, from string }{
		"use_remote_address: false": {
			";;;;;;", "198.51.100.1, 198.51.100.2;https;198.51.100.3;true;5xx;p;",
		},
		"use_remote_address: true": {
			"127.0.0.1;http;127.0.0.1;;;;", "198.51.100.1, 198.51.100.2,127.0.0.1;http;127.0.0.1;;;p;",
		},
		"use_remote_address: true\n          skip_xff_append: true": {
			";http;127.0.0.1;;;;", "198.51.100.1, 198.51.100.2;http;127.0.0.1;;;p;",
		},
		"use_remote_address: true\n          xff_num_trusted_hops: 1": {
			"127.0.0.1;http;127.0.0.1;;;;", "198.51.100.1, 198.51.100.2,127.0.0.1;https;198.51.100.2;;;p;",
		},
		"use_remote_address: true\n          xff_num_trusted_hops: 2": {
			"127.0.0.1;http;127.0.0.1;;;;", "198.51.100.1, 198.51.100.2,127.0.0.1;https;198.51.100.1;;;p;",
		},
		"use_remote_address: true\n          xff_num_trusted_hops: 3": {
			"127.0.0.1;http;127.0.0.1;;;;", "198.51.100.1, 198.51.100.2,127.0.0.1;https;127.0.0.1;;;p;",
		},
	} {
		text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), port)
		text = strings.Replace(text, "stat_prefix: web", "stat_prefix: web\n          "+said, 1)
		addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
		for _, overHTTP2 := range []bool{false, true} {
			client := clientTo(t, addresses.Listeners["web"].String(), overHTTP2)
			for _, fields := range []map[string]string{nil, from} {
				r, err := http.NewRequest(http.MethodGet, "http://a.example/", nil)
				if err != nil {
					t.Fatal(err)
				}
				for name, value := range fields {
					r.Header.Set(name, value)
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				expected := want.bare
				if fields != nil {
					expected = want.from
				}
				if strings.TrimSuffix(string(b), ";") != strings.TrimSuffix(expected, ";") {
					t.Errorf("%s, HTTP/2 %t, fields %t: %s\nwant %s", said, overHTTP2, fields != nil, b, expected)
				}
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestTheAddressOfAPROXYProtocolHeaderIsTheClients(t *testing.T) {
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), forwardedFields(t))
	text = strings.Replace(text, "stat_prefix: web", "stat_prefix: web\n          use_remote_address: true", 1)
	text = strings.Replace(text, "    filter_chains:", `    listener_filters: [{name: proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]
    filter_chains:`, 1)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	c, err := net.Dial("tcp", addresses.Listeners["web"].String())
	if err != nil {
		t.Fatal(err)
	}
	// Who names in Connection what tells of him is told of all the same.
	_, _ = io.WriteString(c, "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\nGET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 198.51.100.2\r\n"+
		"Connection: close, x-forwarded-for, x-forwarded-proto, x-envoy-external-address\r\n\r\n")
	b, err := io.ReadAll(c)
	_ = c.Close()
	if want := "\r\n\r\n198.51.100.1,198.51.100.2,2001:db8::1;http;2001:db8::1;;;;"; err != nil || !strings.HasSuffix(string(b), want) {
		t.Errorf("%v %s", err, b)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
