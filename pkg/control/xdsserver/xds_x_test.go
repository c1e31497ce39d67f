package xdsserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/control/xdsserver"
	"github.com/fairlead-mesh/fairlead/pkg/xds/client"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// resource makes one whose version is its content.
func resource(t codec.Type, name, content string) codec.Encoded {
	return codec.Encoded{Type: t, Name: name, Body: []byte(content), Version: "v" + content}
}

// serve runs a server of c until the test ends or stop is called.
func serve(t *testing.T, c *xdsserver.Cache, address string) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	g, server := grpc.NewServer(), xdsserver.NewServer(c)
	server.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			server.Close()
			g.Stop()
			<-served
		})
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// holder is the owner of a client: it keeps what was applied.
type holder struct {
	mu        sync.Mutex
	have      map[string]string // type and name to content
	gone      map[string]bool
	responses int
	refuse    func(client.Resource) string
	changed   chan struct{}
}

func (h *holder) apply(u client.Update) (bad []client.Rejection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.responses++
	for _, r := range u.Resources {
		if h.refuse != nil {
			if why := h.refuse(r); why != "" {
				bad = append(bad, client.Rejection{Name: r.Name, Reason: why})
				continue
			}
		}
		h.have[u.TypeURL+" "+r.Name] = string(r.Body.GetValue())
		delete(h.gone, u.TypeURL+" "+r.Name)
	}
	for _, name := range u.Removed {
		delete(h.have, u.TypeURL+" "+name)
		h.gone[u.TypeURL+" "+name] = true
	}
	close(h.changed)
	h.changed = make(chan struct{})
	return bad
}

// await blocks until cond holds of what was applied.
func (h *holder) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		h.mu.Lock()
		ok, changed := cond(), h.changed
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("never: %s; have %v, gone %v", what, h.have, h.gone)
		}
	}
}

func (h *holder) awaitContent(t *testing.T, key, content string) {
	t.Helper()
	h.await(t, key+" = "+content, func() bool { return h.have[key] == content })
}

func (h *holder) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.responses
}

// connect runs a client until the test ends.
func connect(t *testing.T, addr, node string) (*client.Client, *holder) {
	t.Helper()
	h := &holder{have: map[string]string{}, gone: map[string]bool{}, changed: make(chan struct{})}
	c := client.New(client.Config{
		Node:  &core.Node{Id: node, Cluster: "svc.default", UserAgentName: "test"},
		Conn:  dial(t, addr),
		Apply: h.apply,
		Log:   slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c, h
}

func newCache(resources ...codec.Encoded) *xdsserver.Cache {
	c := xdsserver.NewCache(slog.New(slog.DiscardHandler))
	c.Update(resources, nil, 1)
	return c
}

const (
	cds = codec.ClusterURL + " "
	lds = codec.ListenerURL + " "
)

func TestClientGetsWhatItAsksForAndItsChanges(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ClusterURL, "a")
	h.awaitContent(t, cds+"a", "1")
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "2"), resource(codec.TypeCluster, "b", "2")}, nil, 2)
	h.awaitContent(t, cds+"a", "2")
	if _, has := h.have[cds+"b"]; has {
		t.Error("it got what it did not ask for")
	}
	c.Update(nil, []xdsserver.Key{{Type: codec.TypeCluster, Name: "a"}}, 3)
	h.await(t, "a is gone", func() bool { return h.gone[cds+"a"] })
}

func TestUnknownNameIsAnsweredAtOnceButNotBeforeTheFirstSync(t *testing.T) {
	c := newCache()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ListenerURL, "nobody.default", "late.default")
	time.Sleep(100 * time.Millisecond)
	if n := h.count(); n != 0 {
		t.Fatalf("%d responses before the first sync", n)
	}
	c.Update([]codec.Encoded{resource(codec.TypeListener, "late.default", "1")}, nil, 2)
	c.SetSynced()
	h.await(t, "nobody is unknown", func() bool { return h.gone[lds+"nobody.default"] && h.have[lds+"late.default"] == "1" })
	c.Update([]codec.Encoded{resource(codec.TypeListener, "nobody.default", "1")}, nil, 3)
	h.awaitContent(t, lds+"nobody.default", "1")
}

