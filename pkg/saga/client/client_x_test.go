package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/client"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/rest"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type caller func(r *coordinator.Request) saga.Outcome

func (f caller) Call(_ context.Context, r *coordinator.Request) saga.Outcome { return f(r) }

func works(*coordinator.Request) saga.Outcome {
	return saga.Outcome{Answer: saga.AnswerDone, Result: json.RawMessage(`{"id":12345678901234567890.10}`)}
}

// undoesNothing answers nothing for sure of charge, and of what undoes.
func undoesNothing(r *coordinator.Request) saga.Outcome {
	if r.Step == "charge" || r.Undo {
		return saga.Outcome{Answer: saga.AnswerUnknown, Text: "500"}
	}
	return works(r)
}

// plane is a control plane, as far as sagas go.
type plane struct {
	address string
	stop    func()
}

// serve serves the API of a real coordinator at an address; empty: at any. in between is what stands before it, if anything does.
func serve(t *testing.T, s store.Store, address string, f caller, between func(http.Handler) http.Handler) *plane {
	t.Helper()
	c := coordinator.New(coordinator.Config{Store: s, Caller: f, Name: fmt.Sprint(time.Now().UnixNano()), Shards: 2, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run(ctx) }()
	var h http.Handler = rest.New(c)
	if between != nil {
		h = between(h)
	}
	server := httptest.NewUnstartedServer(h)
	if address != "" {
		_ = server.Listener.Close()
		var err error
		if server.Listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	server.Start()
	p := &plane{server.Listener.Addr().String(), func() { server.CloseClientConnections(); cancel(); server.Close(); <-ended }}
	t.Cleanup(p.stop)
	return p
}

func memory(t *testing.T) store.Store {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// answers serves what f answers, in place of a control plane.
func answers(t *testing.T, f http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func dial(t *testing.T, c client.Config) *client.Client {
	t.Helper()
	sagas, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sagas.Close)
	return sagas
}

func at(addresses ...string) client.Config { return client.Config{Addresses: addresses} }

// within returns a context in which nothing hangs for ever.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// order is a saga of two steps.
func order(id string) *saga.Definition {
	step := func(name string) saga.Step {
		return saga.Step{
			Name: name, Retry: saga.Retry{Attempts: 1},
			Action:     saga.Call{Service: "inventory", Path: "/" + name},
			Compensate: &saga.Call{Service: "inventory", Path: "/undo-" + name},
		}
	}
	return &saga.Definition{ID: id, Labels: map[string]string{"tenant": "t-" + id}, Steps: []saga.Step{step("reserve"), step("charge")}}
}

func TestASagaIsStartedWaitedForAndReadDigitByDigit(t *testing.T) {
	sagas, ctx := dial(t, at("http://"+serve(t, memory(t), "", works, nil).address+"/")), within(t)
	for range 2 { // the same again is the same saga
		if s, err := sagas.Start(ctx, order("order-1")); err != nil || s.ID != "order-1" || len(s.Steps) != 2 {
			t.Fatal(s, err)
		}
	}
	s, err := sagas.Wait(ctx, "order-1")
	if err != nil || s.State != saga.Completed || s.Ended.Before(s.Started) || s.Labels["tenant"] != "t-order-1" {
		t.Fatal(s, err)
	}
	if got := s.Step("charge"); got.State != saga.StepDone || got.Attempts != 1 || string(got.Result) != `{"id":12345678901234567890.10}` || s.Step("none") != nil {
		t.Error(got)
	}
	again, err := sagas.Get(ctx, "order-1")
	if err != nil || !bytes.Equal(again.Raw, s.Raw) || !bytes.Contains(s.Raw, []byte(`12345678901234567890.10`)) {
		t.Error(again, err)
	}
	if s, err := sagas.StartJSON(ctx, []byte(`{"id":"order-2","steps":[{"name":"a","action":{"service":"b","path":"/c"}}]}`)); err != nil || s.ID != "order-2" {
		t.Error(s, err)
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	sagas, ctx := dial(t, at(serve(t, memory(t), "", works, nil).address)), within(t)
	if _, err := sagas.Start(ctx, order("order-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := sagas.Wait(ctx, "order-1"); err != nil {
		t.Fatal(err)
	}
	other := order("order-1")
	other.Steps[1].Action.Path = "/other"
	wrong := order("")
	wrong.Steps[0].Action.Path = "no slash"
	large := order("large")
	large.Steps[0].Action.Body = json.RawMessage(`"` + strings.Repeat("x", saga.MaxDefinitionBytes) + `"`)
	broken := order("broken")
	broken.Steps[0].Action.Body = json.RawMessage(`{`)
	for what, c := range map[string]struct {
		do   func() (*client.Saga, error)
		want error
	}{
		"other content":      {func() (*client.Saga, error) { return sagas.Start(ctx, other) }, client.ErrConflict},
		"no definition":      {func() (*client.Saga, error) { return sagas.StartJSON(ctx, []byte("{")) }, client.ErrInvalid},
		"body that is none":  {func() (*client.Saga, error) { return sagas.Start(ctx, broken) }, client.ErrInvalid},
		"large definition":   {func() (*client.Saga, error) { return sagas.Start(ctx, large) }, client.ErrInvalid},
		"no saga":            {func() (*client.Saga, error) { return sagas.Get(ctx, "none") }, client.ErrNotFound},
		"wait for none":      {func() (*client.Saga, error) { return sagas.Wait(ctx, "none") }, client.ErrNotFound},
		"retry of none":      {func() (*client.Saga, error) { return sagas.Retry(ctx, "none", client.Note{}) }, client.ErrNotFound},
		"abort what ended":   {func() (*client.Saga, error) { return sagas.Abort(ctx, "order-1", client.Note{}) }, client.ErrVerb},
		"id of another verb": {func() (*client.Saga, error) { return sagas.Get(ctx, "order-1:wait") }, client.ErrInvalid},
		"id of another path": {func() (*client.Saga, error) { return sagas.Resume(ctx, "../x", client.Note{}) }, client.ErrInvalid},
		"empty id":           {func() (*client.Saga, error) { return sagas.Wait(ctx, "") }, client.ErrInvalid},
	} {
		s, err := c.do()
		if s != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		for _, no := range []error{client.ErrInvalid, client.ErrConflict, client.ErrNotFound, client.ErrVerb, client.ErrFull, client.ErrUnavailable, client.ErrNoSagas} {
			if errors.Is(err, no) && !errors.Is(c.want, no) {
				t.Errorf("%s is also %v: %v", what, no, err)
			}
		}
	}
	_, err := sagas.Start(ctx, wrong)
	var faults saga.Faults
	if !errors.As(err, &faults) || !errors.Is(err, client.ErrInvalid) || len(faults) != 2 || faults[0] != (saga.Fault{Path: "id", Text: "required"}) || faults[1].Path != "steps[0].action.path" {
		t.Errorf("%v", err)
	}
	for _, err := range sagas.List(ctx, client.Query{State: "gone"}) {
		if !errors.Is(err, client.ErrInvalid) {
			t.Error(err)
		}
	}
	for _, addresses := range [][]string{nil, {""}, {"ftp://x"}, {"http://"}, {"x:1?y"}, {"\x00"}} {
		if _, err := client.New(at(addresses...)); err == nil || !strings.Contains(err.Error(), "addresses: ") {
			t.Errorf("%q: %v", addresses, err)
		}
	}
}

// cut returns what lets so many requests be served, and cuts their connections before the answer; it counts all.
func cut(n int32, asked *atomic.Int32) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) <= n {
				h.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			h.ServeHTTP(w, r)
		})
	}
}

func TestAStartWhoseAnswerWasLostIsRepeatedAndIsOneSaga(t *testing.T) {
	var asked, calls atomic.Int32
	f := func(r *coordinator.Request) saga.Outcome { calls.Add(1); return works(r) }
	sagas, ctx := dial(t, at(serve(t, memory(t), "", f, cut(2, &asked)).address)), within(t)
	if _, err := sagas.Start(ctx, order("order-1")); err != nil || asked.Load() != 3 {
		t.Fatal(err, asked.Load())
	}
	if s, err := sagas.Wait(ctx, "order-1"); err != nil || s.State != saga.Completed || calls.Load() != 2 {
		t.Error(s, err, calls.Load())
	}
}

func TestAVerbWhoseAnswerWasLostIsNotRepeated(t *testing.T) {
	var asked atomic.Int32
	s := memory(t)
	first := serve(t, s, "", undoesNothing, nil)
	sagas, ctx := dial(t, at(first.address)), within(t)
	if _, err := sagas.Start(ctx, order("order-1")); err != nil {
		t.Fatal(err)
	}
	if s, err := sagas.Wait(ctx, "order-1"); err != nil || s.State != saga.Parked || s.Reason != "step charge could not be undone: 500" {
		t.Fatal(s, err)
	}
	first.stop()
	second := serve(t, s, "", works, cut(1, &asked))
	sagas = dial(t, at(first.address, second.address)) // the first cannot be connected to, and so surely does nothing
	if _, err := sagas.Resolve(ctx, "order-1", "charge", saga.StepCompensated, client.Note{By: "ada", Note: "by hand"}); !errors.Is(err, client.ErrUnavailable) || asked.Load() != 1 {
		t.Fatal(err, asked.Load())
	}
	got, err := sagas.Get(ctx, "order-1")
	if err != nil || len(got.Verbs) != 1 || got.Verbs[0].Note != "by hand" || got.Verbs[0].By != "ada" || got.Step("charge").State != saga.StepCompensated {
		t.Fatal(got, err)
	}
	for _, verb := range []func() (*client.Saga, error){
		func() (*client.Saga, error) { return sagas.Skip(ctx, "order-1", "reserve", client.Note{}) },
		func() (*client.Saga, error) { return sagas.Resume(ctx, "order-1", client.Note{}) },
	} {
		if s, err := verb(); err != nil || s.ID != "order-1" {
			t.Fatal(s, err)
		}
	}
	if s, err := sagas.Wait(ctx, "order-1"); err != nil || s.State != saga.Compensated || len(s.Verbs) != 3 {
		t.Error(s, err)
	}
}

func TestAWaitOutlivesARestart(t *testing.T) {
	s, begun, release := memory(t), make(chan struct{}, 100), make(chan struct{})
	f := func(r *coordinator.Request) saga.Outcome {
		begun <- struct{}{}
		select {
		case <-release:
			return works(r)
		case <-time.After(10 * time.Millisecond):
			return saga.Outcome{Answer: saga.AnswerPending}
		}
	}
	var waits atomic.Int32
	waiting := make(chan struct{}, 100)
	watched := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			waits.Add(1)
			waiting <- struct{}{}
			h.ServeHTTP(w, r)
		})
	}
	first := serve(t, s, "", f, watched)
	sagas, ctx := dial(t, at(first.address)), within(t)
	if _, err := sagas.Start(ctx, order("order-1")); err != nil {
		t.Fatal(err)
	}
	<-waiting
	<-begun
	ended := make(chan struct{})
	var got *client.Saga
	var err error
	go func() { defer close(ended); got, err = sagas.Wait(ctx, "order-1") }()
	<-waiting
	first.stop()
	serve(t, s, first.address, f, watched)
	<-waiting
	close(release)
	<-ended
	if err != nil || got.State != saga.Completed {
		t.Error(got, err)
	}
}

