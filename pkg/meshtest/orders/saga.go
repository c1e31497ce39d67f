package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // the driver

	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

// part is a step of an order's saga: what doing and undoing it is called in the ledger, and what it refuses.
type part struct {
	does, undoes string
	refuses      func(o order) error
}

// order is what a step is told of one.
type order struct {
	ID   string `json:"order"`
	Card string `json:"card"`
}

// partNamed returns a step. What is shipped is not fetched back.
func partNamed(step string) (part, error) {
	switch step {
	case "reserve":
		return part{does: "reserved", undoes: "released"}, nil
	case "charge":
		return part{does: "charged", undoes: "refunded", refuses: func(o order) error {
			if o.Card == "declined" {
				return participant.Refusal("the card is declined")
			}
			return nil
		}}, nil
	case "ship":
		return part{does: "shipped"}, nil
	}
	return part{}, fmt.Errorf("-step %q is none of reserve, charge, ship", step)
}

// ledger is what an instance has done for the orders of sagas, in a database of its own: a line for each time that something was really
// done, so that what was done twice is there twice.
type ledger struct {
	db *sql.DB

	mu    sync.Mutex
	calls map[string]int // guarded by mu; by Idempotency-Key: what it was asked for, done anew or not
}

// openLedger opens the database, a file, and makes it if there is none.
func openLedger(ctx context.Context, file string) (*ledger, error) {
	// A transaction that begins by reading, and writes then, would fail where another has written in between.
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{barrier.SQLite.Schema(), "CREATE TABLE IF NOT EXISTS ledger (id TEXT, what TEXT)"} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return &ledger{db: db, calls: map[string]int{}}, nil
}

// takePart makes the service a step of sagas.
func (s *service) takePart(step string, l *ledger) error {
	p, err := partNamed(step)
	if err != nil {
		return err
	}
	do := func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (any, error) {
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, participant.Refusal("the body is no order: " + err.Error())
		}
		if p.refuses != nil {
			if err := p.refuses(o); err != nil {
				return nil, err
			}
		}
		return map[string]string{p.does: o.ID}, write(ctx, tx, o.ID, p.does)
	}
	undo := func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (any, error) {
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, err
		}
		return nil, write(ctx, tx, o.ID, p.undoes)
	}
	if p.undoes == "" {
		undo = nil
	}
	steps := participant.New(barrier.New(l.db, barrier.SQLite))
	steps.Handle(step, do, undo)
	s.mux.Handle("/saga/", http.StripPrefix("/saga", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.asked(r.Header.Get("Idempotency-Key"))
		steps.ServeHTTP(&late{w, r, s}, r)
	})))
	s.mux.HandleFunc("GET /effects", l.effects)
	return nil
}

func write(ctx context.Context, tx *sql.Tx, id, what string) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO ledger (id, what) VALUES (?, ?)", id, what)
	return err
}

// asked notes a call by its key, SAGA/STEP/action or SAGA/STEP/compensate.
func (l *ledger) asked(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[key]++
}

// effects answers {"done":{"charged":1},"asked":{"charge/action":2}}: how often something was done for an order, and how often each call of the
// saga of that name came.
func (l *ledger) effects(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("order")
	done, err := l.done(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	asked := map[string]int{}
	l.mu.Lock()
	for key, n := range l.calls {
		if rest, ok := strings.CutPrefix(key, id+"/"); ok {
			asked[rest] = n
		}
	}
	l.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]map[string]int{"done": done, "asked": asked})
}

// done counts the lines of an order.
func (l *ledger) done(ctx context.Context, id string) (map[string]int, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT what, COUNT(*) FROM ledger WHERE id = ? GROUP BY what", id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	done := map[string]int{}
	for rows.Next() {
		var what string
		var n int
		if err := rows.Scan(&what, &n); err != nil {
			return nil, err
		}
		done[what] = n
	}
	return done, rows.Err()
}

// late answers as late as the service is told to: behind what was done.
type late struct {
	http.ResponseWriter
	request *http.Request
	service *service
}

// WriteHeader implements http.ResponseWriter.
func (l *late) WriteHeader(status int) {
	_ = l.service.fault.Load().pause(l.request.Context()) // nobody reads it then
	l.ResponseWriter.WriteHeader(status)
}
