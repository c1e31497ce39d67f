package sidecar_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// conditioned is what a route asks for besides the path, and which requests meet it: of method, query
// and fields, "NAME=VALUE".
type conditioned struct {
	match    string
	yes, not []string
}

func TestRoutesOfAFileAskForMoreThanThePath(t *testing.T) {
	tests := []conditioned{
		{`headers: [{name: x-a, exact_match: v}]`, []string{"GET x-a=v"}, []string{"GET x-a=V", "GET x-a=vv", "GET", "GET x-a=v x-a=v"}},
		{`headers: [{name: X-A, string_match: {exact: "v,w"}}]`, []string{"GET x-a=v x-a=w"}, []string{"GET x-a=v"}},
		{`headers: [{name: x-a, string_match: {exact: Vv, ignore_case: true}}]`, []string{"GET x-a=vV"}, []string{"GET x-a=v"}},
		{`headers: [{name: x-a, exact_match: v, invert_match: true}]`, []string{"GET x-a=w"}, []string{"GET x-a=v", "GET"}},
		{`headers: [{name: x-a, exact_match: v, invert_match: true, treat_missing_header_as_empty: true}]`, []string{"GET x-a=w", "GET"}, []string{"GET x-a=v"}},
		{`headers: [{name: x-a, prefix_match: v}]`, []string{"GET x-a=v", "GET x-a=vw"}, []string{"GET x-a=wv", "GET"}},
		{`headers: [{name: x-a, string_match: {suffix: v}}]`, []string{"GET x-a=wv"}, []string{"GET x-a=vw"}},
		{`headers: [{name: x-a, contains_match: vw}]`, []string{"GET x-a=vvww"}, []string{"GET x-a=vxw", "GET x-a=v"}},
		{`headers: [{name: x-a, string_match: {contains: VW, ignore_case: true}}]`, []string{"GET x-a=vVwW"}, []string{"GET x-a=vxw"}},
		{`headers: [{name: x-a, safe_regex_match: {regex: "v+|w"}}]`, []string{"GET x-a=vv", "GET x-a=w"}, []string{"GET x-a=vw", "GET"}},
		{`headers: [{name: x-a, range_match: {start: -1, end: 10}}]`, []string{"GET x-a=-1", "GET x-a=9"}, []string{"GET x-a=10", "GET x-a=a", "GET"}},
		{`headers: [{name: x-a, present_match: true}]`, []string{"GET x-a="}, []string{"GET"}},
		{`headers: [{name: x-a}]`, []string{"GET x-a=v"}, []string{"GET"}},
		{`headers: [{name: x-a, present_match: false}]`, []string{"GET"}, []string{"GET x-a=v"}},
		{`headers: [{name: x-a, present_match: true, invert_match: true}]`, []string{"GET"}, []string{"GET x-a=v"}},
		{`headers: [{name: ":method", string_match: {exact: POST}}]`, []string{"POST"}, []string{"GET"}},
		{`headers: [{name: ":authority", prefix_match: "a."}, {name: user-agent, exact_match: u}]`, []string{"GET user-agent=u"}, []string{"GET user-agent=v"}},
		{`headers: [{name: ":path", suffix_match: "/x?q=1"}]`, []string{"GET?q=1"}, []string{"GET?q=2"}},
		{`headers: [{name: ":scheme", exact_match: http}]`, []string{"GET"}, nil},
		{`query_parameters: [{name: q}]`, []string{"GET?q", "GET?a=b&q=1"}, []string{"GET", "GET?qq=1", "GET?a=q"}},
		{`query_parameters: [{name: q, present_match: false}]`, []string{"GET"}, []string{"GET?q="}},
		{`query_parameters: [{name: q, string_match: {prefix: a}}, {name: r}]`, []string{"GET?q=ab&r=1"}, []string{"GET?q=ab", "GET?q=ba&r", "GET?q=b&q=a&r"}},
		{`query_parameters: [{name: q, string_match: {safe_regex: {regex: "[0-9]{2}"}}}]`, []string{"GET?q=12"}, []string{"GET?q=123"}},
		{`grpc: {}`, []string{"POST content-type=application/grpc", "POST content-type=application/grpc+proto"}, []string{"POST", "POST content-type=application/grpc-web"}},
	}
	var routes strings.Builder
	for i, c := range tests {
		_, _ = fmt.Fprintf(&routes, "\n              - {match: {prefix: \"/%d/\", %s}, direct_response: {status: 200, body: {inline_string: \"yes\"}}}", i, c.match)
		_, _ = fmt.Fprintf(&routes, "\n              - {match: {path: \"/%d/x\"}, direct_response: {status: 200, body: {inline_string: \"not\"}}}", i)
	}
	_, _ = fmt.Fprintf(&routes, "\n              - {match: {safe_regex: {regex: \"/r/[0-9]+\"}}, direct_response: {status: 204}}")
	_, _ = fmt.Fprintf(&routes, "\n              - {match: {path: \"/none\", headers: [{name: x-none}]}, direct_response: {status: 200}}")
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), freeport.For(t))
	text = strings.Replace(text, "\n              - {match: {prefix: \"/\"}, route: {cluster: app}}", routes.String(), 1)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	for _, overHTTP2 := range []bool{false, true} {
		client := clientTo(t, addresses.Listeners["web"].String(), overHTTP2)
		ask := func(i int, request, want string) {
			parts := strings.Fields(request)
			method, query, _ := strings.Cut(parts[0], "?")
			path := fmt.Sprintf("/%d/x?%s", i, query)
			r, err := http.NewRequest(method, "http://a.example"+strings.TrimSuffix(path, "?"), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, field := range parts[1:] {
				name, value, _ := strings.Cut(field, "=")
				r.Header.Add(name, value)
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if got := string(b) + resp.Header.Get("grpc-message"); got != want {
				t.Errorf("HTTP/2 %t, %s: %s is %q, want %q", overHTTP2, tests[i].match, request, got, want)
			}
		}
		for i, c := range tests {
			for _, request := range c.yes {
				ask(i, request, "yes")
			}
			for _, request := range c.not {
				ask(i, request, "not")
			}
		}
		for path, want := range map[string]int{"/r/12?a": 204, "/r/12/": 404, "/r/": 404, "/x/r/1": 404} {
			if code, _ := get(t, "http://"+addresses.Listeners["web"].String()+path); code != want {
				t.Errorf("%s is answered with %d, not %d", path, code, want)
			}
		}
		if code, _ := get(t, "http://"+addresses.Listeners["web"].String()+"/none"); code != 404 {
			t.Errorf("a request that meets no route's conditions is answered with %d", code)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
