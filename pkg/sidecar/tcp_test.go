package sidecar

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/catalog"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestALocalPortIsReadAsItIsSaid(t *testing.T) {
	for said, want := range map[string]string{
		"5432=db":                           "127.0.0.1:5432=db.shop",
		"5432=db:5432":                      "127.0.0.1:5432=db.shop:5432",
		"0=DB.Default:tcp":                  "127.0.0.1:0=db.default:tcp",
		"127.0.0.2:1=db.default":            "127.0.0.2:1=db.default",
		"localhost:65535=db":                "127.0.0.1:65535=db.shop",
		"[::1]:5432=db":                     "[::1]:5432=db.shop",
		"[::ffff:127.0.0.1]:5432=db":        "127.0.0.1:5432=db.shop",
		"1=db.default.svc.cluster.local.:x": "127.0.0.1:1=db.default:x",
	} {
		if u, err := parseTCPUpstream(said, "shop"); err != nil || u.String() != want {
			t.Errorf("%q: %s, %v, want %s", said, u, err, want)
		}
	}
}

func TestALocalPortThatCannotBeIsRefusedWithWhatToSay(t *testing.T) {
	for said, want := range map[string]string{
		"5432":                    "has no '='",
		"":                        "has no '='",
		"=db":                     "is not a port",
		"x=db":                    `"x" is not a port`,
		"65536=db":                `"65536" is not a port`,
		"-1=db":                   `"-1" is not a port`,
		"::1:5432=db":             "is not a port, or an address with one",
		":5432=db":                "is not a loopback address: whoever reaches it",
		"0.0.0.0:5432=db":         "is not a loopback address: whoever reaches it",
		"10.0.0.1:5432=db":        "is not a loopback address: whoever reaches it",
		"db:5432=db":              "is not a loopback address: whoever reaches it",
		"5432=":                   `"" is not a mesh name`,
		"5432=10.0.0.1":           "is not a mesh name",
		"5432=10.0.0.1:5432":      "is not a mesh name",
		"5432=a_b":                "is not a mesh name",
		"5432=a.b.c":              "is not a mesh name",
		"5432=db:":                "port must be a number or a lower-case port name",
		"5432=db:5432:1":          "port must be a number or a lower-case port name",
		"5432=db=x":               "is not a mesh name",
		"5432=" + long(64) + ".b": "is not a mesh name",
	} {
		if u, err := parseTCPUpstream(said, "shop"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v, want %q", said, u, err, want)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func FuzzLocalPort(f *testing.F) {
	for _, seed := range []string{"5432=db", "[::1]:5432=db.default:tcp", "localhost:0=a.b.svc.cluster.local.", "=", ":=:", "[::1%lo]:1=a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said string) {
		u, err := parseTCPUpstream(said, "default")
		if err != nil {
			return
		}
		again, err := parseTCPUpstream(u.String(), "default")
		if err != nil || again != u {
			t.Errorf("%q is read as %s, and that as %s, %v", said, u, again, err)
		}
		if !u.listen.Addr().IsLoopback() {
			t.Errorf("%q is at %s", said, u.listen)
		}
	})
}

func TestAnAddressIsTakenOnce(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string // "": nothing is wrong
	}{
		"two":                           {Config{TCPUpstreams: []string{"1=a", "2=a"}}, ""},
		"two on free ports":             {Config{TCPUpstreams: []string{"0=a", "0=b"}}, ""},
		"two on addresses of their own": {Config{TCPUpstreams: []string{"127.0.0.1:1=a", "127.0.0.2:1=b"}}, ""},
		"twice":                         {Config{TCPUpstreams: []string{"1=a", "localhost:1=b"}}, `"localhost:1=b": 127.0.0.1:1 is taken already, by --tcp-upstream "1=a"`},
		"outbound":                      {Config{OutboundAddr: "localhost:15001", TCPUpstreams: []string{"15001=a"}}, "taken already, by --outbound-addr localhost:15001"},
		"admin":                         {Config{AdminAddr: "127.0.0.1:15000", TCPUpstreams: []string{"15000=a"}}, "taken already, by --admin-addr"},
		"inbound":                       {Config{InboundAddr: "0.0.0.0:15006", Workload: Workload{AppAddr: "127.0.0.1:1"}, TCPUpstreams: []string{"15006=a"}}, "taken already, by --inbound-addr"},
		"inbound of all":                {Config{InboundAddr: ":15006", Workload: Workload{AppAddr: "127.0.0.1:1"}, TCPUpstreams: []string{"15006=a"}}, "taken already, by --inbound-addr"},
		"inbound elsewhere":             {Config{InboundAddr: "10.0.0.1:15006", Workload: Workload{AppAddr: "127.0.0.1:1"}, TCPUpstreams: []string{"15006=a"}}, ""},
		"no inbound":                    {Config{InboundAddr: "0.0.0.0:15006", TCPUpstreams: []string{"15006=a"}}, ""},
		"all faults at once":            {Config{TCPUpstreams: []string{"x=a", "1=a", "1=b", "2=_"}}, `"x=a": "x" is not a port|"1=b": 127.0.0.1:1 is taken|"2=_": "_" is not a mesh name`},
	} {
		var told []string
		c.config.validateUpstreams(func(format string, args ...any) { told = append(told, fmt.Errorf(format, args...).Error()) })
		if c.want == "" && len(told) > 0 {
			t.Errorf("%s: %q", name, told)
			continue
		}
		for part := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains(strings.Join(told, "\n"), part) {
				t.Errorf("%s: %q lacks %q", name, told, part)
			}
		}
	}
}

