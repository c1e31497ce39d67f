package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/dbserver"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

// dtmTimeout is of each attempt: dtm counts in seconds.
const dtmTimeout = time.Second

// dtmTable is the barrier's.
const dtmTable = "CREATE TABLE IF NOT EXISTS dtm_barrier (gid VARCHAR(128), branch_id VARCHAR(128), op VARCHAR(45), reason VARCHAR(45), PRIMARY KEY (gid, branch_id, op))"

// dtmBarrier does what a call of dtm asks for behind a barrier as its documentation has it (https://en.dtm.pub/practice/barrier.html): rows of gid, branch
// and op, in the transaction of the effect. What came before, or comes behind its compensation, is answered as done, and does nothing.
func dtmBarrier(db *sql.DB, does map[string]participant.Func) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = dtmDo(r, db, body, does)
		}
		var refusal participant.Refusal
		switch {
		case err == nil:
			_, _ = w.Write([]byte(`{"dtm_result":"SUCCESS"}`))
		case errors.As(err, &refusal):
			w.WriteHeader(http.StatusConflict)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
}

func dtmDo(r *http.Request, db *sql.DB, body []byte, does map[string]participant.Func) error {
	ctx, q := r.Context(), r.URL.Query()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	insert := func(op string) (int64, error) {
		r, err := tx.ExecContext(ctx, "INSERT INTO dtm_barrier VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", q.Get("gid"), q.Get("branch_id"), op, q.Get("op"))
		if err != nil {
			return 0, err
		}
		return r.RowsAffected()
	}
	op, origin := q.Get("op"), int64(0)
	if op == compensate {
		if origin, err = insert(action); err != nil {
			return err
		}
	}
	current, err := insert(op)
	if err != nil {
		return err
	}
	if origin == 0 && current > 0 {
		if _, err := does[op](ctx, tx, body); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// dtmSettings is its configuration. Without sync it tells its store of a step's outcome some time behind the next step's call, as it does by default.
func dtmSettings(store *dbserver.Server, ports []string, sync bool) string {
	updates := ""
	if sync {
		updates = "UpdateBranchSync: 1\n"
	}
	return fmt.Sprintf("Store:\n  Driver: postgres\n  Host: %s\n  Port: 5432\n  User: %s\n  Password: none # it asks for no password\n  Db: postgres\n  Schema: public\n  MaxOpenConns: 32\n  MaxIdleConns: 32\n"+
		"HttpPort: %s\nGrpcPort: %s\nJsonRpcPort: %s\nLogLevel: error\n%s", store.Dir, store.User, ports[0], ports[1], ports[2], updates)
}

// startDTM starts participants with its barrier, PostgreSQL, and it.
func (w *world) startDTM(ctx context.Context, program string, sync bool) error {
	keeping, err := w.begin(ctx)
	if err != nil {
		return err
	}
	if err := w.startMembers(ctx, keeping); err != nil {
		return err
	}
	store, err := dbserver.PostgreSQL("max_connections=200") // those of one that was killed are there for a while
	if err != nil {
		return err
	}
	w.servers = append(w.servers, store)
	schema, err := os.ReadFile(filepath.Join(filepath.Dir(program), "dtm.sql"))
	if err != nil {
		return err
	}
	if _, err := store.Run("psql", "-h", store.Dir, "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-c", string(schema)); err != nil {
		return err
	}
	var ports []string
	for range 3 {
		at, err := play.FreeAddress()
		if err != nil {
			return err
		}
		_, port, err := net.SplitHostPort(at)
		if err != nil {
			return err
		}
		ports = append(ports, port)
	}
	file := filepath.Join(w.dir, "dtm.yml")
	if err := os.WriteFile(file, []byte(dtmSettings(store, ports, sync)), 0o600); err != nil {
		return err
	}
	c := &coordinator{world: alone, url: "http://" + net.JoinHostPort("127.0.0.1", ports[0]) + "/api/dtmsvr/"}
	c.kept = &kept{name: "dtm", pause: shortly, begin: func() (*play.Process, error) { return play.Start(w.dir, "dtm", program, "-c", file) }}
	w.coordinators = append(w.coordinators, c)
	return w.keep(keeping, c.kept)
}

// dtmStep is a step as dtm has it.
type dtmStep struct {
	Action     string `json:"action"`
	Compensate string `json:"compensate"`
}

// dtmSaga is one as it is submitted.
type dtmSaga struct {
	GID            string    `json:"gid"`
	Type           string    `json:"trans_type"`
	Protocol       string    `json:"protocol"`
	Steps          []dtmStep `json:"steps"`
	Payloads       []string  `json:"payloads"`
	CustomData     string    `json:"custom_data,omitempty"`
	RequestTimeout int       `json:"request_timeout"` // seconds
	RetryInterval  int       `json:"retry_interval"`  // seconds
}

// defineDTM makes up a saga, a chain or not, all of whose steps can be undone, for dtm knows no others.
func defineDTM(r *rand.Rand, id string, members []*member) (*saga.Definition, dtmSaga) {
	d := define(r, id, []string{"any"})
	out := dtmSaga{GID: id, Type: "saga", Protocol: "http", RequestTimeout: int(dtmTimeout / time.Second), RetryInterval: 1}
	orders, places, isChain := map[int][]int{}, map[string]int{}, true
	d.Deadline = 0
	for i := range d.Steps {
		s := &d.Steps[i]
		s.Kind = ""
		body := text(said{Saga: id, Step: s.Name, Given: none}) // for it passes no results on
		s.Action = saga.Call{Body: body}
		s.Compensate = &s.Action
		places[s.Name] = i
		isChain = isChain && s.After == nil
		for _, before := range s.After {
			orders[i] = append(orders[i], places[before])
		}
		at := "http://" + members[r.IntN(len(members))].address
		out.Steps = append(out.Steps, dtmStep{at + pathOf(action) + "?key=" + id + "/" + s.Name + "/" + action, at + pathOf(compensate) + "?key=" + id + "/" + s.Name + "/" + compensate})
		out.Payloads = append(out.Payloads, string(body))
	}
	if !isChain {
		out.CustomData = string(text(map[string]any{"concurrent": true, "orders": orders}))
	}
	return d, out
}

// runDTM is run for dtm.
func (c *chaos) runDTM(ctx context.Context) error {
	of := c.world.coordinators[0]
	say("sagas are started with dtm, and processes killed and frozen, for %d s", c.seconds)
	begun := time.Now()
	loading, over := context.WithTimeout(ctx, time.Duration(c.seconds)*time.Second)
	defer over()
	var all sync.WaitGroup
	all.Go(func() { c.havoc.alone(loading, randomOf(c.seed, "havoc alone")) })
	all.Go(func() { c.havoc.members(loading, randomOf(c.seed, "havoc members")) })
	var n atomic.Int64
	tick := time.NewTicker(time.Second / time.Duration(c.rate))
	defer tick.Stop()
	for loading.Err() == nil {
		select {
		case <-loading.Done():
		case <-tick.C:
			all.Go(func() { c.startDTM(ctx, of.url, fmt.Sprintf("%s-%05d", alone, n.Add(1))) })
		}
	}
	c.broke = time.Since(begun)
	say("everything is healed; what is open has to end")
	c.world.heal()
	all.Wait()
	c.world.heal()
	settling, cancel := context.WithTimeout(ctx, 2*settleTime)
	defer cancel()
	for {
		open := 0
		ids := c.ledger.ids(func(a *account) bool { return !a.absent && !a.last.State.Ended() })
		for _, id := range ids {
			if v, absent, err := c.readDTM(settling, of.url, id); err == nil {
				c.ledger.note(id, func(a *account) { a.last, a.absent = v, absent })
				if !absent && !v.State.Ended() {
					open++
				}
			} else {
				open++
			}
		}
		if open == 0 || settling.Err() != nil {
			break
		}
		pause(settling, time.Second)
	}
	for !c.world.isQuiet() && settling.Err() == nil {
		pause(settling, 50*time.Millisecond)
	}
	c.healed = time.Since(begun) - c.broke
	return ctx.Err()
}

// startDTM submits a saga until that is answered.
func (c *chaos) startDTM(ctx context.Context, url, id string) {
	d, out := defineDTM(randomOf(c.seed, id), id, c.world.members)
	c.ledger.mu.Lock()
	c.ledger.sagas[id] = &account{definition: d, byHand: map[string]bool{}}
	c.ledger.mu.Unlock()
	for ctx.Err() == nil {
		status, body, err := askDTM(ctx, http.MethodPost, url+"submit", text(out))
		switch {
		case err == nil && (status == http.StatusOK && bytes.Contains(body, []byte("SUCCESS")) || status == http.StatusConflict): // which says that it is there
			c.ledger.note(id, func(a *account) { a.acknowledged = true })
			return
		case err == nil:
			c.ledger.mu.Lock()
			c.ledger.asked[fmt.Sprintf("start: %d", status)]++
			c.ledger.mu.Unlock()
		}
		pause(ctx, 200*time.Millisecond)
	}
}

func askDTM(ctx context.Context, method, url string, body []byte) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	q.Header.Set("Content-Type", "application/json")
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = r.Body.Close() }()
	answer, err = io.ReadAll(r.Body)
	return r.StatusCode, answer, err
}

// readDTM reads where a saga stands.
func (c *chaos) readDTM(ctx context.Context, url, id string) (v view, absent bool, err error) {
	status, body, err := askDTM(ctx, http.MethodGet, url+"query?gid="+id, nil)
	if err != nil {
		return v, false, err
	}
	var shown struct {
		Transaction *struct {
			Status string `json:"status"`
			Reason string `json:"rollback_reason"`
		} `json:"transaction"`
	}
	if err := json.Unmarshal(body, &shown); err != nil || status != http.StatusOK {
		return v, false, fmt.Errorf("dtm shows saga %s as %d %s: %w", id, status, body, err)
	}
	if shown.Transaction == nil {
		return v, true, nil
	}
	v.Reason = shown.Transaction.Reason
	switch shown.Transaction.Status {
	case "succeed":
		v.State = saga.Completed
	case "failed":
		v.State = saga.Compensated
	case "aborting":
		v.State = saga.Compensating
	default:
		v.State = saga.Running
	}
	return v, false, nil
}
