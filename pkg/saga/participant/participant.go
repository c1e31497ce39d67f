// Package participant makes an HTTP service of functions that do and undo what the steps of sagas ask for. Package rpc below it makes a service of gRPC of them.
//
//	p := participant.New(barrier.New(db, barrier.PostgreSQL))
//	p.Handle("reserve", reserve, release)
//	http.Handle("/saga/", http.StripPrefix("/saga", p))
//
// makes POST /saga/reserve the action and POST /saga/reserve/undo the compensation of a step. Each call is answered as package coordinator
// understands it: 200 with what the function returned, 409 with the text of a Refusal, 500 for any other error, upon which it comes again.
package participant

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
)

// Refusal is an error that says that an action was not done, and will not be. Its text is answered, and read by people.
type Refusal string //nolint:errname // it is first of all a refusal, and reads as one: participant.Refusal

// Error implements error.
func (r Refusal) Error() string { return string(r) }

// Func does or undoes a step, within a transaction: what it does through tx happens exactly once, however often it is called.
// body is what the definition says, with results filled in. What it returns is the step's result, JSON; nil: none.
type Func func(ctx context.Context, tx *sql.Tx, body json.RawMessage) (result any, err error)

// Participant is an http.Handler. Handle is to be called before it serves.
type Participant struct {
	barrier *barrier.Barrier
	mux     *http.ServeMux
	steps   map[string]step
}

type step struct{ do, undo Func }

// New returns a Participant whose functions run behind a barrier.
func New(b *barrier.Barrier) *Participant {
	return &Participant{b, http.NewServeMux(), map[string]step{}}
}

// Handle serves a step: do at POST /name, and undo, unless it is nil, at POST /name/undo. Over gRPC, name is its operation.
func (p *Participant) Handle(name string, do, undo Func) {
	p.steps[name] = step{do, undo}
	p.mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, do) })
	if undo != nil {
		p.mux.HandleFunc("POST /"+name+"/undo", func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, undo) })
	}
}

// ErrNoOperation is of a step that is not handled, or not undone, here.
var ErrNoOperation = errors.New("participant: there is no such operation here")

// Call does, or undoes, a step that is handled, as ServeHTTP does, for who has the call in another form. key is the idempotency key. Its error is a
// Refusal, ErrNoOperation, one of package barrier, or any other, upon which the call comes again. A result of nil is none.
func (p *Participant) Call(ctx context.Context, name string, undo bool, key string, body json.RawMessage) (result json.RawMessage, err error) {
	f := p.steps[name].do
	if undo {
		f = p.steps[name].undo
	}
	if f == nil {
		return nil, ErrNoOperation
	}
	return p.call(ctx, f, key, body)
}

func (p *Participant) call(ctx context.Context, f Func, key string, body json.RawMessage) (json.RawMessage, error) {
	return p.barrier.Do(ctx, key, func(tx *sql.Tx) (any, error) { return f(ctx, tx, body) })
}

// ServeHTTP implements http.Handler.
func (p *Participant) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// maxBody bounds what is read of a call, as the coordinator does.
const maxBody = 32 << 10

func (p *Participant) serve(w http.ResponseWriter, r *http.Request, f Func) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	result, err := p.call(r.Context(), f, r.Header.Get("Idempotency-Key"), body)
	var refusal Refusal
	switch {
	case err == nil && result == nil:
		w.WriteHeader(http.StatusNoContent)
	case err == nil:
		answer(w, http.StatusOK, result)
	case errors.As(err, &refusal), errors.Is(err, barrier.ErrUndone):
		answer(w, http.StatusConflict, map[string]string{"error": err.Error()})
	case errors.Is(err, barrier.ErrKey):
		answer(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
	default:
		answer(w, http.StatusInternalServerError, map[string]string{"error": err.Error()})
	}
}

func answer(w http.ResponseWriter, status int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
