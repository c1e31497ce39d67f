package proxy_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/mtls"
)

// helloOf is what a client of crypto/tls sends first.
func helloOf(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	go func() { _ = tls.Client(a, &tls.Config{ServerName: "proxy.example"}).Handshake(); _ = a.Close() }() //nolint:gosec // nobody answers
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	return slices.Concat(head, body)
}

// One handshake may compute at a time, and there are as few places for connections as attackers
// can fill: those who have a connection, and those who come, are served all the same.
func TestFloodsOfHandshakesShutNobodyOut(t *testing.T) {
	hello := helloOf(t)
	huge := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 1<<14-4)...)
	for name, attack := range map[string]func(nc net.Conn){
		"nothing is said":               func(net.Conn) {},
		"the beginning of a hello":      func(nc net.Conn) { _, _ = nc.Write(hello[:20]) },
		"a hello, and nothing after it": func(nc net.Conn) { _, _ = nc.Write(hello) },
		"a hello, and garbage after it": func(nc net.Conn) { _, _ = nc.Write(hello); _, _ = nc.Write(make([]byte, 5000)) },
		"a hello without end": func(nc net.Conn) {
			for range 10 {
				_, _ = nc.Write(huge)
			}
		},
		"byte by byte": func(nc net.Conn) {
			for i := range hello {
				if _, err := nc.Write(hello[i : i+1]); err != nil {
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIdentities(t)
			k := mtls.NewKeeper(mtls.Config{Log: slog.New(slog.DiscardHandler), MaxHandshakes: 1})
			t.Cleanup(k.Close)
			s, err := k.Server("listener flooded", mesh.DownstreamTLS{TLS: i.files, RequireClientCertificate: true})
			if err != nil {
				t.Fatal(err)
			}
			addr := backend(t, func(http.ResponseWriter, *http.Request) {})
			r := startWith(t, func(c *proxy.Config) { c.TLS, c.MaxConnections = s, 100 }, []string{addr})
			old, fresh := i.http(t), i.http(t)
			fresh.Transport.(*http.Transport).DisableKeepAlives = true
			get := func(who string, c *http.Client) {
				resp, err := c.Get("https://" + r.addr + "/")
				if err != nil {
					t.Errorf("%s: %v", who, err)
					return
				}
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("%s: %d", who, resp.StatusCode)
				}
			}
			get("before", old)
			var attackers sync.WaitGroup
			var all []net.Conn
			for range 300 {
				nc, err := net.Dial("tcp", r.addr)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, nc)
				attackers.Go(func() { attack(nc) })
			}
			for range 5 {
				get("who has a connection", old)
				get("who comes", fresh)
			}
			for _, nc := range all {
				_ = nc.Close()
			}
			attackers.Wait()
		})
	}
}

