package controlplane_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// sharedEtcd is an etcd that control planes share, by a port.
func sharedEtcd(t *testing.T) string {
	t.Helper()
	address := freeAddress(t)
	server, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: t.TempDir(), Listen: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	return address
}

// sagaPeer is one of the control planes that share the etcd of sagas.
type sagaPeer struct {
	t     *testing.T
	at    controlplane.Addresses
	sagas sagav1.SagasClient
	stop  func()
}

func startPeer(t *testing.T, etcd, egress string) *sagaPeer {
	t.Helper()
	config := loopbackConfig(t)
	config.SagaEgress, config.SagaEtcdEndpoints = egress, []string{etcd}
	p := &sagaPeer{t: t}
	p.at, p.stop = runControlPlaneAt(t, config)
	p.sagas = sagav1.NewSagasClient(dialAPI(t, p.at.GRPC.String()))
	return p
}

// rest makes a request, again while a shard has no owner.
func (p *sagaPeer) rest(method, path, body string) (int, string) {
	p.t.Helper()
	for {
		status, answer, header := request(p.t, method, "http://"+p.at.HTTP.String()+path, body)
		if status != http.StatusServiceUnavailable {
			return status, answer
		}
		if header.Get("Retry-After") == "" {
			p.t.Fatal("503 without Retry-After:", answer)
		}
	}
}

// started starts a saga over REST.
func (p *sagaPeer) started(id string, paths ...string) {
	p.t.Helper()
	if status, body := p.rest("POST", "/v1/sagas", sagaOf(id, paths...)); status != http.StatusOK {
		p.t.Fatal(status, body)
	}
}

// listed returns the ids of all sagas, by pages of three.
func (p *sagaPeer) listed() (ids []string) {
	p.t.Helper()
	for after := ""; ; {
		status, body := p.rest("GET", "/v1/sagas?limit=3&after="+after, "")
		var page struct {
			Sagas []struct{ ID string }
			After string
		}
		if err := json.Unmarshal([]byte(body), &page); status != http.StatusOK || err != nil {
			p.t.Fatal(status, body, err)
		}
		for _, s := range page.Sagas {
			ids = append(ids, s.ID)
		}
		if after = page.After; after == "" {
			return ids
		}
	}
}

func (p *sagaPeer) shards() int { return shardsOf(p.at) }

// shardsOf returns how many shards a control plane owns, none if it does not coordinate sagas yet.
func shardsOf(a controlplane.Addresses) int {
	_, behind, _ := strings.Cut(ask("http://"+a.HTTP.String()+"/metrics"), "\nfairlead_saga_shards ")
	text, _, _ := strings.Cut(behind, "\n")
	n, _ := strconv.Atoi(text) // 0: there is none
	return n
}

