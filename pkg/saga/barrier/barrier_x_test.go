package barrier_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite" // the driver

	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
)

// database is a real one, empty but for the barrier and the table that the tests change.
type database struct {
	*sql.DB
	*barrier.Barrier
	add     string // to the count of what a step did
	dialect barrier.Dialect
}

// open returns SQLite in a file, as a service would have it.
func open(t *testing.T) *database {
	t.Helper()
	return sqlite().open(t, "&_txlock=immediate", nil)
}

func prepare(t *testing.T, db *sql.DB, d barrier.Dialect) *database {
	t.Helper()
	effects := "CREATE TABLE effects (step VARCHAR(100) NOT NULL, n INTEGER NOT NULL)"
	if d == barrier.MySQL {
		effects += " ENGINE=InnoDB"
	}
	for _, statement := range []string{d.Schema(), d.Schema(), effects} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	add := "INSERT INTO effects (step, n) VALUES (?, ?)"
	if d == barrier.PostgreSQL {
		add = "INSERT INTO effects (step, n) VALUES ($1, $2)"
	}
	return &database{db, barrier.New(db, d), add, d}
}

// did returns the net effect of a step, and how often something was done to it.
func (d *database) did(t *testing.T, step string) (net, times int) {
	t.Helper()
	if err := d.QueryRowContext(t.Context(), "SELECT COALESCE(SUM(n), 0), COUNT(*) FROM effects WHERE step = '"+step+"'").Scan(&net, &times); err != nil {
		t.Fatal(err)
	}
	return net, times
}

// text is what an answer may hold, whatever characters the database takes by itself.
const text = "Zoë 東京 🎉 'a' \\ \x00"

func (d *database) act(ctx context.Context, step string) (json.RawMessage, error) {
	return d.Do(ctx, "saga/"+step+"/action", func(tx *sql.Tx) (any, error) {
		_, err := tx.ExecContext(ctx, d.add, step, 1)
		return map[string]any{"id": step, "n": 1, "text": text}, err
	})
}

func (d *database) undo(ctx context.Context, step string) (json.RawMessage, error) {
	return d.Do(ctx, "saga/"+step+"/compensate", func(tx *sql.Tx) (any, error) {
		_, err := tx.ExecContext(ctx, d.add, step, -1)
		return "undone", err
	})
}

func TestADuplicateIsAnsweredAsTheFirstWas(t *testing.T) {
	duplicates(t, open(t))
}

func duplicates(t *testing.T, d *database) {
	t.Helper()
	for range 3 {
		got, err := d.act(t.Context(), "a")
		var answer map[string]any
		if err != nil || json.Unmarshal(got, &answer) != nil || answer["id"] != "a" || answer["n"] != 1.0 || answer["text"] != text {
			t.Errorf("%s %v", got, err)
		}
	}
	if net, times := d.did(t, "a"); net != 1 || times != 1 {
		t.Errorf("it was done %d times", times)
	}
	for range 3 {
		if got, err := d.undo(t.Context(), "a"); err != nil || string(got) != `"undone"` {
			t.Errorf("%s %v", got, err)
		}
	}
	if net, times := d.did(t, "a"); net != 0 || times != 2 {
		t.Errorf("net %d after %d", net, times)
	}
	if got, err := d.act(t.Context(), "a"); err != nil || len(got) == 0 {
		t.Errorf("a late duplicate: %s %v", got, err)
	}
	if net, times := d.did(t, "a"); net != 0 || times != 2 {
		t.Errorf("net %d after %d", net, times)
	}
}

func TestACompensationOfWhatNeverRanDoesNothingAndKeepsItFromRunning(t *testing.T) {
	null(t, open(t))
}

func null(t *testing.T, d *database) {
	t.Helper()
	for range 2 {
		if got, err := d.undo(t.Context(), "b"); err != nil || got != nil {
			t.Errorf("%s %v", got, err)
		}
	}
	for range 2 {
		if got, err := d.act(t.Context(), "b"); !errors.Is(err, barrier.ErrUndone) {
			t.Errorf("hanging: %s %v", got, err)
		}
	}
	if _, times := d.did(t, "b"); times != 0 {
		t.Errorf("something was done %d times", times)
	}
}

func TestWhatFailsLeavesNothingAndMayComeAgain(t *testing.T) {
	failing(t, open(t))
}

