package rest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
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

// serve returns what makes requests of the API of a coordinator whose calls f answers.
func serve(t *testing.T, f caller) func(method, path, body string) (int, string) {
	t.Helper()
	s := memstore.New()
	c := coordinator.New(coordinator.Config{Store: s, Caller: f, Name: "one", Shards: 2, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	server := httptest.NewServer(rest.New(c))
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
		{"POST", "/v1/sagas", `"` + strings.Repeat("x", 300_000) + `"`, 413, "at most 262144 bytes"},
		{"GET", "/v1/sagas/none", "", 404, "no saga with this id"},
		{"GET", "/v1/sagas/none:wait", "", 404, "no saga with this id"},
		{"GET", "/v1/sagas/order-1:wait?timeout=1h", "", 400, "timeout"},
		{"GET", "/v1/sagas/order-1:retry", "", 404, "is not to be read"},
		{"GET", "/v1/sagas?state=gone", "", 400, "state is none of running, compensating, completed, compensated, parked"},
		{"GET", "/v1/sagas?label=a", "", 400, "label is not NAME=VALUE"},
		{"GET", "/v1/sagas?limit=0", "", 400, "limit is not 1 to 1000"},
		{"POST", "/v1/sagas/order-1:retry", "", 409, "it is completed"},
		{"POST", "/v1/sagas/order-1:undo", "", 409, `\"undo\" is none of retry, resume, skip, resolve, abort`},
		{"POST", "/v1/sagas/none:retry", "", 404, "no saga with this id"},
		{"POST", "/v1/sagas/order-1:retry", `{"who":"me"}`, 400, `unknown field \"who\"`},
	} {
		if status, body := ask(c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.40s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
}
