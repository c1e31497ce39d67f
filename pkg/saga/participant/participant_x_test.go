package participant_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

func serve(t *testing.T) (call func(path, key, body string) (int, string), stock func() int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, statement := range []string{barrier.SQLite.Schema(), "CREATE TABLE stock (n INTEGER)", "INSERT INTO stock VALUES (3)"} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	stock = func() (n int) {
		if err := db.QueryRowContext(t.Context(), "SELECT n FROM stock").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	change := func(by int) participant.Func {
		return func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (any, error) {
			var order struct{ N int }
			if err := json.Unmarshal(body, &order); err != nil {
				return nil, participant.Refusal("the body is no order")
			}
			var left int
			if err := tx.QueryRowContext(ctx, "UPDATE stock SET n = n + ? RETURNING n", by*order.N).Scan(&left); err != nil {
				return nil, err
			}
			switch {
			case left < 0:
				return nil, participant.Refusal("none is left")
			case order.N == 13:
				return nil, errors.New("the database is away")
			case by > 0:
				return nil, nil
			}
			return map[string]int{"left": left}, nil
		}
	}
	p := participant.New(barrier.New(db, barrier.SQLite))
	p.Handle("reserve", change(-1), change(1))
	p.Handle("look", change(0), nil)
	s := httptest.NewServer(http.StripPrefix("/saga", p))
	t.Cleanup(s.Close)
	return func(path, key, body string) (int, string) {
		q, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/saga/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Idempotency-Key", key)
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}, stock
}

func TestAParticipantAnswersAsTheCoordinatorUnderstands(t *testing.T) {
	call, stock := serve(t)
	for _, c := range []struct {
		path, key, body string
		status          int
		answer          string
		stock           int
	}{
		{"reserve", "s1/reserve/action", `{"n":2}`, 200, `{"left":1}`, 1},
		{"reserve", "s1/reserve/action", `{"n":2}`, 200, `{"left":1}`, 1},
		{"reserve", "s2/reserve/action", `{"n":2}`, 409, `{"error":"none is left"}`, 1},
		{"reserve", "s3/reserve/action", `{`, 409, `{"error":"the body is no order"}`, 1},
		{"reserve/undo", "s4/reserve/compensate", `{"n":1}`, 204, "", 1},
		{"reserve", "s4/reserve/action", `{"n":1}`, 409, `{"error":"barrier: the step was compensated before its action came"}`, 1},
		{"reserve/undo", "s1/reserve/compensate", `{"n":2}`, 204, "", 3},
		{"reserve/undo", "s1/reserve/compensate", `{"n":2}`, 204, "", 3},
		{"reserve", "s5/reserve/action", `{"n":-13}`, 200, `{"left":16}`, 16},
		{"reserve", "s6/reserve/action", `{"n":13}`, 500, `{"error":"the database is away"}`, 16},
		{"reserve", "", `{"n":1}`, 400, `{"error":"barrier: the Idempotency-Key is not SAGA/STEP/action or SAGA/STEP/compensate, in up to 300 printable ASCII characters without spaces"}`, 16},
		{"look/undo", "s7/look/compensate", `{}`, 404, "404 page not found\n", 16},
		{"reserve", "s8/reserve/action", `"` + strings.Repeat("x", 40_000) + `"`, 400, `{"error":"http: request body too large"}`, 16},
	} {
		status, answer := call(c.path, c.key, c.body)
		if status != c.status || answer != c.answer {
			t.Errorf("%s %s %.20s: %d %s", c.path, c.key, c.body, status, answer)
		}
		if n := stock(); n != c.stock {
			t.Fatalf("%s %s %.20s: %d are in stock, not %d", c.path, c.key, c.body, n, c.stock)
		}
	}
}

func ExampleParticipant() {
	reserve := func(ctx context.Context, tx *sql.Tx, _ json.RawMessage) (any, error) {
		_, err := tx.ExecContext(ctx, "UPDATE stock SET n = n - 1")
		return map[string]string{"id": "r-1"}, err
	}
	release := func(ctx context.Context, tx *sql.Tx, _ json.RawMessage) (any, error) {
		_, err := tx.ExecContext(ctx, "UPDATE stock SET n = n + 1")
		return nil, err
	}
	var db *sql.DB // the service's
	p := participant.New(barrier.New(db, barrier.PostgreSQL))
	p.Handle("reserve", reserve, release)
	http.Handle("/saga/", http.StripPrefix("/saga", p))
	fmt.Println("POST /saga/reserve, POST /saga/reserve/undo")
	// Output: POST /saga/reserve, POST /saga/reserve/undo
}