func TestOfSeveralControlPlanesThatAreThereWhoAnswersIsAsked(t *testing.T) {
	s := memory(t)
	one := serve(t, s, "", works, nil)
	for _, id := range []string{"none", "b"} { // of one shard, and of the other
		if _, err := dial(t, at(one.address)).Get(within(t), id); !errors.Is(err, client.ErrNotFound) {
			t.Fatal(err)
		}
	}
	two := serve(t, s, "", works, nil) // owns nothing as long as one does
	var silent, foreign atomic.Int32
	frozen := answers(t, func(_ http.ResponseWriter, r *http.Request) {
		silent.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // else nobody here sees that the client is gone
		<-r.Context().Done()
	})
	none := answers(t, func(w http.ResponseWriter, r *http.Request) { foreign.Add(1); http.NotFound(w, r) })
	sagas, ctx := dial(t, client.Config{Addresses: []string{frozen, none, two.address, one.address}, Timeout: 3 * time.Second}), within(t)
	for i := range 3 {
		if _, err := sagas.Start(ctx, order(fmt.Sprint("order-", i))); err != nil {
			t.Fatal(err)
		}
	}
	if silent.Load() > 1 || foreign.Load() > 1 {
		t.Errorf("%d and %d requests to who does not answer", silent.Load(), foreign.Load())
	}
	one.stop()
	for i := range 3 {
		if s, err := sagas.Wait(ctx, fmt.Sprint("order-", i)); err != nil || s.State != saga.Completed {
			t.Error(s, err)
		}
	}
	if _, err := sagas.Abort(ctx, "order-1", client.Note{}); !errors.Is(err, client.ErrVerb) {
		t.Error(err)
	}
}

