package controlplane_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A store of sagas that is nearly full takes no more; what it took ends and is forgotten in time, the file is made small again, and then it takes others.
func TestAFullStoreOfSagasTakesOthersOnceThoseAreForgotten(t *testing.T) {
	called := &steps{hold: make(chan struct{})}
	egress := httptest.NewServer(called)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	config.SagaQuota, config.SagaRetention = 16<<20, 3*time.Second
	ask, _ := startSagas(t, config)
	padding := strings.Repeat("x", 20_000)
	saga := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"steps":[{"name":"s","action":{"service":"orders","path":"/hold","body":%q},"timeout":"15m"}]}`, id, padding)
	}
	var accepted []string
	refused := ""
	for i := 0; refused == "" && i < 3000; i++ {
		id := fmt.Sprint("order-", i)
		switch status, body := ask("POST", "/v1/sagas", saga(id)); status {
		case http.StatusOK:
			accepted = append(accepted, id)
		case http.StatusTooManyRequests:
			refused = body
		default:
			t.Fatalf("%s: %d %s", id, status, body)
		}
	}
	if !strings.Contains(refused, "too full") || len(accepted) < 100 {
		t.Fatalf("after %d sagas: %q", len(accepted), refused)
	}
	close(called.hold) // from here on they end
	for _, id := range accepted[max(0, len(accepted)-50):] {
		if status, body := ask("GET", "/v1/sagas/"+id+":wait?timeout=20s", ""); status == http.StatusOK && stateOf(t, body) != "completed" { // or 404, behind its retention
			t.Errorf("%s: %s", id, body)
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for again := 0; again < 200; {
		switch status, body := ask("POST", "/v1/sagas", saga(fmt.Sprint("other-", again))); {
		case status == http.StatusOK:
			again++
		case status != http.StatusTooManyRequests:
			t.Fatalf("%d %s", status, body)
		case time.Now().After(deadline):
			t.Fatalf("after %d others: %s", again, body)
		default:
			time.Sleep(100 * time.Millisecond)
		}
	}
}
