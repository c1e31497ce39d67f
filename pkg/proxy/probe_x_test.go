package proxy_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// One response is let through to find out whether an instance works again. One that goes on for
// hours has found it out long before it ends.
func TestAResponseThatGoesOnDoesNotKeepOthersFromAnInstanceThatWorks(t *testing.T) {
	tripping := func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 50 * time.Millisecond, MaxEjectionPercent: 100}
	}
	for _, v := range versions {
		for name, says := range map[string]string{"silently": "", "after its first bytes": "first"} {
			t.Run(v.name+", "+name, func(t *testing.T) {
				var healthy atomic.Bool
				ended := make(chan struct{})
				endless := func(w http.ResponseWriter, q *http.Request) {
					switch {
					case !healthy.Load():
						w.WriteHeader(http.StatusInternalServerError)
					case q.URL.Path == "/endless":
						_, _ = w.Write([]byte(says))
						_ = http.NewResponseController(w).Flush()
						<-ended
					}
				}
				r := start(t, []string{v.backend(t, endless)}, tripping, func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = v.protocol })
				t.Cleanup(func() { close(ended) })
				client := v.client(t)
				get := func(path string) *http.Response {
					t.Helper()
					a, err := client.Do(newRequest(t, "GET", "http://"+r.addr+path, nil))
					if err != nil {
						t.Fatal(err)
					}
					return a
				}
				_ = get("/").Body.Close()
				if s := r.set.Clusters()[0].Hosts()[0].Status(0); s.Breaker.State != breaker.Open {
					t.Fatalf("the breaker is %s", s.Breaker.State)
				}
				healthy.Store(true)
				time.Sleep(100 * time.Millisecond)
				going := get("/endless")
				defer func() { _ = going.Body.Close() }()
				if going.StatusCode != http.StatusOK {
					t.Fatalf("status %d", going.StatusCode)
				}
				for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
					a := get("/")
					_ = a.Body.Close()
					if a.StatusCode == http.StatusOK {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("all others are answered with %d (%s)", a.StatusCode, a.Header.Get("Fairlead-Reason"))
					}
				}
			})
		}
	}
}
