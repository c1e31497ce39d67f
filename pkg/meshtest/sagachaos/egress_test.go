package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

func TestTheEgressPassesEachCallOnOnceAndSaysNothingItself(t *testing.T) {
	came := make(chan string, 10)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		came <- r.Header.Get("Idempotency-Key") + " " + string(body)
		w.WriteHeader(http.StatusTeapot)
	}))
	defer service.Close()
	gone, err := play.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	address, err := play.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	holds, released := make(chan struct{}), make(chan struct{})
	e, err := startEgress(address, map[string][]string{stock: {service.Listener.Addr().String()}, money: {gone}}, func(key, _ string) time.Duration {
		if key == "held" {
			close(holds)
			<-released
			return 1
		}
		return 0
	})
	if err != nil {
		t.Fatal(err)
	}
	call := func(ctx context.Context, service, key string) (status int) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address, io.MultiReader(strings.NewReader("body")))
		if err != nil {
			t.Error(err)
			return 0
		}
		r.Host = service
		r.Header.Set("Idempotency-Key", key)
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return 0
		}
		_ = answer.Body.Close()
		return answer.StatusCode
	}
	if status := call(t.Context(), stock, "works"); status != http.StatusTeapot {
		t.Errorf("answered %d", status)
	}
	for _, service := range []string{money, letters} { // which is gone, and which is unknown
		if status := call(t.Context(), service, "lost"); status != 0 {
			t.Errorf("%s: answered %d", service, status)
		}
	}
	givesUp, cancel := context.WithCancel(t.Context())
	go func() { <-holds; cancel() }()
	if status := call(givesUp, stock, "held"); status != 0 {
		t.Errorf("held: answered %d", status)
	}
	close(released)
	if err := e.stop(t.Context()); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"works body", "held body"} {
		if got := <-came; got != want {
			t.Errorf("%q has come, not %q", got, want)
		}
	}
	if len(came) > 0 {
		t.Errorf("%q has come, too", <-came)
	}
}
