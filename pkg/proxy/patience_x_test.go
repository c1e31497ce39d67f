package proxy_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// hasty is a server that waits for clients no longer than a second.
func hasty(c *proxy.Config) { c.HeadTimeout, c.StallTimeout = time.Second, time.Second }

// reads reads frames until one is as wanted, or the connection has ended.
func (a *attacker) reads(wanted func(f h2.Frame) bool) bool {
	for {
		f, err := a.ReadFrame()
		var badStream h2.StreamError
		switch {
		case errors.As(err, &badStream):
		case err != nil:
			return false
		case wanted(f):
			return true
		}
	}
}

func TestHeadsThatDoNotComeToAnEndAreNotWaitedFor(t *testing.T) {
	r := startWith(t, hasty, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	other := versions[1].client(t)
	serveOK(t, other, r.addr)
	used := measure()
	var half []*attacker
	for range 500 {
		a := r.attack()
		_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: a.block("GET", "/"), EndStream: true})
		a.flush()
		b := r.attack() // and the header of a frame, and no more
		b.out.Write([]byte{0, 0, 100, byte(h2.FrameHeaders), 5, 0, 0, 0, 1, 'x'})
		b.flush()
		half = append(half, a, b)
	}
	serveOK(t, other, r.addr)
	for i, a := range half {
		if got := a.ending(); got != calm {
			t.Fatalf("connection %d ends with %s", i, got)
		}
	}
	used.end()
	if used.memory > heap*64<<20 {
		t.Errorf("%d MB were used", used.memory>>20)
	}
	serveOK(t, other, r.addr)
}

func TestHeadThatTricklesInIsNotWaitedForEither(t *testing.T) {
	r := startWith(t, hasty, []string{backend(t, func(http.ResponseWriter, *http.Request) {})})
	a := r.attack()
	block := a.block("GET", "/")
	_ = a.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, EndStream: true})
	a.flush()
	go func() {
		for _, b := range block {
			time.Sleep(400 * time.Millisecond)
			_ = a.WriteContinuation(1, false, []byte{b})
			a.flush()
		}
	}()
	if got := a.ending(); got != calm {
		t.Errorf("it ends with %s", got)
	}
}

func serveOK(t *testing.T, c *http.Client, addr string) {
	t.Helper()
	if a, _ := do(t, c, newRequest(t, "GET", "http://"+addr+"/", nil)); a.StatusCode != http.StatusOK {
		t.Errorf("another client: %d", a.StatusCode)
	}
}

func TestBodyThatStopsComingIsAnsweredWith408InAllVersions(t *testing.T) {
	for _, in := range versions {
		for _, out := range versions {
			t.Run(in.name+" to "+out.name, func(t *testing.T) {
				addr := out.backend(t, func(_ http.ResponseWriter, q *http.Request) { _, _ = io.Copy(io.Discard, q.Body) })
				r := startWith(t, hasty, []string{addr}, timeout(0), func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
				pr, pw := io.Pipe()
				defer func() { _ = pw.Close() }()
				go func() { _, _ = io.WriteString(pw, "hello") }()
				a, got := do(t, in.client(t), newRequest(t, "POST", "http://"+r.addr, pr))
				if a.StatusCode != http.StatusRequestTimeout || a.Header.Get("Fairlead-Reason") != "body_timeout" {
					t.Errorf("%d %v %q", a.StatusCode, a.Header, got)
				}
			})
		}
	}
}

func TestResponseThatIsNotTakenEndsForItsOwnClientOnly(t *testing.T) {
	for _, out := range versions {
		t.Run(out.name, func(t *testing.T) {
			r := startWith(t, hasty, []string{out.backend(t, (&victim{}).ServeHTTP)}, timeout(0), func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = out.protocol })
			a := r.attack(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 100})
			id := a.open("GET", "/large", true)
			a.flush()
			if !a.reads(func(f h2.Frame) bool { return f.Header().Type == h2.FrameRSTStream && f.Header().StreamID == id }) {
				t.Error("the stream is not ended")
			}
			inFlight(t, map[string]float64{"c": 0}, r.counts)
			other := versions[1].client(t)
			serveOther(t, other, r.addr)
		})
	}
}