func failing(t *testing.T, d *database) {
	t.Helper()
	broken := errors.New("out of stock")
	for _, what := range []string{"action", "compensate"} {
		if what == "compensate" {
			if _, err := d.act(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}
		}
		_, before := d.did(t, "c")
		for range 2 {
			_, err := d.Do(t.Context(), "saga/c/"+what, func(tx *sql.Tx) (any, error) {
				if _, err := tx.ExecContext(t.Context(), d.add, "c", 5); err != nil {
					return nil, err
				}
				return nil, broken
			})
			if !errors.Is(err, broken) {
				t.Error(err)
			}
		}
		if _, after := d.did(t, "c"); after != before {
			t.Errorf("%s: it was undone by half", what)
		}
	}
	if _, err := d.undo(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	if net, times := d.did(t, "c"); net != 0 || times != 2 {
		t.Errorf("net %d after %d", net, times)
	}
}

// All at once, from many connections: the action and its compensation, each many times.
func TestCallsThatComeTogetherHaveTheirEffectOnce(t *testing.T) {
	together(t, open(t))
}

func together(t *testing.T, d *database) {
	t.Helper()
	for i := range 20 {
		step := fmt.Sprint("d", i)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { _, _ = d.act(t.Context(), step) }) // some are refused, and some may fail: they come again
			all.Go(func() { _, _ = d.undo(t.Context(), step) })
		}
		all.Wait()
		if _, err := d.undo(t.Context(), step); err != nil {
			t.Error(err)
		}
		if net, times := d.did(t, step); net != 0 || times != 0 && times != 2 {
			t.Errorf("%s: net %d after %d", step, net, times)
		}
	}
}

// As the replicas of a service do that start at the same time.
func TestTheTableIsMadeOnceByManyAtOnce(t *testing.T) {
	s := sqlite()
	made(t, s, s.dsn(t, ""))
}

func made(t *testing.T, s *server, dsn string) {
	t.Helper()
	db := s.connect(t, dsn)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := db.ExecContext(t.Context(), s.dialect.Schema()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestWhatEndsItsTransactionIsNotTakenForDone(t *testing.T) {
	ending(t, open(t))
}

// A deadlock in MariaDB does as this function does.
func ending(t *testing.T, d *database) {
	t.Helper()
	for _, answer := range []any{nil, "done"} {
		_, err := d.Do(t.Context(), "saga/h/action", func(tx *sql.Tx) (any, error) {
			if _, err := tx.ExecContext(t.Context(), d.add, "h", 1); err != nil {
				return nil, err
			}
			_, err := tx.ExecContext(t.Context(), "ROLLBACK")
			return answer, err
		})
		if err == nil {
			t.Errorf("%v: it was done", answer)
		}
		if net, times := d.did(t, "h"); net != 0 || times != 0 {
			t.Errorf("%v: net %d after %d", answer, net, times)
		}
	}
	if _, err := d.act(t.Context(), "h"); err != nil {
		t.Error(err)
	}
	if net, times := d.did(t, "h"); net != 1 || times != 1 {
		t.Errorf("net %d after %d", net, times)
	}
}

func TestStepsWhoseNamesAreAlikeAreApart(t *testing.T) {
	apart(t, open(t))
}

func apart(t *testing.T, d *database) {
	t.Helper()
	for i, step := range []string{"g", "G", "g-", "g_", "g/g", strings.Repeat("g", 280)} {
		for range 2 {
			if _, err := d.Do(t.Context(), "saga/"+step+"/action", func(tx *sql.Tx) (any, error) {
				_, err := tx.ExecContext(t.Context(), d.add, "g", 1)
				return nil, err
			}); err != nil {
				t.Errorf("%s: %v", step, err)
			}
		}
		if _, times := d.did(t, "g"); times != i+1 {
			t.Errorf("%s: %d of %d were done", step, times, i+1)
		}
	}
}

func TestKeysThatAreNoSagasAreRefused(t *testing.T) {
	d := open(t)
	for _, key := range []string{"", "a", "a/action", "/a/action/", "a/b/undo", "//",
		// Of these, databases take some for others.
		"a/b /action", "a/ü/action", "a/\xff/action", "a/b\x00/action", "a/" + strings.Repeat("b", 300) + "/action"} {
		_, err := d.Do(t.Context(), key, func(*sql.Tx) (any, error) { t.Error("it was called"); return nil, nil })
		if !errors.Is(err, barrier.ErrKey) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