func TestAnyControlPlaneThatSharesTheEtcdOfSagasAnswersForAll(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	etcd := sharedEtcd(t)
	one := startPeer(t, etcd, egress.Listener.Addr().String())
	eventually(t, "all shards are owned", func() bool { return one.shards() == 8 })
	two, three := startPeer(t, etcd, egress.Listener.Addr().String()), startPeer(t, etcd, egress.Listener.Addr().String())
	all := []*sagaPeer{one, two, three}
	var want []string
	for i := range 12 {
		id := fmt.Sprintf("order-%02d", i)
		want = append(want, id)
		all[i%3].started(id, "/a", "/b")
		if _, body := all[(i+1)%3].rest("GET", "/v1/sagas/"+id+":wait?timeout=20s", ""); stateOf(t, body) != "completed" {
			t.Error(body)
		}
	}
	if n := strings.Count(called.String(), "/s0/action"); n != 12 {
		t.Errorf("12 sagas called their first steps %d times", n)
	}
	same := func(peers ...*sagaPeer) {
		t.Helper()
		for _, path := range []string{"/v1/sagas/order-01", "/v1/sagas/none", "/v1/sagas/none:wait", "/v1/sagas?limit=5", "/v1/sagas?state=parked"} {
			status, body := peers[0].rest("GET", path, "")
			for _, p := range peers[1:] {
				if other, said := p.rest("GET", path, ""); other != status || said != body {
					t.Errorf("%s: %d %s, of another %d %s", path, other, said, status, body)
				}
			}
		}
		for _, p := range peers {
			if got := p.listed(); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
	}
	same(all...)

	// What a person decides, over gRPC and REST, at those that do not own it.
	two.started("parked", "/break")
	want = append(want, "parked")
	held := strings.Replace(sagaOf("held", "/hold"), `"steps"`, `"labels":{"tenant":"a"},"steps"`, 1)
	if status, body := three.rest("POST", "/v1/sagas", held); status != http.StatusOK {
		t.Fatal(status, body)
	}
	want = append(want, "held")
	slices.Sort(want)
	if s, err := three.sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "parked", By: "ada"}); err != nil || s.GetState() != sagav1.State_COMPENSATING || len(s.GetVerbs()) != 1 {
		t.Error(s, err)
	}
	if status, body := two.rest("POST", "/v1/sagas/held:skip", `{"step":"s0"}`); status != http.StatusConflict || !strings.Contains(body, "is under way") {
		t.Error(status, body)
	}

	// Who waits at another goes on to, when the owner ends.
	var waiting sync.WaitGroup
	for _, p := range []*sagaPeer{two, three} {
		waiting.Go(func() {
			if status, body := p.rest("GET", "/v1/sagas/held:wait?timeout=60s", ""); status != http.StatusOK || stateOf(t, body) != "completed" {
				t.Error(status, body)
			}
		})
		waiting.Go(func() {
			s, err := p.sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: "held", Timeout: durationpb.New(time.Minute)})
			if err != nil || s.GetState() != sagav1.State_COMPLETED || s.GetLabels()["tenant"] != "a" {
				t.Error(s, err)
			}
		})
	}
	one.stop()
	eventually(t, "the others own the shards", func() bool { return two.shards()+three.shards() == 8 })
	close(called.hold)
	waiting.Wait()
	same(two, three)
	three.started("later", "/a")
	if s, err := two.sagas.Get(t.Context(), &sagav1.GetRequest{Id: "later"}); err != nil || s.GetId() != "later" {
		t.Error(s, err)
	}
}

// startOwner starts a control plane in a process of its own, that owns all shards until it is killed.
func startOwner(t *testing.T, etcd, egress string) (httpAddr string, kill func()) {
	t.Helper()
	httpAddr = freeAddress(t)
	owner := exec.Command(os.Args[0], "--data-dir", t.TempDir(), "--grpc-addr", freeAddress(t), "--http-addr", httpAddr,
		"--saga-egress", egress, "--saga-etcd-endpoints", etcd)
	owner.Env = append(os.Environ(), commandLine+"=1")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = owner.Process.Kill()
		_ = owner.Wait() // killed is what it shall be
	})
	t.Cleanup(kill)
	eventually(t, "all shards are owned", func() bool {
		return strings.Contains(ask("http://"+httpAddr+"/metrics"), "fairlead_saga_shards 8\n")
	})
	return httpAddr, kill
}

