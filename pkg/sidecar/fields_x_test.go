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

const changingRoutes = `
              - match: {path: "/direct"}
                direct_response: {status: 200, body: {inline_string: hello}}
                response_headers_to_add: [{header: {key: x-order, value: route}}]
              - match: {path: "/away"}
                route: {cluster: away}
                response_headers_to_add: [{header: {key: x-order, value: route}}]
              - match: {prefix: "/"}
                route: {cluster: app}
                request_headers_to_remove: [x-gone, Content-Type]
                request_headers_to_add:
                - {header: {key: x-order, value: route}}
                - {header: {key: x-absent, value: "100%%"}, append_action: ADD_IF_ABSENT}
                - {header: {key: x-present, value: new}, append_action: ADD_IF_ABSENT}
                - {header: {key: x-over, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
                - {header: {key: x-over-new, value: new}, append: false}
                - {header: {key: x-only, value: new}, append_action: OVERWRITE_IF_EXISTS}
                - {header: {key: x-only-new, value: new}, append_action: OVERWRITE_IF_EXISTS}
                - {header: {key: x-empty, value: ""}}
                - {header: {key: x-kept, value: ""}, keep_empty_value: true}
                response_headers_to_remove: [Server]
                response_headers_to_add: [{header: {key: x-order, value: route}}]`

func TestRoutesOfAFileChangeTheFieldsOfHeads(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "app")
		w.Header().Set("X-Order", "app")
		for _, name := range []string{"X-Order", "X-Gone", "Content-Type", "X-Absent", "X-Present", "X-Over", "X-Over-New", "X-Only", "X-Only-New", "X-Empty", "X-Kept"} {
			if values, ok := r.Header[name]; ok {
				_, _ = fmt.Fprintf(w, "%s=%s;", name, strings.Join(values, "|"))
			}
		}
	}))
	app.Config.Protocols = new(http.Protocols)
	app.Config.Protocols.SetHTTP1(true)
	app.Config.Protocols.SetUnencryptedHTTP2(true)
	app.Start()
	t.Cleanup(app.Close)
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), app.Listener.Addr().(*net.TCPAddr).Port)
	routes := text[strings.Index(text, "\n              - {match: {path: \"/hello\"}"):strings.Index(text, "\n          http_filters")]
	text = strings.Replace(text, routes, changingRoutes, 1)
	text = strings.Replace(text, "domains: [\"*\"]", `domains: ["*"]
              request_headers_to_add: [{header: {key: x-order, value: host}}]
              response_headers_to_add: [{header: {key: x-order, value: host}}]`, 1)
	text = strings.Replace(text, "name: r\n", `name: r
            request_headers_to_add: [{header: {key: x-order, value: all}}]
            response_headers_to_add: [{header: {key: x-order, value: all}}]
`, 1)
	text += fmt.Sprintf("  - {name: away, type: STATIC, load_assignment: {cluster_name: away, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}}\n", freeport.For(t))
	for _, protocol := range []string{"http_protocol_options", "http2_protocol_options"} {
		text := strings.Replace(text, "\n    connect_timeout: 1s", strings.Replace(clusterOverHTTP2, "http2_protocol_options", protocol, 1), 1)
		addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
		for _, overHTTP2 := range []bool{false, true} {
			client := clientTo(t, addresses.Listeners["web"].String(), overHTTP2)
			for path, want := range map[string]struct {
				status      int
				order, body string
			}{
				"/direct": {200, "route|host|all", "hello"},
				"/away":   {503, "route|host|all", ""},
				"/":       {200, "app|route|host|all", "X-Order=client|route|host|all;X-Absent=100%;X-Present=old;X-Over=new;X-Over-New=new;X-Only=new;X-Kept=;"},
			} {
				r, err := http.NewRequest(http.MethodGet, "http://a.example"+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header = http.Header{
					"X-Order": {"client"}, "X-Gone": {"a", "b"}, "Content-Type": {"text/plain"}, "X-Present": {"old"},
					"X-Over": {"a", "b"}, "X-Only": {"a", "b"},
				}
				resp, err := client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if order := strings.Join(resp.Header.Values("X-Order"), "|"); resp.StatusCode != want.status || order != want.order || resp.Header.Get("Server") != "" {
					t.Errorf("%s, HTTP/2 of the client %t, %s: %d, %v", protocol, overHTTP2, path, resp.StatusCode, resp.Header)
				}
				if want.body != "" && string(b) != want.body {
					t.Errorf("%s, HTTP/2 of the client %t, %s: %s", protocol, overHTTP2, path, b)
				}
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
