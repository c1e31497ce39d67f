package admin

import (
	"net/http"
	"testing"
)

// What the guard takes and what it refuses is told in pkg/loopback: here, that no
// road leads past it.
func TestEveryPathIsGuarded(t *testing.T) {
	for _, target := range []string{"/", "/ready", "/stats", "/stats/prometheus", "/clusters", "/listeners", "/config_dump", "/certs", "/logging", "/debug/pprof/", "/nothing"} {
		s := server(t, sample().config())
		if w := do(s, "GET", target, "Host", "evil.example"); w.Code != http.StatusForbidden {
			t.Errorf("%s answers to any Host: %d", target, w.Code)
		}
		if w := do(s, "GET", target, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"); w.Code != http.StatusForbidden {
			t.Errorf("%s answers to pages of other sites: %d", target, w.Code)
		}
	}
}

func TestDrainBeginsForTheOperatorAndNotForPages(t *testing.T) {
	const here = "http://127.0.0.1:15000"
	for _, c := range []struct {
		name    string
		headers []string
		want    int
	}{
		{"a program", nil, http.StatusOK},
		{"the index's own button", []string{"Origin", here, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{"a form of another site", []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		{"a rebound name", []string{"Host", "evil.example:15000"}, http.StatusForbidden},
	} {
		p := sample()
		w := do(server(t, p.config()), "POST", "/drain", c.headers...)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, w.Code, c.want)
		}
		if begun := p.drained.Load() != 0; begun != (c.want == http.StatusOK) {
			t.Errorf("%s: drain begun: %v", c.name, begun)
		}
	}
}
