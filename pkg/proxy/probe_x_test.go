package proxy_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

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

// A client's stream is answered at its end, which may be hours away: the instance owes nothing until
// then. Whether it lives, it says to a PING.
func TestAStreamThatIsAnsweredAtItsEndDoesNotKeepOthersFromAnInstanceThatLives(t *testing.T) {
	for name, lives := range map[string]bool{"it lives": true, "it hangs": false} {
		t.Run(name, func(t *testing.T) {
			var healthy, streams atomic.Int32
			addr, asked := hostOf(t, nil, func(h *host) {
				for {
					f, err := h.ReadFrame()
					if err != nil {
						return
					}
					switch f := f.(type) {
					case *h2.HeadersFrame:
						h.asked.Add(1)
						switch {
						case healthy.Load() == 0:
							h.head(f.StreamID, true, ":status", "500")
						case f.StreamEnded():
							h.head(f.StreamID, true, ":status", "200")
						default:
							streams.Add(1)
						}
					case *h2.PingFrame:
						if lives && !f.IsAck() {
							_ = h.WritePing(true, f.Data)
						}
					}
					if !h.flush() {
						return
					}
				}
			})
			r := start(t, []string{addr}, speaksHTTP2, func(c *mesh.Cluster, _ *mesh.Route) {
				c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, OpenTime: 50 * time.Millisecond, MaxEjectionPercent: 100}
			})
			if a, _ := r.do("GET", "/", nil); a.StatusCode != 500 {
				t.Fatalf("status %d", a.StatusCode)
			}
			healthy.Store(1)
			time.Sleep(100 * time.Millisecond)
			from, to := io.Pipe()
			q := newRequest(t, "POST", "http://"+r.addr+"/s/Collect", from)
			q.Header.Set("Content-Type", "application/grpc")
			q.Header.Set("Te", "trailers")
			client := versions[1].client(t)
			client.Timeout = 0
			over := make(chan struct{})
			go func() {
				defer close(over)
				if a, err := client.Do(q); err == nil {
					_ = a.Body.Close()
				}
			}()
			defer func() { _ = to.CloseWithError(io.ErrUnexpectedEOF); <-over }()
			if _, err := to.Write([]byte{0, 0, 0, 0, 1, 'x'}); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); streams.Load() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the stream does not come")
				}
			}
			before := asked.Load()
			within := 20 * time.Second // of a lease of 30 s
			if !lives {
				within = 3 * time.Second
			}
			for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				a, _ := r.do("GET", "/", nil)
				if a.StatusCode == http.StatusOK {
					if !lives {
						t.Error("another is let through")
					}
					return
				}
				if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Fairlead-Reason") != "no_usable_endpoint" {
					t.Fatalf("%d (%s)", a.StatusCode, a.Header.Get("Fairlead-Reason"))
				}
			}
			if lives {
				t.Error("no other is let through")
			}
			if n := asked.Load(); n != before {
				t.Errorf("%d others were let through", n-before)
			}
		})
	}
}
