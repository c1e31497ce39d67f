// Package barrier lets a service take part in sagas without doing anything twice, too late, or to no purpose: it remembers which
// calls were answered, in a table of the service's own database, within the transaction that the effect belongs to.
//
// # What can happen
//
// Calls of a saga come at least once. So an action may come again after it was done (a duplicate); a compensation may come for an action that
// never arrived (a null compensation); and such an action may arrive behind its compensation (hanging). A barrier answers the first by what was
// answered before, does nothing for the second, and refuses the third. That only holds if the effect is in the same
// transaction as the barrier: what a function does elsewhere, such as a call to another service, is done once or more.
//
// The scheme is dtm's sub-transaction barrier (https://en.dtm.pub/practice/barrier.html), with the answer stored.
//
// # Databases
//
// PostgreSQL, MariaDB and MySQL, and SQLite, through database/sql and whatever driver the service uses. No driver is linked.
package barrier

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Dialect is how a database wants to be spoken to.
type Dialect uint8

// The dialects.
const (
	PostgreSQL Dialect = iota + 1
	MySQL              // MariaDB, too
	SQLite
)

// Schema returns what makes the table, unless it is there: one statement, which replicas of a service may execute at the same time.
// Rows are small, and may be deleted once no saga calls again: after the coordinator's retention time.
func (d Dialect) Schema() string {
	text, key, engine := "TEXT", "VARCHAR(300)", ""
	if d == MySQL {
		// Nothing is left to the defaults of a server: those may hold Latin letters only, or have no transactions.
		text, key, engine = "MEDIUMTEXT CHARACTER SET utf8mb4", "VARCHAR(300) CHARACTER SET ascii COLLATE ascii_bin", " ENGINE=InnoDB" // case matters
	}
	create := "CREATE TABLE IF NOT EXISTS saga_barrier (step " + key + " NOT NULL, what VARCHAR(10) NOT NULL, by_what VARCHAR(10) NOT NULL, answer " + text +
		", created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (step, what))" + engine
	if d == PostgreSQL {
		// There, IF NOT EXISTS does not see a table that is being made: all but one would fail.
		return "DO $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('saga_barrier')); " + create + "; END $$"
	}
	return create
}

// The errors of Do.
var (
	// ErrUndone: the action has come behind its compensation, and must not be done any more. It is a refusal.
	ErrUndone = errors.New("barrier: the step was compensated before its action came")
	// ErrKey: the call has no key of a saga's.
	ErrKey = errors.New("barrier: the Idempotency-Key is not SAGA/STEP/action or SAGA/STEP/compensate, in up to 300 printable ASCII characters without spaces")

	errEnded = errors.New("barrier: the transaction has ended within the function, which has to return the errors of the database, and not to commit or roll back")
)

// Barrier is the table. It is safe for concurrent use.
type Barrier struct {
	db                        *sql.DB
	insert, selected, updated string
}

// New returns the barrier in a database, whose table is made by Dialect.Schema.
func New(db *sql.DB, d Dialect) *Barrier {
	b := &Barrier{db: db,
		insert:   "INSERT INTO saga_barrier (step, what, by_what) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
		selected: "SELECT by_what, answer FROM saga_barrier WHERE step = ? AND what = ?",
		updated:  "UPDATE saga_barrier SET answer = ? WHERE step = ? AND what = ?",
	}
	switch d {
	case PostgreSQL:
		b.insert, b.selected, b.updated = numbered(b.insert), numbered(b.selected), numbered(b.updated)
	case MySQL:
		b.insert = "INSERT IGNORE INTO saga_barrier (step, what, by_what) VALUES (?, ?, ?)"
		// Else a transaction that has read before would not see what another has written since.
		b.selected += " LOCK IN SHARE MODE"
	}
	return b
}

// numbered writes the places of a statement as PostgreSQL has them.
func numbered(statement string) string {
	var out strings.Builder
	n := 0
	for _, c := range statement {
		if c != '?' {
			out.WriteRune(c)
			continue
		}
		n++
		fmt.Fprintf(&out, "$%d", n)
	}
	return out.String()
}

const (
	action     = "action"
	compensate = "compensate"
)

// Do does what a call asks for, once. key is its Idempotency-Key. f is called within a transaction, unless the call was answered before, or is not to be
// done, and returns what is answered, which is stored as JSON. An error of f undoes the transaction, and is returned: the call may come again then.
// f has to return what the database says is wrong: upon some errors, such as MariaDB's of a deadlock, the transaction is over, and what is done behind
// them is not part of it. The tables that f changes need an engine with transactions.
//
// The answer is nil of a compensation of what was never done. ErrUndone is to be answered as a refusal (409). Other errors say
// nothing of what has happened, and are to be answered as failures (500), upon which the coordinator calls again.
func (b *Barrier) Do(ctx context.Context, key string, f func(tx *sql.Tx) (answer any, err error)) (json.RawMessage, error) {
	step, what, err := split(key)
	if err != nil {
		return nil, err
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing behind a commit
	answer, err := b.do(ctx, tx, step, what, f)
	if err != nil {
		return nil, err
	}
	return answer, tx.Commit()
}

func (b *Barrier) do(ctx context.Context, tx *sql.Tx, step, what string, f func(tx *sql.Tx) (any, error)) (json.RawMessage, error) {
	null := false
	if what == compensate {
		// An action that has not come yet is kept from being done.
		var err error
		if null, err = b.claim(ctx, tx, step, action, compensate); err != nil {
			return nil, err
		}
	}
	first, err := b.claim(ctx, tx, step, what, what)
	if err != nil {
		return nil, err
	}
	if !first {
		return b.answered(ctx, tx, step, what)
	}
	if null {
		return nil, nil
	}
	value, err := f(tx)
	if err != nil {
		return nil, err
	}
	if value == nil {
		_, err := b.answered(ctx, tx, step, what)
		if errors.Is(err, sql.ErrNoRows) {
			err = errEnded
		}
		return nil, err
	}
	answer, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	r, err := tx.ExecContext(ctx, b.updated, string(answer), step, what)
	if err != nil {
		return nil, err
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return nil, errors.Join(errEnded, err)
	}
	return answer, nil
}

// claim makes the row of a call, and reports whether it is new. It waits for a transaction that has made it and has not ended.
func (b *Barrier) claim(ctx context.Context, tx *sql.Tx, step, what, by string) (bool, error) {
	r, err := tx.ExecContext(ctx, b.insert, step, what, by)
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// answered returns what was answered to a call before.
func (b *Barrier) answered(ctx context.Context, tx *sql.Tx, step, what string) (json.RawMessage, error) {
	var by string
	var answer sql.NullString
	if err := tx.QueryRowContext(ctx, b.selected, step, what).Scan(&by, &answer); err != nil {
		return nil, err
	}
	if by != what {
		return nil, ErrUndone
	}
	if !answer.Valid {
		return nil, nil
	}
	return json.RawMessage(answer.String), nil
}

// split returns the step that a key names, and which of its calls.
func split(key string) (step, what string, err error) {
	at := strings.LastIndexByte(key, '/')
	if at <= 0 || strings.IndexByte(key, '/') == at || len(key) > 300 {
		return "", "", ErrKey
	}
	// MariaDB takes letters that its column does not have for "?", and spaces at the end for none.
	if strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", "", ErrKey
	}
	step, what = key[:at], key[at+1:]
	if what != action && what != compensate {
		return "", "", ErrKey
	}
	return step, what, nil
}
