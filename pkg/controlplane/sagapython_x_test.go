package controlplane_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// runPython runs the service that docs/saga.md shows, until the test ends.
func runPython(t *testing.T) *url.URL {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import sqlite3").CombinedOutput(); err != nil {
		t.Skipf("there is no python3 with sqlite3: %v %s", err, out)
	}
	cmd := exec.Command("python3", filepath.Join("..", "..", "docs", "saga-participant.py"), filepath.Join(t.TempDir(), "concert.db"))
	var log bytes.Buffer // which is read when it has ended
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("the service says:\n%s", &log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	at, ok := strings.CutPrefix(strings.TrimSpace(line), "listens on ")
	if !ok {
		t.Fatalf("it does not listen: %q, %v", line, err)
	}
	return &url.URL{Scheme: "http", Host: at}
}

// lossy is the way of all calls to a service. It loses some, by their key.
type lossy struct {
	service http.Handler

	mu   sync.Mutex
	came map[string]int           // guarded by mu; how often
	late map[string]*http.Request // guarded by mu; those that were lost on the way there
}

func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	l.mu.Lock()
	defer l.mu.Unlock()
	l.came[key]++
	switch {
	case (key == "asked-again/reserve/action" || key == "declined/reserve/compensate") && l.came[key] == 1:
		l.service.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler) // its answer is lost
	case key == "overtaken/reserve/action":
		body, _ := io.ReadAll(r.Body) // as much as came
		l.late[key] = r.Clone(context.Background())
		l.late[key].Body = io.NopCloser(bytes.NewReader(body))
		panic(http.ErrAbortHandler)
	case key == "declined/charge/action":
		http.Error(w, "the card is declined", http.StatusConflict)
	case r.Host != "tickets":
	default:
		l.service.ServeHTTP(w, r)
	}
}

func TestAServiceInPythonTakesPartOnceWhateverIsLostOrLate(t *testing.T) {
	at := runPython(t)
	calls := &lossy{came: map[string]int{}, late: map[string]*http.Request{}, service: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(at) }}}
	egress := httptest.NewServer(calls)
	t.Cleanup(egress.Close)
	config := loopbackConfig(t)
	config.SagaEgress = egress.Listener.Addr().String()
	ask, _ := startSagas(t, config)
	for _, c := range []struct {
		id           string
		seats, tries int
		state, says  string // says is in what the saga reads back as
		calls        string // how often each came
	}{
		{"asked-again", 2, 5, "completed", `"result":{"reservation":1}`, "reserve/action 2, charge/action 1"},
		{"declined", 3, 5, "compensated", "the card is declined", "reserve/action 1, charge/action 1, reserve/compensate 2"},
		{"overtaken", 4, 1, "compensated", `"state":"compensated"`, "reserve/action 1, reserve/compensate 1"},
		{"sold-out", 99, 5, "compensated", "there are no 99 seats left", "reserve/action 1"},
	} {
		definition := fmt.Sprintf(`{"id":%q,"steps":[
			{"name":"reserve","retry":{"attempts":%d,"backoff":"10ms"},
			 "action":{"service":"tickets","path":"/reserve","body":{"seats":%d}},"compensate":{"service":"tickets","path":"/reserve/undo"}},
			{"name":"charge","kind":"pivot","action":{"service":"payments","path":"/charge"}}]}`, c.id, c.tries, c.seats)
		if status, body := ask("POST", "/v1/sagas", definition); status != 200 {
			t.Fatalf("%s: %d %s", c.id, status, body)
		}
		if _, body := ask("GET", "/v1/sagas/"+c.id+":wait?timeout=30s", ""); stateOf(t, body) != c.state || !strings.Contains(body, c.says) {
			t.Errorf("%s: %s", c.id, body)
		}
		var came []string
		calls.mu.Lock()
		for _, call := range []string{"reserve/action", "charge/action", "reserve/compensate"} {
			if n := calls.came[c.id+"/"+call]; n > 0 {
				came = append(came, fmt.Sprintf("%s %d", call, n))
			}
		}
		calls.mu.Unlock()
		if got := strings.Join(came, ", "); got != c.calls {
			t.Errorf("%s: called: %s", c.id, got)
		}
	}

	late := httptest.NewRecorder()
	calls.service.ServeHTTP(late, calls.late["overtaken/reserve/action"])
	if late.Code != http.StatusConflict || !strings.Contains(late.Body.String(), "compensated before its action came") {
		t.Errorf("the action that came behind its compensation: %d %s", late.Code, late.Body)
	}
	seats := httptest.NewRecorder()
	calls.service.ServeHTTP(seats, httptest.NewRequest(http.MethodGet, "/seats", http.NoBody))
	if got := seats.Body.String(); got != `{"seats_left": 98, "reservations": 1}` {
		t.Errorf("what came of them: %s", got)
	}
}

func TestAServiceInPythonDoesNothingOfACallThatIsCutShort(t *testing.T) {
	at := runPython(t)
	c, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, "POST /reserve/undo HTTP/1.1\r\nHost: x\r\nIdempotency-Key: cut/reserve/compensate\r\nContent-Length: 2\r\n\r\n")
	if err := errors.Join(err, c.(*net.TCPConn).CloseWrite()); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || len(answer) > 0 {
		t.Errorf("it is answered: %q, %v", answer, err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.String()+"/reserve", strings.NewReader(`{"seats":1}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", "cut/reserve/action")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("its action is answered %s, though no compensation has come", response.Status)
	}
}