func TestTheShorterBoundHolds(t *testing.T) {
	for _, c := range [][3]time.Duration{{1, 0, 1}, {1, 2, 1}, {3, 2, 2}} {
		if got := shorter(c[0], c[1]); got != c[2] {
			t.Errorf("of %d and %d: %d", c[0], c[1], got)
		}
	}
}

// asked is a control plane that is asked, and does not answer of itself.
type asked struct{ names chan string }

func (a asked) Subscribe(k catalog.Kind, names ...string) {
	if k == catalog.Listeners {
		a.names <- names[0]
	}
}
func (asked) Unsubscribe(catalog.Kind, ...string) {}
func (asked) Connected() bool                     { return true }

func TestARoadIsLearntOnceAndThenFoundWithoutAllocating(t *testing.T) {
	clock := func() int64 { return 1 }
	log := slog.New(slog.DiscardHandler)
	set := upstream.NewSet(clock, log)
	defer set.Close()
	registry := metrics.New(metrics.Config{})
	control := asked{make(chan string, 1)}
	all := catalog.New(catalog.Config{Source: "shop.default"}, set, metrics.NewProxy(registry, reason.Codes()), control, clock, log)
	defer all.Close()
	s := &sidecar{clock: clock, tcp: metrics.NewTCP(registry, reason.Codes()), config: Config{TunnelIdleTimeout: time.Minute}}
	r := &road{sidecar: s, router: catalog.Router{Catalog: all, Namespace: "default"}, name: []byte("db.default"), path: []byte{'/'}}
	go func() {
		name := <-control.names
		direct := mesh.RouteConfiguration{Name: name, VirtualHosts: []mesh.VirtualHost{{Name: name, Domains: []string{"*"}, Routes: []mesh.Route{
			{Match: mesh.RouteMatch{Prefix: "/"}, Action: mesh.RouteAction{Direct: &mesh.DirectResponse{Status: 503}}},
		}}}}
		all.Apply(catalog.Update{Kind: catalog.Listeners, Listeners: []mesh.Listener{{
			Name: name, Route: &direct, TCP: []mesh.TCPChain{{TCP: mesh.TCPProxy{Cluster: "db", IdleTimeout: time.Second, ConnectAttempts: 3}}},
		}}})
		all.Apply(catalog.Update{Kind: catalog.Clusters, Clusters: []mesh.Cluster{{Name: "db", ConnectTimeout: time.Second}}})
		all.Apply(catalog.Update{Kind: catalog.Endpoints, Endpoints: []mesh.LoadAssignment{{Cluster: "db", Endpoints: []mesh.Endpoint{
			{Address: netip.MustParseAddrPort("192.0.2.1:5432"), Weight: 1},
		}}}})
	}()
	route, why := r.find(t.Context())
	if why != reason.None {
		t.Fatal(why.Code())
	}
	if route.Source != "shop.default" || route.Destination != "db" || route.IdleTimeout != time.Second || route.Attempts != 3 || route.Cluster.Name() != "db" {
		t.Errorf("it leads to %+v", route)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		if again, _ := r.find(ctx); again != route {
			t.Error("it leads elsewhere the next time")
		}
	}); n > 0 {
		t.Errorf("finding it allocates %v times", n)
	}
}