func TestContentThatDidNotChangeIsNotSent(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ClusterURL, "a")
	h.awaitContent(t, cds+"a", "1")
	for i := range 10 {
		c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "1")}, nil, int64(i))
	}
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "2")}, nil, 20)
	h.awaitContent(t, cds+"a", "2")
	if n := h.count(); n != 2 {
		t.Errorf("%d responses for 2 contents", n)
	}
}

func TestRefusedResourceIsParkedUntilItChangesAndTheOthersAreApplied(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "good", "1"), resource(codec.TypeCluster, "bad", "x"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	h.refuse = func(r client.Resource) string {
		if string(r.Body.GetValue()) == "x" {
			return "x is not a value"
		}
		return ""
	}
	x.Subscribe(codec.ClusterURL, "good", "bad")
	h.awaitContent(t, cds+"good", "1")
	for _, k := range []string{"good", "bad"} {
		awaitApplied(t, c, xdsserver.Key{Type: codec.TypeCluster, Name: k})
	}
	clients := c.Clients()
	if len(clients) != 1 || clients[0].Node != "n1" || clients[0].Service != "svc.default" || len(clients[0].Types) != 1 {
		t.Fatalf("clients %+v", clients)
	}
	st := clients[0].Types[0]
	if !slices.Equal(st.Applied, []xdsserver.Applied{{Name: "good", Version: "v1"}}) {
		t.Errorf("applied %v", st.Applied)
	}
	if len(st.Rejected) != 1 || st.Rejected[0].Name != "bad" || st.Rejected[0].Version != "vx" || st.Rejected[0].Reason != "x is not a value" {
		t.Errorf("rejected %+v", st.Rejected)
	}
	n := h.count()
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "good", "2")}, nil, 2)
	h.awaitContent(t, cds+"good", "2")
	if got := h.count(); got != n+1 {
		t.Errorf("%d responses for one change: the refused one came again", got-n)
	}
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "bad", "y")}, nil, 3)
	h.awaitContent(t, cds+"bad", "y")
}

// countingHandler counts log lines.
type countingHandler struct {
	slog.Handler
	lines *atomic.Int64
}

func (h countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h countingHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "resource refused" {
		h.lines.Add(1)
	}
	return nil
}

func TestClientThatRefusesEverythingDoesNotFillTheLog(t *testing.T) {
	var lines atomic.Int64
	c := xdsserver.NewCache(slog.New(countingHandler{slog.DiscardHandler, &lines}))
	var all []codec.Encoded
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprint("c", i))
		all = append(all, resource(codec.TypeCluster, names[i], "1"))
	}
	c.Update(all, nil, 1)
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	h.refuse = func(client.Resource) string { return "no" }
	x.Subscribe(codec.ClusterURL, names...)
	shown := func() int {
		n := 0
		for _, client := range c.Clients() {
			for _, typ := range client.Types {
				n += len(typ.Rejected)
			}
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); shown() < len(names); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d refusals are shown", shown())
		}
	}
	if n := lines.Load(); n < 100 || n > 200 {
		t.Errorf("%d are logged", n)
	}
}

func awaitApplied(t *testing.T, c *xdsserver.Cache, k xdsserver.Key) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if missing := c.AwaitApplied(ctx, k); missing > 0 {
		t.Fatalf("%d clients have not applied %v", missing, k)
	}
}

