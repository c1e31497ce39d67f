package admin

import (
	"net/http"
	"testing"
)

func TestOnlyAddressesAndLocalhostAreAnsweredTo(t *testing.T) {
	s := server(t, sample().config())
	for host, want := range map[string]int{
		"127.0.0.1:15000":          http.StatusOK,
		"127.0.0.1":                http.StatusOK,
		"localhost:15000":          http.StatusOK,
		"LocalHost":                http.StatusOK,
		"[::1]:15000":              http.StatusOK,
		"[::1]":                    http.StatusOK,
		"10.1.2.3:15000":           http.StatusOK, // a probe of the pod's address
		"":                         http.StatusOK, // HTTP/1.0
		"evil.example":             http.StatusForbidden,
		"evil.example:15000":       http.StatusForbidden,
		"127.0.0.1.evil.example":   http.StatusForbidden,
		"localhost.evil.example:1": http.StatusForbidden,
		"127.0.0.1:80:80":          http.StatusForbidden,
		"orders":                   http.StatusForbidden,
	} {
		if w := do(s, "GET", "/clusters", "Host", host); w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	const here = "http://127.0.0.1:15000"
	for _, c := range []struct {
		name, method string
		headers      []string
		want         int
	}{
		{"a program", "POST", nil, http.StatusOK},
		{"the index's own button", "POST", []string{"Origin", here, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{"an address typed by hand", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, http.StatusOK},
		{"a link on a dashboard", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, http.StatusOK},
		{"a form of another site", "POST", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"a form of another site, by fetch metadata", "POST", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, http.StatusForbidden},
		{"a page on another port of this machine", "POST", []string{"Origin", "http://127.0.0.1:8080", "Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"a sandboxed page", "POST", []string{"Origin", "null"}, http.StatusForbidden},
		{"an origin that is none", "POST", []string{"Origin", "http://[::1"}, http.StatusForbidden},
		{"a fetch of another site", "GET", []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, http.StatusForbidden},
		{"an image of another site", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, http.StatusForbidden},
	} {
		p := sample()
		w := do(server(t, p.config()), c.method, "/drain", c.headers...)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, w.Code, c.want)
		}
		if begun := p.drained.Load() != 0; begun != (c.method == "POST" && c.want == http.StatusOK) {
			t.Errorf("%s: drain begun: %v", c.name, begun)
		}
	}
}
