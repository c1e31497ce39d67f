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
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql" // the driver
	_ "github.com/jackc/pgx/v5/stdlib" // the driver
	_ "modernc.org/sqlite"             // the driver

	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/saga/participant"
)

// database is where participants of a service keep their effects.
type database struct {
	dialect barrier.Dialect
	driver  string
	dsn     string
}

// effectsTable is made once.
const effectsTable = "CREATE TABLE IF NOT EXISTS effects (saga VARCHAR(200), step VARCHAR(200), what VARCHAR(20), id VARCHAR(40), given VARCHAR(40), at BIGINT)"

// insertEffect writes an effect. It has no key: what is done twice is there twice.
func (d database) insertEffect() string {
	if d.dialect == barrier.PostgreSQL {
		return "INSERT INTO effects (saga, step, what, id, given, at) VALUES ($1, $2, $3, $4, $5, $6)"
	}
	return "INSERT INTO effects (saga, step, what, id, given, at) VALUES (?, ?, ?, ?, ?, ?)"
}

// sqlite is a database in a file. What was committed outlives the process, which is all that is killed here.
func sqlite(path string) database {
	return database{barrier.SQLite, "sqlite", "file:" + path + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)"}
}

// make makes the tables, and one of more statements.
func (d database) make(ctx context.Context, more ...string) error {
	db, err := sql.Open(d.driver, d.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, statement := range append(more, d.dialect.Schema(), effectsTable) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// effects reads what the participants of a service have changed.
func (d database) effects(ctx context.Context, service string) (all []effect, err error) {
	db, err := sql.Open(d.driver, d.dsn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(ctx, "SELECT saga, step, what, id, given, at FROM effects ORDER BY at")
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", service, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		f := effect{service: service}
		if err := rows.Scan(&f.saga, &f.step, &f.what, &f.id, &f.given, &f.at); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, rows.Err()
}

// part is a process that takes part in sagas.
type part struct {
	service  string
	director string // its address
	database database
	isDTM    bool         // called by dtm, whose calls are not numbered
	behind   http.Handler // what works, with a barrier

	working sync.WaitGroup // calls, those among them whose caller is gone
}

// serve takes calls until it is told to stop, and returns when all are over.
func (p *part) serve(ctx context.Context, listen string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	db, err := sql.Open(p.database.driver, p.database.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(4)
	if p.isDTM {
		p.behind = dtmBarrier(db, map[string]participant.Func{action: p.change(action), compensate: p.change(compensate)})
	} else {
		works := participant.New(barrier.New(db, p.database.dialect))
		works.Handle("act", p.change(action), p.change(compensate))
		p.behind = works
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	fmt.Println("listens")
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	err = s.Shutdown(context.Background())
	p.working.Wait()
	return err
}

// orderKey is the key of a call's order in its context.
type orderKey struct{}

// withOrder puts a call's order into its context.
func withOrder(ctx context.Context, o order) context.Context {
	return context.WithValue(ctx, orderKey{}, o)
}

// change does or undoes something that is not the same when it is done twice.
func (p *part) change(what string) participant.Func {
	return func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (any, error) {
		var s said
		if err := json.Unmarshal(body, &s); err != nil {
			return nil, participant.Refusal("the body: " + err.Error())
		}
		o, _ := ctx.Value(orderKey{}).(order)
		if o.Fault == refuses {
			return nil, participant.Refusal("not this one")
		}
		id := strconv.FormatUint(rand.Uint64(), 36)
		if _, err := tx.ExecContext(ctx, p.database.insertEffect(), s.Saga, s.Step, what, id, s.Given, now()); err != nil {
			return nil, err
		}
		if o.Fault == diesUndecided {
			die()
		}
		return map[string]string{"id": id}, nil
	}
}

// die is SIGKILL, by which nothing is tidied up.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// tell tells the director something, and returns what it says.
func (p *part) tell(what string, v any) (o order) {
	r, err := http.Post("http://"+p.director+what, "application/json", bytes.NewReader(text(v))) //nolint:noctx // it answers soon, or is gone
	if err != nil {
		return o // at the end
	}
	_ = json.NewDecoder(r.Body).Decode(&o)
	_ = r.Body.Close()
	return o
}

// ServeHTTP implements http.Handler: it does with a call as it is told.
func (p *part) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.working.Add(1)
	defer p.working.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := call{Service: p.service, Process: os.Getpid(), Key: r.Header.Get("Idempotency-Key"), Path: r.URL.Path, Body: string(body)}
	if p.isDTM {
		c.Key = r.URL.Query().Get("key")
	} else {
		var attemptErr, fenceErr error
		c.Attempt, attemptErr = strconv.Atoi(r.Header.Get("Saga-Attempt"))
		c.Fence, fenceErr = strconv.ParseInt(r.Header.Get("Saga-Fence"), 10, 64)
		if err := errors.Join(attemptErr, fenceErr); err != nil {
			c.Body = err.Error() // by which the verdict sees it
		}
	}
	o := p.tell("/received", c)
	wait := time.Duration(o.Delay) * time.Millisecond
	work := func() *answer {
		a := &answer{header: http.Header{}, status: http.StatusOK}
		// What the caller does not wait for any more is done all the same.
		q := r.WithContext(withOrder(context.WithoutCancel(r.Context()), o))
		q.Body = io.NopCloser(bytes.NewReader(body))
		p.behind.ServeHTTP(a, q)
		return a
	}
	if o.Over > 0 && o.Fault != behind {
		defer func() { p.tell("/over", o.Over) }()
	}
	switch o.Fault {
	case diesReceived:
		die()
	case fails, later:
		w.WriteHeader(o.Status)
		return
	case breaks:
		panic(http.ErrAbortHandler)
	case behind:
		w.WriteHeader(o.Status)
		p.working.Go(func() {
			time.Sleep(wait)
			work()
			p.tell("/over", o.Over)
		})
		return
	case late:
		time.Sleep(wait)
	}
	a := work()
	switch o.Fault {
	case diesCommitted:
		die()
	case tells:
		p.tell("/committed", c)
	case slow:
		time.Sleep(wait)
	case failsBehind:
		w.WriteHeader(o.Status)
		return
	case breaksBehind:
		panic(http.ErrAbortHandler)
	case halfway:
		w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()+1))
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body.Bytes()[:a.body.Len()/2])
		panic(http.ErrAbortHandler)
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes())
}

// answer keeps what is answered.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