func TestVersionsThatAClientSaysItHoldsAreBoundedAndKeptOnlyOfWhatItWants(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	long := strings.Repeat("x", xdsserver.MaxNameLength+1)
	// ask tells what came first, and what was then kept of a client that says it holds versions.
	ask := func(versions map[string]string) (resources int, kept []xdsserver.Applied, err error) {
		ctx, end := context.WithCancel(t.Context())
		defer func() {
			end()
			for c.Stats().Streams > 0 {
				time.Sleep(time.Millisecond)
			}
		}()
		s, err := discovery.NewAggregatedDiscoveryServiceClient(dial(t, addr)).DeltaAggregatedResources(ctx)
		if err != nil {
			return 0, nil, err
		}
		if err := s.Send(&discovery.DeltaDiscoveryRequest{
			Node: &core.Node{Id: "n1"}, TypeUrl: codec.ClusterURL,
			ResourceNamesSubscribe: []string{"a"}, InitialResourceVersions: versions,
		}); err != nil {
			return 0, nil, err
		}
		r, err := s.Recv()
		if err != nil {
			return 0, nil, err
		}
		return len(r.GetResources()), c.Clients()[0].Types[0].Applied, nil
	}
	if _, _, err := ask(map[string]string{long: "1"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("long name: %v", err)
	}
	n, kept, err := ask(map[string]string{"a": "old", "stranger": "1"})
	if err != nil || n != 1 || !slices.Equal(kept, []xdsserver.Applied{{Name: "a", Version: "old"}}) {
		t.Errorf("kept %v of a stranger too, or %d resources, %v", kept, n, err)
	}
	// A version that is none of this server's is as good as none.
	if n, kept, err = ask(map[string]string{"a": long}); err != nil || n != 1 || len(kept) != 0 {
		t.Errorf("kept %.80v, %d resources, %v", kept, n, err)
	}
}

func TestRestartedServerSendsOnlyWhatDiffers(t *testing.T) {
	resources := []codec.Encoded{resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1")}
	first := newCache(resources...)
	first.SetSynced()
	addr, stop := serve(t, first, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ClusterURL, "a", "b")
	h.awaitContent(t, cds+"b", "1")
	stop()

	second := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "2"))
	second.SetSynced()
	serve(t, second, addr)
	h.awaitContent(t, cds+"b", "2")
	if sent := second.Stats().PushedBytes; sent != 1 {
		t.Errorf("%d bytes of resources were sent, want the 1 that differs", sent)
	}
}

func TestUnsubscribedNameCostsNothingAnyMore(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ClusterURL, "a", "b")
	h.awaitContent(t, cds+"b", "1")
	x.Unsubscribe(codec.ClusterURL, "a")
	x.Subscribe(codec.ClusterURL, "c") // known to be handled after it
	h.await(t, "c is unknown", func() bool { return h.gone[cds+"c"] })
	n := h.count()
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "2")}, nil, 2)
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "b", "2")}, nil, 3)
	h.awaitContent(t, cds+"b", "2")
	if got := h.count(); got != n+1 {
		t.Errorf("%d responses for one change that it wants", got-n)
	}
	x.Subscribe(codec.ClusterURL, "a")
	h.awaitContent(t, cds+"a", "2")
}

// sotw is a raw state-of-the-world stream.
type sotw struct {
	t *testing.T
	s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func openSotw(t *testing.T, addr string) *sotw {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	s, err := discovery.NewAggregatedDiscoveryServiceClient(dial(t, addr)).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &sotw{t, s}
}

func (s *sotw) ask(typeURL, version, nonce, bad string, names ...string) {
	s.t.Helper()
	r := &discovery.DiscoveryRequest{Node: &core.Node{Id: "sotw"}, TypeUrl: typeURL, VersionInfo: version, ResponseNonce: nonce, ResourceNames: names}
	if bad != "" {
		r.ErrorDetail = &statuspb.Status{Code: 3, Message: bad}
	}
	if err := s.s.Send(r); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sotw) recv() (*discovery.DiscoveryResponse, []string) {
	s.t.Helper()
	r, err := s.s.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, res := range r.GetResources() {
		got = append(got, string(res.GetValue()))
	}
	return r, got
}

func TestStateOfTheWorldRefusalIsNotAnsweredWithTheSameAgain(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1b"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	s := openSotw(t, addr)
	s.ask(codec.ClusterURL, "", "", "", "a", "b", "nobody")
	r, got := s.recv()
	if !slices.Equal(got, []string{"1", "1b"}) {
		t.Fatalf("got %v", got)
	}
	s.ask(codec.ClusterURL, "", r.GetNonce(), "no good", "a", "b", "nobody")
	c.Update([]codec.Encoded{resource(codec.TypeEndpoints, "e", "e1")}, nil, 2)
	s.ask(codec.EndpointsURL, "", "", "", "e")
	if r, got := s.recv(); r.GetTypeUrl() != codec.EndpointsURL || !slices.Equal(got, []string{"e1"}) {
		t.Fatalf("after the refusal came %s %v", r.GetTypeUrl(), got)
	}
	if st := c.Clients()[0].Types; len(st[0].Rejected) != 2 {
		t.Errorf("rejected %+v", st)
	}
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "2")}, nil, 3)
	if _, got := s.recv(); !slices.Equal(got, []string{"2", "1b"}) {
		t.Errorf("after the change came %v", got)
	}
}

