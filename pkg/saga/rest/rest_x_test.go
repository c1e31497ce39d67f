package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type caller func(r *coordinator.Request) saga.Outcome

func (f caller) Call(_ context.Context, r *coordinator.Request) saga.Outcome { return f(r) }

// serve returns what makes requests of the API of a coordinator whose calls f answers. Who asks for it learns the address.
func serve(t *testing.T, f caller, address ...*string) func(method, path, body string) (int, string) {
	t.Helper()
	s := memstore.New()
	c := coordinator.New(coordinator.Config{Store: s, Caller: f, Name: "one", Shards: 2, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	server := httptest.NewServer(rest.New(c))
	for _, a := range address {
		*a = server.Listener.Addr().String()
	}
	t.Cleanup(func() { server.Close(); cancel(); <-ended; _ = s.Close() })
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return resp.StatusCode, string(b)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		status, _ := ask("GET", "/v1/sagas/none", "")
		other, _ := ask("GET", "/v1/sagas/b", "")
		if status == 404 && other == 404 {
			return ask
		}
		if time.Now().After(deadline) {
			t.Fatal("the shards have no owner")
		}
	}
}

func definition(id string) string {
	return fmt.Sprintf(`{"id":%q,"labels":{"tenant":"t-%s"},"steps":[
 {"name":"reserve","action":{"service":"inventory","path":"/reserve","body":{"n":12345678901234567890}},"compensate":{"service":"inventory","path":"/release"},"retry":{"attempts":1}},
 {"name":"charge","action":{"service":"payments","path":"/charge"},"compensate":{"service":"payments","path":"/refund"},"retry":{"attempts":1}}]}`, id, id)
}

// shown is what of a saga the tests look at.
type shown struct {
	ID, State, Reason string
	Labels            map[string]string
	Started, Ended    time.Time
	Steps             []struct {
		Name, State, Text string
		Attempts          int
		Result            json.RawMessage
		Timeline          []struct {
			Call, Took, Answer string
			Attempt            int
			At                 time.Time
		}
	}
	Verbs []coordinator.Verb
}

func show(t *testing.T, body string) (s shown) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return s
}