func TestWhoWaitsHasAnAnswerThoughTheOwnerIsKilled(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	etcd := sharedEtcd(t)
	_, kill := startOwner(t, etcd, egress.Listener.Addr().String())
	other := startPeer(t, etcd, egress.Listener.Addr().String())
	other.started("held", "/hold")
	eventually(t, "its step is called", func() bool { return strings.Contains(called.String(), "held/s0/action") })
	waited := make(chan string, 1)
	go func() {
		_, body := other.rest("GET", "/v1/sagas/held:wait?timeout=60s", "")
		waited <- body
	}()
	kill()
	// Until its lease has ended, nobody can own the shards, and that is said; what is durable is read all the same.
	base := "http://" + other.at.HTTP.String() + "/v1/sagas"
	for _, c := range []struct{ method, path, body string }{{"POST", "", sagaOf("a", "/a")}, {"GET", "", ""}, {"POST", "/held:retry", ""}} {
		if status, body, header := request(t, c.method, base+c.path, c.body); status != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || !strings.Contains(body, "is not reached") {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	if status, body, _ := request(t, "GET", base+"/held", ""); status != http.StatusOK || stateOf(t, body) != "running" {
		t.Error(status, body)
	}
	close(called.hold)
	if body := <-waited; stateOf(t, body) != "completed" || !strings.Contains(body, `"attempts":2`) {
		t.Error(body)
	}
	other.started("a", "/a")
}

func TestTheTraceOfAStartGoesWithItToTheOwner(t *testing.T) {
	called := &steps{}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	etcd := sharedEtcd(t)
	one := startPeer(t, etcd, egress.Listener.Addr().String())
	eventually(t, "all shards are owned", func() bool { return one.shards() == 8 })
	two := startPeer(t, etcd, egress.Listener.Addr().String())
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent := "00-" + trace + "-00f067aa0ba902b7-01"
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+two.at.HTTP.String()+"/v1/sagas", strings.NewReader(sagaOf("rest", "/a")))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("traceparent", parent)
	a, err := http.DefaultClient.Do(q)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatal(a, err)
	}
	_ = a.Body.Close()
	call := func(service, path string) *sagav1.Call { return &sagav1.Call{Service: service, Path: path} }
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	if _, err := two.sagas.Start(ctx, &sagav1.StartRequest{Saga: &sagav1.Definition{Id: "grpc", Steps: []*sagav1.StepDefinition{{Name: "a", Action: call("orders.shop", "/a")}}}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"rest", "grpc"} {
		two.rest("GET", "/v1/sagas/"+id+":wait?timeout=20s", "")
	}
	told := called.traces()
	if len(told) != 2 {
		t.Errorf("%q", told)
	}
	for _, s := range told {
		if !strings.HasPrefix(s, "00-"+trace+"-") {
			t.Errorf("a participant was told %q", s)
		}
	}
}

func TestTheEtcdOfSagasStartsWithTheFirstAlsoOverGRPC(t *testing.T) {
	called := &steps{}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	at, _ := runControlPlaneAt(t, config)
	sagas := sagav1.NewSagasClient(dialAPI(t, at.GRPC.String()))
	d := &sagav1.Definition{Id: "order-1", Steps: []*sagav1.StepDefinition{{Name: "a", Action: &sagav1.Call{Service: "orders.shop", Path: "/a"}}}}
	if s, err := sagas.List(t.Context(), &sagav1.ListRequest{}); err != nil || len(s.GetSagas()) != 0 {
		t.Error(s, err)
	}
	for _, err := range []error{
		second(sagas.Get(t.Context(), &sagav1.GetRequest{Id: "order-1"})), second(sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: "order-1"})),
		second(sagas.Abort(t.Context(), &sagav1.AbortRequest{Id: "order-1"})),
	} {
		if status.Code(err) != codes.NotFound {
			t.Error(err)
		}
	}
	if err := second(sagas.Start(t.Context(), &sagav1.StartRequest{Saga: &sagav1.Definition{Id: "order-1"}})); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(config.DataDir, "sagas")); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was started for none:", err)
	}
	eventually(t, "it is started", func() bool {
		return second(sagas.Start(t.Context(), &sagav1.StartRequest{Saga: d})) == nil
	})
	if s, err := sagas.Wait(t.Context(), &sagav1.WaitRequest{Id: "order-1"}); err != nil || s.GetState() != sagav1.State_COMPLETED {
		t.Error(s, err)
	}
}

// second returns the error of a call.
func second[T any](_ T, err error) error { return err }

func TestWithoutAnEtcdOfSagasReplicasSayOverGRPCWhatIsMissing(t *testing.T) {
	config := loopbackConfig(t)
	config.Etcd.Endpoints = []string{sharedEtcd(t)}
	at, _ := runControlPlaneAt(t, config)
	_, err := sagav1.NewSagasClient(dialAPI(t, at.GRPC.String())).Get(t.Context(), &sagav1.GetRequest{Id: "order-1"})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "--saga-etcd-endpoints") {
		t.Error(err)
	}
}

func TestWhereOtherControlPlanesReachThisOneIsWrittenWhereTheyReadIt(t *testing.T) {
	etcd := sharedEtcd(t)
	config := loopbackConfig(t)
	config.SagaEgress, config.SagaEtcdEndpoints, config.SagaPeerAddr = "127.0.0.1:1", []string{etcd}, "cp-1.mesh.example:15010"
	at, _ := runControlPlaneAt(t, config)
	eventually(t, "all shards are owned", func() bool { return shardsOf(at) == 8 })
	found, err := etcdctl(t, controlplane.Addresses{Etcd: etcd}).Get(t.Context(), "/fairlead/v1/sagas/shards/00/owner")
	if err != nil || len(found.Kvs) != 1 || !strings.Contains(string(found.Kvs[0].Value), `"addr":"cp-1.mesh.example:15010"`) {
		t.Error(found, err)
	}
}

// request makes a request of an API.
func request(t *testing.T, method, url, body string) (status int, answer string, header http.Header) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Close = true
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}