func TestEnvoysNamelessRequestMeansEverything(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	s := openSotw(t, addr)
	s.ask(codec.ClusterURL, "", "", "")
	r, got := s.recv()
	if !slices.Equal(got, []string{"1"}) {
		t.Fatalf("got %v", got)
	}
	s.ask(codec.ClusterURL, r.GetVersionInfo(), r.GetNonce(), "")
	awaitApplied(t, c, xdsserver.Key{Type: codec.TypeCluster, Name: "a"})
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "b", "2")}, nil, 2)
	if _, got := s.recv(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %v", got)
	}
}

func TestHostileRequestsAreRefusedWithTheBound(t *testing.T) {
	c := newCache()
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	many := make([]string, xdsserver.MaxSubscriptions+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, r := range map[string]struct {
		request *discovery.DiscoveryRequest
		want    codes.Code
	}{
		"unknown type":   {&discovery.DiscoveryRequest{TypeUrl: "type.googleapis.com/x"}, codes.InvalidArgument},
		"long name":      {&discovery.DiscoveryRequest{TypeUrl: codec.ClusterURL, ResourceNames: []string{string(make([]byte, 600))}}, codes.InvalidArgument},
		"too many":       {&discovery.DiscoveryRequest{TypeUrl: codec.ClusterURL, ResourceNames: many}, codes.ResourceExhausted},
		"no type at all": {&discovery.DiscoveryRequest{}, codes.InvalidArgument},
	} {
		s := openSotw(t, addr)
		if err := s.s.Send(r.request); err != nil {
			t.Fatal(err)
		}
		if _, err := s.s.Recv(); status.Code(err) != r.want {
			t.Errorf("%s: %v, want %v", name, err, r.want)
		}
	}
}

func TestSubscriptionsOfAllStreamsTogetherAreBounded(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeRoute, "a", "1"))
	c.SetMost(5, 1000)
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	first := openSotw(t, addr)
	first.ask(codec.ClusterURL, "", "", "", "a", "b", "c")
	r, _ := first.recv()
	late := openSotw(t, addr)
	late.ask(codec.ClusterURL, "", "", "", "a", "b", "c")
	if _, err := late.s.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream too many: %v", err)
	}
	first.ask(codec.ClusterURL, r.GetVersionInfo(), r.GetNonce(), "", "a", "b", "c") // repeats what it has
	first.ask(codec.RouteURL, "", "", "", "a", "b")
	if r, _ = first.recv(); r.GetTypeUrl() != codec.RouteURL {
		t.Fatalf("got %v", r)
	}
	if n := c.Stats().Subscriptions; n != 5 {
		t.Errorf("%d subscriptions, want 5", n)
	}
	_ = first.s.CloseSend()
	for c.Stats().Streams > 0 {
		time.Sleep(time.Millisecond)
	}
	if n := c.Stats().Subscriptions; n != 0 {
		t.Errorf("%d subscriptions of nobody", n)
	}
}

func TestNamesOfAllStreamsTogetherAreBounded(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "long name", "1"))
	c.SetMost(1000, 20)
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	first := openSotw(t, addr)
	first.ask(codec.ClusterURL, "", "", "", "long name", "another")
	r, _ := first.recv()
	late := openSotw(t, addr)
	late.ask(codec.ClusterURL, "", "", "", "name")
	if late.s.RecvMsg(&discovery.DiscoveryResponse{}) != nil {
		t.Error("20 bytes of names are too many")
	}
	late.ask(codec.RouteURL, "", "", "", "n")
	if err := late.s.RecvMsg(&discovery.DiscoveryResponse{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a byte too many: %v", err)
	}
	for c.Stats().Streams > 1 {
		time.Sleep(time.Millisecond)
	}
	first.ask(codec.ClusterURL, r.GetVersionInfo(), r.GetNonce(), "", "long name") // gives up the other
	first.ask(codec.RouteURL, "", "", "", "eleven byte")
	c.Update([]codec.Encoded{resource(codec.TypeRoute, "eleven byte", "1")}, nil, 2)
	if r, _ = first.recv(); r.GetTypeUrl() != codec.RouteURL {
		t.Errorf("got %v", r)
	}
}

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(p))
	return len(p), nil
}