func TestASagaIsStartedWaitedForAndRead(t *testing.T) {
	ask := serve(t, func(r *coordinator.Request) saga.Outcome {
		if r.Step == "reserve" && string(r.Call.Body) != `{"n":12345678901234567890}` {
			t.Errorf("body %s", r.Call.Body)
		}
		return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"id":1}`)}
	})
	for range 2 {
		status, body := ask("POST", "/v1/sagas", definition("order-1"))
		if s := show(t, body); status != 200 || s.ID != "order-1" || len(s.Steps) != 2 {
			t.Errorf("%d %s", status, body)
		}
	}
	status, body := ask("GET", "/v1/sagas/order-1:wait?timeout=20s", "")
	s := show(t, body)
	if status != 200 || s.State != "completed" || s.Steps[1].State != "done" || s.Steps[1].Attempts != 1 || string(s.Steps[0].Result) != `{"id":1}` || s.Labels["tenant"] != "t-order-1" || s.Ended.Before(s.Started) {
		t.Errorf("%d %s", status, body)
	}
	if status, again := ask("GET", "/v1/sagas/order-1", ""); status != 200 || again != body {
		t.Errorf("%d %s", status, again)
	}
}

func TestTheTimelineOfAStepSaysWhatWasCalledWhenAndWhatCameOfIt(t *testing.T) {
	ask := serve(t, func(r *coordinator.Request) saga.Outcome {
		switch {
		case r.Step == "charge":
			return saga.Outcome{Answer: saga.AnswerRefused}
		case r.Attempt == 1:
			return saga.Outcome{Answer: saga.AnswerUnknown}
		}
		return saga.Outcome{Answer: saga.AnswerDone}
	})
	ask("POST", "/v1/sagas", strings.ReplaceAll(definition("order-1"), `"attempts":1`, `"attempts":3,"backoff":"1ms"`))
	_, body := ask("GET", "/v1/sagas/order-1:wait?timeout=20s", "")
	var lines []string
	s := show(t, body)
	last := s.Started
	for _, a := range s.Steps[0].Timeline {
		took, err := time.ParseDuration(a.Took)
		if err != nil || a.At.Add(time.Millisecond).Before(last) || took < time.Millisecond {
			t.Error(a, "behind", last, err)
		}
		lines, last = append(lines, fmt.Sprint(a.Call, " ", a.Attempt, " ", a.Answer)), a.At
	}
	if got := strings.Join(lines, ", "); got != "action 1 unknown, action 2 done, compensate 1 unknown, compensate 2 done" {
		t.Error(got, body)
	}
	if got := s.Steps[1].Timeline; len(got) != 1 || got[0].Answer != "refused" || got[0].At.Before(s.Steps[0].Timeline[1].At) {
		t.Error(got, body)
	}
}

func TestAParkedSagaIsListedAndResolved(t *testing.T) {
	ask := serve(t, func(r *coordinator.Request) saga.Outcome {
		if r.Step == "charge" || r.Undo {
			return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
		}
		return saga.Outcome{Answer: saga.AnswerDone}
	})
	for i := range 5 {
		if status, body := ask("POST", "/v1/sagas", definition(fmt.Sprint("order-", i))); status != 200 {
			t.Fatal(body)
		}
	}
	for i := range 5 {
		if _, body := ask("GET", fmt.Sprintf("/v1/sagas/order-%d:wait", i), ""); show(t, body).State != "parked" || show(t, body).Reason != "step charge could not be undone: 500" {
			t.Error(body)
		}
	}
	var ids []string
	for after := ""; ; {
		status, body := ask("GET", "/v1/sagas?state=parked&limit=2&after="+after, "")
		var page struct {
			Sagas []struct{ ID, State string }
			After string
		}
		if err := json.Unmarshal([]byte(body), &page); status != 200 || err != nil {
			t.Fatal(status, body)
		}
		for _, s := range page.Sagas {
			ids = append(ids, s.ID)
		}
		if after = page.After; after == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "order-0 order-1 order-2 order-3 order-4" {
		t.Error(got)
	}
	if _, body := ask("GET", "/v1/sagas?label=tenant%3Dt-order-3", ""); strings.Count(body, `"id"`) != 1 || !strings.Contains(body, "order-3") {
		t.Error(body)
	}
	if _, body := ask("GET", "/v1/sagas?state=completed", ""); body != "{\"sagas\":[]}\n" {
		t.Error(body)
	}
	for _, c := range []struct{ verb, body, want string }{
		{"resolve", `{"step":"charge","as":"compensated","by":"ada"}`, "parked"},
		{"resolve", `{"step":"reserve","as":"compensated","by":"ada","note":"by hand"}`, "parked"},
		{"resume", "", "compensated"},
	} {
		status, body := ask("POST", "/v1/sagas/order-2:"+c.verb, c.body)
		if s := show(t, body); status != 200 || s.State != c.want {
			t.Errorf("%s: %d %s", c.verb, status, body)
		}
	}
	if _, body := ask("GET", "/v1/sagas/order-2", ""); len(show(t, body).Verbs) != 3 || show(t, body).Verbs[1].Note != "by hand" {
		t.Error(body)
	}
}

func TestWhatIsWrongWithARequestIsSaid(t *testing.T) {
	ask := serve(t, func(*coordinator.Request) saga.Outcome { return saga.Outcome{Answer: saga.AnswerDone} })
	ask("POST", "/v1/sagas", definition("order-1"))
	ask("GET", "/v1/sagas/order-1:wait", "")
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/sagas", "{", 400, "the definition cannot be read"},
		{"POST", "/v1/sagas", `{"id":"a","step":[]}`, 400, `unknown field \"step\"`},
		{"POST", "/v1/sagas", `{"id":"","steps":[]}`, 400, "id: required\\nsteps: a saga has at least one step"},
		{"POST", "/v1/sagas", `{"id":"","steps":[]}`, 400, `"faults":[{"path":"id","text":"required"},{"path":"steps","text":"a saga has at least one step"}]`},
		{"POST", "/v1/sagas", strings.Replace(definition("order-1"), "/charge", "/other", 1), 409, "other content"},
		{"POST", "/v1/sagas", `"` + strings.Repeat("x", 300_000) + `"`, 413, "larger than the 262144 bytes"},
		{"GET", "/v1/sagas/none", "", 404, "no saga with this id"},
		{"GET", "/v1/sagas/none:wait", "", 404, "no saga with this id"},
		{"GET", "/v1/sagas/order-1:wait?timeout=1h", "", 400, "timeout"},
		{"GET", "/v1/sagas/order-1:retry", "", 405, "it takes POST"},
		{"POST", "/v1/sagas/order-1:wait", "", 405, "it takes GET, HEAD"},
		{"POST", "/v1/sagas/order-1", "{}", 405, "it takes GET, HEAD"},
		{"DELETE", "/v1/sagas", "", 405, "it takes GET, HEAD, POST"},
		{"GET", "/v1/sagas/order-1/steps", "", 404, "nothing at this path"},
		{"GET", "/v1/sagas/order%2F1", "", 404, `\"order/1\" is none`},
		{"GET", "/v1/sagas/a%00:wait", "", 404, "is none"},
		{"GET", "/v1/sagas/%2e%2e", "", 404, `\"..\" is none`},
		{"POST", "/v1/sagas/" + strings.Repeat("a", 129) + ":retry", "", 404, "is none"},
		{"GET", "/v1/sagas/" + strings.Repeat("a", 5000) + ":wait", "", 404, "is none"},
		{"GET", "/v1/sagas/" + strings.Repeat("a", 128), "", 404, "no saga with this id"},
		{"GET", "/v1/sagas?labels=a%3Db", "", 400, `unknown parameter \"labels\": there are state, label, limit, after`},
		{"GET", "/v1/sagas?state=parked&state=running", "", 400, `\"state\" is given 2 times`},
		{"GET", "/v1/sagas?state=%zz", "", 400, "the query cannot be read"},
		{"GET", "/v1/sagas?label=", "", 400, "label is not NAME=VALUE"},
		{"GET", "/v1/sagas?label=%3Dx", "", 400, "label is not NAME=VALUE"},
		{"GET", "/v1/sagas?limit=99999999999999999999", "", 400, "limit is not 1 to 1000"},
		{"GET", "/v1/sagas/order-1?timeout=1s", "", 400, "there are none here"},
		{"GET", "/v1/sagas/order-1:wait?timeout=-1s", "", 400, "timeout"},
		{"POST", "/v1/sagas?id=a", definition("a"), 400, "there are none here"},
		{"POST", "/v1/sagas", `{"id":"a","id":"b"}`, 400, "given twice"},
		{"POST", "/v1/sagas", "{\"id\":\"a\xff\"}", 400, "no UTF-8"},
		{"POST", "/v1/sagas", "null", 400, "id: required"},
		{"GET", "/v1/sagas?state=gone", "", 400, "state is none of running, compensating, completed, compensated, parked"},
		{"GET", "/v1/sagas?label=a", "", 400, "label is not NAME=VALUE"},
		{"GET", "/v1/sagas?state=", "", 400, "state is empty"},
		{"GET", "/v1/sagas?limit=", "", 400, "limit is not 1 to 1000"},
		{"GET", "/v1/sagas/order-1:wait?timeout=", "", 400, "timeout"},
		{"GET", "/v1/sagas?limit=0", "", 400, "limit is not 1 to 1000"},
		{"POST", "/v1/sagas/order-1:retry", "", 409, "it is completed"},
		{"POST", "/v1/sagas/order-1:undo", "", 404, `\"undo\" is none of`},
		{"POST", "/v1/sagas/order-1:", "", 404, `\"\" is none of`},
		{"POST", "/v1/sagas/order-1:retry:abort", "", 404, `is none of`},
		{"POST", "/v1/sagas/order-1:retry", "{} {}", 400, "something behind"},
		{"POST", "/v1/sagas/order-1:retry", `{"verb":"abort"}`, 400, `unknown field \"verb\"`},
		{"POST", "/v1/sagas/order-1:retry", `{"step":"charge"}`, 400, "step is of skip and resolve"},
		{"POST", "/v1/sagas/order-1:skip", `{}`, 400, "step is required"},
		{"POST", "/v1/sagas/order-1:skip", `{"step":"charge","as":"done"}`, 400, "as is of resolve"},
		{"POST", "/v1/sagas/order-1:resolve", `{"step":"charge","as":"running"}`, 400, "say done, refused or compensated"},
		{"POST", "/v1/sagas/order-1:abort", `{"note":"` + strings.Repeat("x", 1025) + `"}`, 400, "note 1024"},
		{"POST", "/v1/sagas/order-1:abort", `{"note":"` + strings.Repeat("x", 20_000) + `"}`, 413, "larger than the 16384 bytes"},
		{"POST", "/v1/sagas/none:retry", "", 404, "no saga with this id"},
		{"POST", "/v1/sagas/order-1:retry", `{"who":"me"}`, 400, `unknown field \"who\"`},
	} {
		if status, body := ask(c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.40s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
}

func TestABodyThatIsBrokenIsNotTakenForNothing(t *testing.T) {
	address := ""
	ask := serve(t, func(*coordinator.Request) saga.Outcome { return saga.Outcome{Answer: saga.AnswerDone} }, &address)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "POST /v1/sagas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\nzz\r\n", len(definition("a")), definition("a")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if status, _ := ask("GET", "/v1/sagas/a", ""); resp.StatusCode != 400 || status != 404 {
		t.Error(resp.Status, status)
	}
}

// The longest names there can be fit the keys, the batches and the pages.
func TestSagasWithTheLongestNamesAreStartedUndoneAndListed(t *testing.T) {
	ask := serve(t, func(r *coordinator.Request) saga.Outcome {
		if r.Undo || !strings.HasSuffix(r.Step, "31") {
			return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"id":1}`)}
		}
		return saga.Outcome{Answer: saga.AnswerRefused}
	})
	long := func(n int) string { return fmt.Sprintf("%s%03d", strings.Repeat("x", saga.MaxNameBytes-3), n) }
	const sagas = 25
	for n := range sagas {
		d := saga.Definition{ID: long(n), Labels: map[string]string{}}
		for i := range saga.MaxLabels {
			d.Labels[long(i)] = strings.Repeat("ü", saga.MaxNameBytes/2)
		}
		for i := range saga.MaxSteps {
			call := saga.Call{Service: "a", Path: "/", Body: json.RawMessage(`"${saga.id}"`)}
			if i > 0 {
				call.Body = json.RawMessage(`"${steps.` + long(i-1) + `.result.id}"`)
			}
			d.Steps = append(d.Steps, saga.Step{Name: long(i), Action: call, Compensate: &call})
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if status, body := ask("POST", "/v1/sagas", string(b)); status != 200 {
			t.Fatal(status, body)
		}
	}
	for n := range sagas {
		if _, body := ask("GET", "/v1/sagas/"+long(n)+":wait?timeout=1m", ""); show(t, body).State != "compensated" {
			t.Fatal(body)
		}
	}
	status, body := ask("GET", "/v1/sagas?limit=1000&after="+long(9), "")
	if status != 200 || strings.Count(body, `"state":"compensated"`) != sagas-10 {
		t.Errorf("%d %.200s", status, body)
	}
}

// waiter is of sagas for which everybody waits.
type waiter struct {
	coordinator.Sagas
	arrived chan struct{}
}

func (w waiter) Wait(ctx context.Context, _ string) (*coordinator.View, error) {
	w.arrived <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestWhoWaitsLeavesConnectionsForOthers(t *testing.T) {
	sagas := waiter{arrived: make(chan struct{})}
	h := rest.New(sagas)
	ctx, cancel := context.WithCancel(t.Context())
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/v1/sagas/s:wait?timeout=5m", http.NoBody))
		return w
	}
	var asking sync.WaitGroup
	for range 6000 {
		asking.Go(func() { ask() })
		<-sagas.arrived
	}
	if w := ask(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d %s", w.Code, w.Body)
	}
	cancel()
	asking.Wait()
	ctx, cancel = context.WithCancel(t.Context())
	asking.Go(func() { ask() })
	<-sagas.arrived // it waits
	cancel()
	asking.Wait()
}