// transport answers requests without a network.
type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, retryAfter, body string) (*http.Response, error) {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	if retryAfter != "" {
		r.Header.Set("Retry-After", retryAfter)
	}
	return r, nil
}

func TestAStartIsRepeatedWhenTheControlPlaneSaysAndUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		var failures []int
		script := []struct {
			status            int
			retryAfter, while string
		}{
			{503, "1", `{"code":503,"message":"no owner"}`},
			{429, "10", `{"code":429,"message":"half full"}`},
			{502, "", "<html>"},
			{200, "", `{"id":"a","state":"running","steps":[]}`},
		}
		config := client.Config{
			Addresses: []string{"a:1"},
			Again:     func(e *client.Error) bool { failures = append(failures, e.Status); return true },
			Transport: transport(func(*http.Request) (*http.Response, error) {
				s := script[len(at)]
				at = append(at, time.Since(begin))
				return response(s.status, s.retryAfter, s.while)
			}),
		}
		sagas := dial(t, config)
		if _, err := sagas.Start(t.Context(), order("a")); err != nil || fmt.Sprint(failures) != "[503 429 502]" {
			t.Fatal(err, failures)
		}
		if at[1] < time.Second || at[2]-at[1] < 10*time.Second || at[3] > 20*time.Second {
			t.Error(at)
		}

		full := func(r *http.Request) (*http.Response, error) {
			return response(429, "99999999999999", `{"code":429,"message":"half full"}`)
		}
		config.Transport = transport(full)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		_, err := dial(t, config).Start(ctx, order("a"))
		var no *client.Error
		if !errors.Is(err, client.ErrFull) || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &no) || no.RetryAfter != time.Minute {
			t.Error(err)
		}
		config.Again = func(e *client.Error) bool { return !errors.Is(e, client.ErrFull) }
		if _, err := dial(t, config).Start(t.Context(), order("a")); !errors.Is(err, client.ErrFull) {
			t.Error(err)
		}
	})
}

func TestAControlPlaneThatIsSilentIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		sagas := dial(t, client.Config{Addresses: []string{"a:1"}, Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := sagas.Get(ctx, "a"); !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || asked < 4 {
			t.Error(err, asked)
		}
		before := asked
		if _, err := sagas.Abort(t.Context(), "a", client.Note{}); !errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || asked != before+1 || !strings.Contains(err.Error(), "did not answer within 10s") {
			t.Error(err, asked-before)
		}
	})
}

func TestAWaitThatIsOverShowsWhatWasSeenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		sagas := dial(t, client.Config{Addresses: []string{"a:1"}, Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked++ // at once, though it is to wait
			return response(200, "", `{"id":"a","state":"compensating"}`)
		})})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if s, err := sagas.Wait(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || s == nil || s.State != saga.Compensating || asked > 12 {
			t.Error(s, err, asked)
		}
	})
}

func TestAllPagesOfAListAreRead(t *testing.T) {
	sagas, ctx := dial(t, at(serve(t, memory(t), "", works, nil).address)), within(t)
	for i := range 7 {
		if _, err := sagas.Start(ctx, order(fmt.Sprint("order-", i))); err != nil {
			t.Fatal(err)
		}
		if _, err := sagas.Wait(ctx, fmt.Sprint("order-", i)); err != nil {
			t.Fatal(err)
		}
	}
	for want, q := range map[string]client.Query{
		"order-0 order-1 order-2 order-3 order-4 order-5 order-6": {Page: 3, State: saga.Completed},
		"order-4 order-5 order-6":                                 {Page: 1, After: "order-3"},
		"order-5":                                                 {Label: "tenant", Value: "t-order-5"},
		"":                                                        {State: saga.Parked},
	} {
		var ids []string
		for s, err := range sagas.List(ctx, q) {
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(s.Raw), `"labels":{"tenant":"t-`+s.ID) || s.Labels["tenant"] != "t-"+s.ID || s.Started.IsZero() {
				t.Error(s)
			}
			ids = append(ids, s.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%+v: %s", q, got)
		}
	}
	for s, err := range sagas.List(ctx, client.Query{Page: 1}) {
		if err != nil || s.ID != "order-0" {
			t.Error(s, err)
		}
		break // who has seen enough asks for no more
	}
}

func TestWhatServesNoSagasIsSaid(t *testing.T) {
	for body, f := range map[string]http.HandlerFunc{
		"status is 404": http.NotFound,
		"status is 302": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"there is no saga in it": func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "{}") },
		"invalid character":      func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "hello") },
		"start it with --saga-egress": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotImplemented)
			_, _ = fmt.Fprintln(w, `{"code":501,"message":"start it with --saga-egress"}`)
		},
	} {
		sagas := dial(t, at(answers(t, f)))
		for _, do := range []func(context.Context, string) (*client.Saga, error){sagas.Get, sagas.Wait} {
			if _, err := do(within(t), "a"); !errors.Is(err, client.ErrNoSagas) || !strings.Contains(err.Error(), body) {
				t.Errorf("%s: %v", body, err)
			}
		}
	}
	back := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, `{"sagas":[{"id":"a","state":"running"}],"after":"a"}`)
	})
	var last error
	for _, err := range dial(t, at(back)).List(within(t), client.Query{}) {
		last = err
	}
	if !errors.Is(last, client.ErrNoSagas) || !strings.Contains(last.Error(), "behind saga a comes a") {
		t.Error(last)
	}
}