// of returns what was said with a message, sorted.
func (l *lines) of(message string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.all {
		if _, said, ok := strings.Cut(line, fmt.Sprintf("msg=%q ", message)); ok {
			found = append(found, strings.TrimSpace(said))
		}
	}
	slices.Sort(found)
	return found
}

func TestRefusalIsLoggedOnceWithTheNodeAndItsReason(t *testing.T) {
	log := &lines{}
	c := xdsserver.NewCache(slog.New(slog.NewTextHandler(log, nil)))
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1b")}, nil, 1)
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	s := openSotw(t, addr)
	s.ask(codec.ClusterURL, "", "", "", "a", "b")
	r, _ := s.recv()
	s.ask(codec.ClusterURL, "", r.GetNonce(), "no good", "a", "b")
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "b", "2b")}, nil, 2)
	r, got := s.recv() // brings both, since in the state of the world what is missing does not exist
	if !slices.Equal(got, []string{"1", "2b"}) {
		t.Fatalf("got %v", got)
	}
	first := c.Clients()[0].Types[0].Rejected[0].At
	s.ask(codec.ClusterURL, "", r.GetNonce(), "no good", "a", "b")
	c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", "2")}, nil, 3)
	r, _ = s.recv()
	if st := c.Clients()[0].Types[0].Rejected; len(st) != 2 || st[0].Name != "a" || !st[0].At.Equal(first) {
		t.Errorf("rejected %+v, want a since %v", st, first)
	}
	s.ask(codec.ClusterURL, "", r.GetNonce(), "no good", "a", "b")
	awaitApplied(t, c, xdsserver.Key{Type: codec.TypeCluster, Name: "a"}) // or refused
	want := []string{
		`node=sotw type=cluster resource=a version=v1 reason="no good"`,
		`node=sotw type=cluster resource=a version=v2 reason="no good"`,
		`node=sotw type=cluster resource=b version=v1b reason="no good"`,
		`node=sotw type=cluster resource=b version=v2b reason="no good"`,
	}
	if logged := log.of("resource refused"); !slices.Equal(logged, want) {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(logged, "\n"), strings.Join(want, "\n"))
	}
}

func TestAnswerAboutANameThatIsNotWantedAnyMoreIsNotKept(t *testing.T) {
	c := newCache(resource(codec.TypeCluster, "a", "1"), resource(codec.TypeCluster, "b", "1b"))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := discovery.NewAggregatedDiscoveryServiceClient(dial(t, addr)).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(r *discovery.DeltaDiscoveryRequest) {
		r.TypeUrl = codec.ClusterURL
		if err := s.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	come := func(want ...string) string {
		t.Helper()
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, res := range r.GetResources() {
			got = append(got, res.GetName())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("came %v, want %v", got, want)
		}
		return r.GetNonce()
	}
	for _, answer := range []*statuspb.Status{{Code: 3, Message: "no good"}, nil} {
		ask(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a"}})
		nonce := come("a")
		ask(&discovery.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"a"}})
		ask(&discovery.DeltaDiscoveryRequest{ResponseNonce: nonce, ErrorDetail: answer})
		ask(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"b"}})
		come("b")
		if st := c.Clients()[0].Types[0]; len(st.Applied)+len(st.Rejected) > 0 {
			t.Errorf("kept, after %v: applied %v, rejected %v", answer, st.Applied, st.Rejected)
		}
		ask(&discovery.DeltaDiscoveryRequest{ResourceNamesUnsubscribe: []string{"b"}})
	}
	ask(&discovery.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a"}})
	come("a")
}

func TestClientThatDoesNotReadHoldsUpNobody(t *testing.T) {
	big := string(make([]byte, 1<<20))
	c := newCache(resource(codec.TypeCluster, "a", big))
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deaf, err := discovery.NewAggregatedDiscoveryServiceClient(dial(t, addr)).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := deaf.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: codec.ClusterURL, ResourceNamesSubscribe: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	x, h := connect(t, addr, "n1")
	x.Subscribe(codec.ClusterURL, "a")
	for i := range 20 {
		content := fmt.Sprint(i)
		c.Update([]codec.Encoded{resource(codec.TypeCluster, "a", content)}, nil, int64(i))
		h.awaitContent(t, cds+"a", content)
	}
}

