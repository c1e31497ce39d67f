package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAStepHasItsEffectOnceThoughNobodyWaitedForTheFirstAnswer(t *testing.T) {
	l, err := openLedger(t.Context(), filepath.Join(t.TempDir(), "payments.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close() })
	s := newService("payments")
	if err := s.takePart("charge", l); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.mux)
	t.Cleanup(server.Close)
	send := func(method, path, key, body string) (int, string) {
		q, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Idempotency-Key", key)
		a, err := http.DefaultClient.Do(q)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = a.Body.Close() }()
		var answer json.RawMessage
		_ = json.NewDecoder(a.Body).Decode(&answer) // some have none
		return a.StatusCode, string(answer)
	}
	effects := func(order string) (e struct{ Done, Asked map[string]int }) {
		_, answer := send(http.MethodGet, "/effects?order="+order, "", "")
		if err := json.Unmarshal([]byte(answer), &e); err != nil {
			t.Fatalf("%q: %v", answer, err)
		}
		return e
	}

	const action, order = "order-1/charge/action", `{"order":"order-1","card":"paid"}`
	send(http.MethodPut, "/fault?delay=1h", "", "")
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		send(http.MethodPost, "/saga/charge", action, order)
	}()
	for effects("order-1").Done["charged"] == 0 { // it is done before it is answered
	}
	server.CloseClientConnections()
	<-waiting
	send(http.MethodPut, "/fault", "", "")
	if status, answer := send(http.MethodPost, "/saga/charge", action, order); status != http.StatusOK || answer != `{"charged":"order-1"}` {
		t.Errorf("asked again: %d %s", status, answer)
	}
	want := struct{ Done, Asked map[string]int }{map[string]int{"charged": 1}, map[string]int{action[len("order-1/"):]: 2}}
	if diff := cmp.Diff(want, effects("order-1")); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}

	if status, answer := send(http.MethodPost, "/saga/charge", "order-2/charge/action", `{"order":"order-2","card":"declined"}`); status != http.StatusConflict || answer != `{"error":"the card is declined"}` {
		t.Errorf("declined: %d %s", status, answer)
	}
	if done := effects("order-2").Done; len(done) > 0 {
		t.Errorf("done for an order whose card is declined: %v", done)
	}
	if status, _ := send(http.MethodPost, "/saga/charge/undo", "order-1/charge/compensate", `{"order":"order-1"}`); status != http.StatusNoContent {
		t.Errorf("undone: %d", status)
	}
	if done := effects("order-1").Done; done["refunded"] != 1 {
		t.Errorf("undone: %v", done)
	}
}
