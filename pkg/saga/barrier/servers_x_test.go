package barrier_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver
	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"github.com/fairlead-mesh/fairlead/pkg/internal/dbserver"
	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
)

// server makes databases that services would have, each with settings of its own.
type server struct {
	dialect barrier.Dialect
	driver  string
	dsn     func(t *testing.T, settings string) string // of a database that is empty
}

// sqlite needs no server.
func sqlite() *server {
	return &server{barrier.SQLite, "sqlite", func(t *testing.T, settings string) string {
		return "file:" + filepath.Join(t.TempDir(), "db") + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)" + settings
	}}
}

// postgreSQL starts a server that keeps nothing through a crash.
func postgreSQL(t *testing.T) *server {
	t.Helper()
	d := started(t)(dbserver.PostgreSQL("fsync=off"))
	return &server{barrier.PostgreSQL, "pgx", separate(t, "pgx", func(schema string) string {
		return "host=" + d.Dir + " user=" + d.User + " dbname=postgres search_path='" + schema + "' "
	})}
}

func mariaDB(t *testing.T) *server {
	t.Helper()
	d := started(t)(dbserver.MariaDB())
	return &server{barrier.MySQL, "mysql", separate(t, "mysql", func(schema string) string { return "root@unix(" + d.Dir + "/socket)/" + schema + "?" })}
}

// started ends a server after the test.
func started(t *testing.T) func(*dbserver.Server, error) *dbserver.Server {
	t.Helper()
	return func(d *dbserver.Server, err error) *dbserver.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
}