func TestEverySubscriberEndsWithWhatTheCacheHas(t *testing.T) {
	const steps, names = 300, 12
	c := newCache()
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	rng := rand.New(rand.NewPCG(1, 2))
	type subscriber struct {
		c    *client.Client
		h    *holder
		want map[string]bool
	}
	var all []*subscriber
	for i := range 5 {
		x, h := connect(t, addr, fmt.Sprint(i))
		all = append(all, &subscriber{x, h, map[string]bool{}})
	}
	content := map[string]string{}
	for i := range steps {
		name := fmt.Sprint(rng.IntN(names))
		switch s := all[rng.IntN(len(all))]; rng.IntN(4) {
		case 0:
			s.want[name] = true
			s.c.Subscribe(codec.ClusterURL, name)
		case 1:
			delete(s.want, name)
			s.c.Unsubscribe(codec.ClusterURL, name)
		case 2:
			content[name] = fmt.Sprint(i)
			c.Update([]codec.Encoded{resource(codec.TypeCluster, name, content[name])}, nil, int64(i))
		case 3:
			delete(content, name)
			c.Update(nil, []xdsserver.Key{{Type: codec.TypeCluster, Name: name}}, int64(i))
		}
	}
	for i, s := range all {
		for _, name := range slices.Sorted(maps.Keys(s.want)) {
			if text, exists := content[name]; exists {
				s.h.awaitContent(t, cds+name, text)
			} else {
				s.h.await(t, fmt.Sprintf("%s is unknown to %d", name, i), func() bool { return s.h.gone[cds+name] })
			}
		}
	}
	if n := c.Stats().Nacks; n != 0 {
		t.Errorf("%d refusals", n)
	}
}

func TestDrainEndsAllStreamsButNotAtOnce(t *testing.T) {
	c := xdsserver.NewCache(slog.New(slog.DiscardHandler))
	c.SetSynced()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, server := grpc.NewServer(), xdsserver.NewServer(c)
	server.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	defer func() { g.Stop(); <-served }()
	const n = 40
	ended := make(chan time.Time, n)
	api := discovery.NewAggregatedDiscoveryServiceClient(dial(t, l.Addr().String()))
	for range n {
		stream, err := api.DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := stream.Recv()
			if !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
			ended <- time.Now()
		}()
	}
	server.Drain(t.Context(), 400*time.Millisecond)
	first, last := time.Time{}, time.Time{}
	for range n {
		at := <-ended
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if last.Sub(first) < 100*time.Millisecond {
		t.Errorf("all streams ended within %v", last.Sub(first))
	}
}

func TestWildcardLeavesOutWhatIsForThoseWhoAskByName(t *testing.T) {
	c := xdsserver.NewCache(slog.New(slog.DiscardHandler))
	destination := resource(codec.TypeListener, "orders.default", "a")
	destination.ByName = true
	c.Update([]codec.Encoded{destination, resource(codec.TypeListener, "socket", "b")}, nil, 1)
	c.SetSynced()
	addr, _ := serve(t, c, "127.0.0.1:0")
	api := discovery.NewAggregatedDiscoveryServiceClient(dial(t, addr))
	node := &core.Node{Id: "envoy"}

	delta, err := api.DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := delta.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: codec.ListenerURL}); err != nil {
		t.Fatal(err)
	}
	changes, err := delta.Recv()
	if err != nil || len(changes.GetResources()) != 1 || changes.GetResources()[0].GetName() != "socket" {
		t.Errorf("delta: %v %v", changes, err)
	}

	sotw, err := api.StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := sotw.Send(&discovery.DiscoveryRequest{Node: node, TypeUrl: codec.ListenerURL}); err != nil {
		t.Fatal(err)
	}
	state, err := sotw.Recv()
	if err != nil || len(state.GetResources()) != 1 {
		t.Errorf("state of the world: %v %v", state, err)
	}
}
