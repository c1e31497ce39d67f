package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

func TestTheBarrierOfDTMDoesEachOnceAndNothingBehindItsCompensation(t *testing.T) {
	d := sqlite(filepath.Join(t.TempDir(), "db"))
	if err := d.make(t.Context(), dtmTable); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open(d.driver, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	p := &part{database: d}
	h := dtmBarrier(db, map[string]participant.Func{action: p.change(action), compensate: p.change(compensate)})
	for _, c := range []struct {
		branch, op string
		fault      string
		status     int
		effects    int // then
	}{
		{"01", action, works, 200, 1},
		{"01", action, works, 200, 1},     // again
		{"01", compensate, works, 200, 2}, // undone
		{"01", compensate, works, 200, 2}, // again
		{"02", compensate, works, 200, 2}, // of nothing
		{"02", action, works, 200, 2},     // behind its compensation
		{"03", action, refuses, 409, 2},
		{"03", action, works, 200, 3},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("/act?gid=x&branch_id=%s&op=%s", c.branch, c.op), bytes.NewReader(text(said{Saga: "x", Step: c.branch})))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(withOrder(r.Context(), order{Fault: c.fault})))
		effects, err := d.effects(t.Context(), stock)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != c.status || len(effects) != c.effects {
			t.Errorf("%+v: %d, %d effects", c, w.Code, len(effects))
		}
	}
}

func TestSagasOfDTMHaveTheOrderOfTheirDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		d, out := defineDTM(r, fmt.Sprint("x-", i), []*member{{address: "127.0.0.1:1"}})
		if len(out.Steps) != len(d.Steps) || len(out.Payloads) != len(d.Steps) {
			t.Fatalf("%s: %d steps, %d payloads", text(d), len(out.Steps), len(out.Payloads))
		}
		var custom struct {
			Concurrent bool          `json:"concurrent"`
			Orders     map[int][]int `json:"orders"`
		}
		if out.CustomData != "" {
			if err := json.Unmarshal([]byte(out.CustomData), &custom); err != nil {
				t.Fatal(err)
			}
		}
		for i, s := range d.Steps {
			if custom.Concurrent == (s.After == nil) {
				t.Errorf("%s: concurrent is %v", text(d), custom.Concurrent)
			}
			var names []string
			for _, before := range custom.Orders[i] {
				names = append(names, d.Steps[before].Name)
			}
			if fmt.Sprint(names) != fmt.Sprint(s.After) {
				t.Errorf("step %d comes after %v, and is ordered after %v", i, s.After, names)
			}
		}
	}
}