// Who opens streams and takes nothing holds what it asked for, but not the places of requests to the
// instance, which others need.
func TestClientsThatTakeNoAnswersShutNobodyOut(t *testing.T) {
	for _, out := range versions {
		t.Run("to "+out.name, func(t *testing.T) {
			r := start(t, []string{out.backend(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") })},
				func(c *mesh.Cluster, _ *mesh.Route) { c.MaxRequests, c.Protocol = 4, out.protocol })
			a := r.attack(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
			want := map[uint32]string{}
			for range 4 {
				want[a.open("GET", "/", true)] = "small"
			}
			a.flush()
			for heads := 0; heads < len(want); {
				f, err := a.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				if f.Header().Type == h2.FrameHeaders {
					heads++
				}
			}
			status := 0
			for deadline := time.Now().Add(patience); status != http.StatusOK && time.Now().Before(deadline); {
				resp, _ := r.do("GET", "/", nil)
				if status = resp.StatusCode; status != http.StatusOK {
					time.Sleep(10 * time.Millisecond)
				}
			}
			if status != http.StatusOK {
				t.Errorf("another client: %d", status)
			}
			for id := range want {
				_ = a.WriteWindowUpdate(id, 100)
			}
			a.flush()
			got := map[uint32]string{}
			for ended := 0; ended < len(want); {
				f, err := a.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := f.(type) {
				case *h2.DataFrame:
					got[f.StreamID] += string(f.Data())
					if f.StreamEnded() {
						ended++
					}
				case *h2.RSTStreamFrame:
					t.Fatalf("they had their places until they were reset: %v", f.ErrCode)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("they got %v", got)
			}
		})
	}
}

// Who stops in the middle of an answer, or of a request, keeps its place at the instance for as long as a client may
// be still, unless others are refused for want of it.
func TestClientsThatStopInTheMiddleLoseTheirPlaceWhenOthersWantIt(t *testing.T) {
	const places = 4
	large := make([]byte, 1<<16)
	for name, stop := range map[string]func(r *rig){
		"answers, HTTP/1.1": func(r *rig) { _, _ = io.WriteString(r.dial(), "GET /large HTTP/1.1\r\nHost: a\r\n\r\n") },
		"answers, HTTP/2": func(r *rig) {
			a := r.attack(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 0})
			a.open("GET", "/large", true)
			a.flush()
			go a.answerPings()
		},
		"requests, HTTP/1.1": func(r *rig) {
			_, _ = io.WriteString(r.dial(), "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"+string(large))
		},
		"requests, HTTP/2": func(r *rig) {
			a := r.attack()
			_ = a.WriteData(a.open("POST", "/small", false), false, large[:1<<14])
			a.flush()
			go a.answerPings()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, out := range versions {
				t.Run("to "+out.name, func(t *testing.T) {
					t.Parallel()
					var later, looked atomic.Int64
					r := startWith(t, func(c *proxy.Config) {
						clock := c.Clock
						c.Clock = func() int64 { looked.Add(1); return clock() + later.Load() }
					}, []string{out.backend(t, func(w http.ResponseWriter, q *http.Request) {
						_, err := io.Copy(io.Discard, q.Body)
						for q.URL.Path == "/large" && err == nil {
							_, err = w.Write(large)
						}
					})}, func(c *mesh.Cluster, _ *mesh.Route) { c.MaxRequests, c.Protocol = places, out.protocol }, timeout(0))
					active := func(n int64) {
						t.Helper()
						for deadline := time.Now().Add(patience); r.set.Clusters()[0].Active() != n; time.Sleep(time.Millisecond) {
							if time.Now().After(deadline) {
								t.Fatalf("%d requests are under way, not %d", r.set.Clusters()[0].Active(), n)
							}
						}
					}
					for n := range places - 1 {
						stop(r)
						active(int64(n) + 1)
					}
					for range 10 {
						later.Add(int64(time.Second))
						for before := looked.Load(); looked.Load() < before+2; {
							time.Sleep(time.Millisecond)
						}
					}
					if resp, _ := r.do("GET", "/small", nil); resp.StatusCode != http.StatusOK {
						t.Errorf("there is a place left: %d", resp.StatusCode)
					}
					active(places - 1)

					stop(r)
					active(places)
					status := 0
					for deadline := time.Now().Add(patience); status != http.StatusOK && time.Now().Before(deadline); {
						resp, _ := r.do("GET", "/small", nil)
						switch status = resp.StatusCode; status {
						case http.StatusOK:
						case http.StatusServiceUnavailable:
							if later.Load() < int64(20*time.Second) {
								later.Add(int64(100 * time.Millisecond))
							}
							time.Sleep(10 * time.Millisecond)
						default:
							t.Fatalf("another client: %d", status)
						}
					}
					if status != http.StatusOK {
						t.Errorf("another client: %d", status)
					}
				})
			}
		})
	}
}

// answerPings reads, and answers PING as who is there does, until the connection ends.
func (a *attacker) answerPings() {
	for {
		f, err := a.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := f.(*h2.PingFrame); ok && !ping.IsAck() {
			_ = a.WritePing(true, ping.Data)
			a.flush()
		}
	}
}
