package play

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestActThatIsCutShortStatesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	// It is cut short when the client's sidecar is asked for the breaker.
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/clusters" {
			cancel()
		}
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	s := &Stage{
		Mesh:     &Mesh{admin: address, instances: []*Instance{{ID: "o3", appAddr: address}}},
		Load:     &Load{},
		Announce: func(string, string) {},
		State:    func(st Statement) { t.Errorf("stated: %+v", st) },
	}
	_ = s.failing(ctx) // it cannot end the fault any more
	if ctx.Err() == nil {
		t.Fatal("the act did not ask for the breaker")
	}
}