// separate makes a schema for whoever asks.
func separate(t *testing.T, driver string, dsn func(schema string) string) func(*testing.T, string) string {
	t.Helper()
	admin, err := sql.Open(driver, dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	n := 0
	return func(t *testing.T, settings string) string {
		t.Helper()
		n++
		name := fmt.Sprint("barrier", n)
		if _, err := admin.ExecContext(t.Context(), "CREATE SCHEMA "+name); err != nil {
			t.Fatal(err)
		}
		return dsn(name) + settings
	}
}

// open returns an empty database. If between is not nil, each transaction reads the barrier as its first, as the hooks of some services
// do, and calls between then.
func (s *server) open(t *testing.T, settings string, between func()) *database {
	t.Helper()
	dsn := s.dsn(t, settings)
	d := prepare(t, s.connect(t, dsn), s.dialect)
	if between != nil {
		d = d.reading(t, dsn, between)
	}
	return d
}

func (s *server) connect(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(s.driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// reading returns the same database with transactions that have read before the barrier sees them.
func (d *database) reading(t *testing.T, dsn string, between func()) *database {
	t.Helper()
	db := sql.OpenDB(reading{d.Driver(), dsn, between})
	t.Cleanup(func() { _ = db.Close() })
	return &database{db, barrier.New(db, d.dialect), d.add, d.dialect}
}

type reading struct {
	driver  driver.Driver
	dsn     string
	between func()
}

func (r reading) Driver() driver.Driver { return r.driver }

func (r reading) Connect(context.Context) (driver.Conn, error) {
	c, err := r.driver.Open(r.dsn)
	return &readingConn{c, r.between}, err
}

type readingConn struct {
	driver.Conn
	between func()
}

func (c *readingConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	rows, err := c.Conn.(driver.QueryerContext).QueryContext(ctx, "SELECT step FROM saga_barrier", nil)
	if err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	for err = nil; err == nil; err = rows.Next(make([]driver.Value, 1)) {
	}
	if err = rows.Close(); err != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	c.between()
	return tx, nil
}

// overtaken: a call has begun and read when another, of the same step, begins and ends.
func overtaken(t *testing.T, s *server, settings string) {
	t.Helper()
	for _, what := range []string{"action by action", "action by compensation", "compensation by action", "compensation by compensation"} {
		dsn := s.dsn(t, settings)
		d := prepare(t, s.connect(t, dsn), s.dialect)
		first, second, _ := strings.Cut(what, " by ")
		call := func(d *database, what string) (json.RawMessage, error) {
			if what == "action" {
				return d.act(t.Context(), "e")
			}
			return d.undo(t.Context(), "e")
		}
		var once bool
		slow := d.reading(t, dsn, func() {
			if once {
				return
			}
			once = true
			if got, err := call(d, second); err != nil {
				t.Errorf("%s: %s %v", what, got, err)
			}
		})
		got, err := call(slow, first)
		if err != nil && !errors.Is(err, barrier.ErrUndone) {
			got, err = call(slow, first) // it failed, and comes again
		}
		if hanging := what == "action by compensation"; hanging != errors.Is(err, barrier.ErrUndone) || !hanging && err != nil {
			t.Errorf("%s: %s %v", what, got, err)
		}
		wantNet, wantTimes := 0, 0
		switch what {
		case "action by action":
			wantNet, wantTimes = 1, 1
		case "compensation by action":
			wantTimes = 2
		}
		if net, times := d.did(t, "e"); net != wantNet || times != wantTimes {
			t.Errorf("%s: net %d after %d", what, net, times)
		}
	}
}

// holds runs what is to hold on any database, with each of the settings. With those named in locking a read locks, so that no call overtakes another.
func holds(t *testing.T, s *server, settings map[string]string, locking ...string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		for what, f := range map[string]func(*testing.T, *database){"duplicates": duplicates, "null": null, "failing": failing, "together": together, "apart": apart, "ending": ending} {
			t.Run(name+"/"+what, func(t *testing.T) { f(t, s.open(t, settings[name], nil)) })
			t.Run(name+"/"+what+", having read", func(t *testing.T) { f(t, s.open(t, settings[name], func() {})) })
		}
		if !slices.Contains(locking, name) {
			t.Run(name+"/overtaken", func(t *testing.T) { overtaken(t, s, settings[name]) })
		}
	}
	t.Run("made by many at once", func(t *testing.T) { made(t, s, s.dsn(t, "")) })
	t.Run("killed", func(t *testing.T) { killed(t, s) })
}

func databases(t *testing.T) {
	t.Helper()
	if os.Getenv("FAIRLEAD_DATABASES") == "" {
		t.Skip("make saga-databases starts real servers")
	}
}

func TestTheBarrierHoldsOnPostgreSQLAtEachIsolation(t *testing.T) {
	databases(t)
	holds(t, postgreSQL(t), map[string]string{
		"read committed":  "", // the default
		"repeatable read": "default_transaction_isolation='repeatable read'",
		"serializable":    "default_transaction_isolation='serializable'",
		"simple protocol": "default_query_exec_mode=simple_protocol", // as behind PgBouncer
	})
}

func TestTheBarrierHoldsOnMariaDBAtEachIsolation(t *testing.T) {
	databases(t)
	holds(t, mariaDB(t), map[string]string{
		"read committed":     "tx_isolation='READ-COMMITTED'",
		"repeatable read":    "", // the default
		"serializable":       "tx_isolation='SERIALIZABLE'",
		"snapshot isolation": "innodb_snapshot_isolation=1", // the default from 11.6.2 on
		"found rows":         "clientFoundRows=true",
		"MyISAM by default":  "default_storage_engine='MyISAM'", // which has no transactions
	}, "serializable")
}

func TestTheBarrierHoldsOnSQLiteAtEachKindOfTransaction(t *testing.T) {
	holds(t, sqlite(), map[string]string{"immediate": "&_txlock=immediate", "deferred": "&_txlock=deferred"}, "immediate")
}

const childEnv = "FAIRLEAD_BARRIER_CHILD"

// TestMain is a service in the middle of an action, too.
func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		fmt.Fprintln(os.Stderr, stuck(strings.Split(child, "\n")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// stuck acts upon step "f", and never ends: it says so once it has done everything but to commit.
func stuck(child []string) error {
	name, dsn, add, what := child[0], child[1], child[2], child[3]
	dialect, err := strconv.Atoi(child[4])
	if err != nil {
		return err
	}
	db, err := sql.Open(name, dsn)
	if err != nil {
		return err
	}
	_, err = barrier.New(db, barrier.Dialect(dialect)).Do(context.Background(), "saga/f/"+what, func(tx *sql.Tx) (any, error) {
		if _, err := tx.Exec(add, "f", 1); err != nil {
			return nil, err
		}
		fmt.Println("in the middle")
		select {}
	})
	return err
}

// killed: a service is killed in the middle of an action, then in the middle of its compensation. The next call does it, once.
func killed(t *testing.T, s *server) {
	t.Helper()
	dsn := s.dsn(t, "")
	d := prepare(t, s.connect(t, dsn), s.dialect)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for i, what := range []string{"action", "compensate"} {
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{s.driver, dsn, d.add, what, fmt.Sprint(int(s.dialect))}, "\n"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, readErr := bufio.NewReader(out).ReadString('\n')
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || readErr != nil {
			t.Fatalf("%q: %v %v\n%s", line, readErr, err, stderr.Bytes())
		}
		call := d.act
		if what == "compensate" {
			call = d.undo
		}
		for range 2 {
			if got, err := call(t.Context(), "f"); err != nil || got == nil {
				t.Errorf("%s: %s %v", what, got, err)
			}
		}
		if net, times := d.did(t, "f"); net != 1-i || times != 1+i {
			t.Errorf("%s: net %d after %d", what, net, times)
		}
	}
}
