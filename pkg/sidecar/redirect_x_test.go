package sidecar_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

func TestRoutesOfAFileRedirect(t *testing.T) {
	routes := `
              - {match: {prefix: "/https"}, redirect: {https_redirect: true}}
              - {match: {prefix: "/host"}, redirect: {host_redirect: b.example, response_code: FOUND}}
              - {match: {prefix: "/port"}, redirect: {port_redirect: 8443, scheme_redirect: HTTPS, response_code: SEE_OTHER}}
              - {match: {prefix: "/path"}, redirect: {path_redirect: /new, response_code: TEMPORARY_REDIRECT}}
              - {match: {prefix: "/query"}, redirect: {path_redirect: "/new?a=b", strip_query: true, response_code: PERMANENT_REDIRECT}}
              - match: {prefix: "/prefix/"}
                redirect: {prefix_rewrite: /, strip_query: true}
                response_headers_to_add: [{header: {key: x-why, value: moved}}]`
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), freeport.For(t))
	text = strings.Replace(text, "\n              - {match: {prefix: \"/\"}, route: {cluster: app}}", routes, 1)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	for _, overHTTP2 := range []bool{false, true} {
		client := clientTo(t, addresses.Listeners["web"].String(), overHTTP2)
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		for asked, want := range map[string]string{
			"a.example/https?a=b":       "301 https://a.example/https?a=b",
			"a.example:80/https":        "301 https://a.example/https",
			"a.example:8080/https":      "301 https://a.example:8080/https",
			"[::1]/https":               "301 https://[::1]/https",
			"a.example/host/x?a":        "302 http://b.example/host/x?a",
			"a.example:80/port":         "303 https://a.example:8443/port",
			"a.example/path/x?q":        "307 http://a.example/new?q",
			"a.example/query?q":         "308 http://a.example/new?a=b",
			"a.example/prefix/x/y?q":    "301 http://a.example/x/y",
			"a.example:99/prefix/?q":    "301 http://a.example:99/",
			"a.example:99/prefix//x.y/": "301 http://a.example:99//x.y/",
		} {
			resp, err := client.Get("http://" + asked)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Location")); got != want {
				t.Errorf("HTTP/2 %t, %s: %s, want %s", overHTTP2, asked, got, want)
			}
			if strings.Contains(asked, "prefix") != (resp.Header.Get("X-Why") == "moved") {
				t.Errorf("HTTP/2 %t, %s: %v", overHTTP2, asked, resp.Header)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
