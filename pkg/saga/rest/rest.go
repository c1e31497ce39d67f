// Package rest is the API of sagas as JSON over HTTP.
//
//	POST /v1/sagas                     starts one: its definition, as package saga has it
//	GET  /v1/sagas?state=&label=K=V&after=&limit=
//	GET  /v1/sagas/ID
//	GET  /v1/sagas/ID:wait?timeout=30s until it has ended or is parked
//	POST /v1/sagas/ID:VERB             retry, resume, skip, resolve, abort; {"step","as","by","note"}
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/saga/internal/exactjson"
)

// Handler serves the API of sagas.
type Handler struct {
	sagas   coordinator.Sagas
	mux     *http.ServeMux
	waiting chan struct{} // has one of each request that waits
}

// maxWaiting bounds the requests that wait, each of which keeps a connection, so that there are some for others: the control plane takes 9,000.
const maxWaiting = 6000

// New returns the API of sagas.
func New(s coordinator.Sagas) *Handler {
	h := &Handler{s, http.NewServeMux(), make(chan struct{}, maxWaiting)}
	h.mux.HandleFunc("/v1/sagas", h.all)
	h.mux.HandleFunc("/v1/sagas/{saga}", h.one)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusNotFound, nothingThere) })
	return h
}

const nothingThere = "there is nothing at this path: /openapi.json says what there is"

// all serves what is about all sagas.
func (h *Handler) all(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		if checkQuery(w, r) {
			h.start(w, r)
		}
	case http.MethodGet, http.MethodHead:
		if checkQuery(w, r, "state", "label", "limit", "after") {
			h.list(w, r)
		}
	default:
		failMethod(w, r, "GET, HEAD, POST")
	}
}

// one serves what is about one.
func (h *Handler) one(w http.ResponseWriter, r *http.Request) {
	id, verb, said := strings.Cut(r.PathValue("saga"), ":")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case !saga.IsName(id):
		fail(w, http.StatusNotFound, fmt.Sprintf("there is no saga with this id: %.150q is none", id))
	case verb == "wait" || !said:
		var known []string
		if said {
			known = []string{"timeout"}
		}
		switch {
		case !reads:
			failMethod(w, r, "GET, HEAD")
		case !checkQuery(w, r, known...):
		case said:
			h.wait(w, r, id)
		default:
			h.show(w, r.Context(), id, nil)
		}
	case !slices.Contains([]string{"retry", "resume", "skip", "resolve", "abort"}, verb):
		fail(w, http.StatusNotFound, fmt.Sprintf("%.50q is none of wait, retry, resume, skip, resolve, abort", verb))
	case r.Method != http.MethodPost:
		failMethod(w, r, "POST")
	case checkQuery(w, r):
		h.do(w, r, id, verb)
	}
}

// checkQuery refuses parameters that nobody would look at: a misspelt filter must not match everything. It reports whether there are none.
func checkQuery(w http.ResponseWriter, r *http.Request, known ...string) bool {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, "the query cannot be read: "+err.Error())
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case len(known) == 0:
			fail(w, http.StatusBadRequest, fmt.Sprintf("unknown parameter %.70q: there are none here", name))
		case !slices.Contains(known, name):
			fail(w, http.StatusBadRequest, fmt.Sprintf("unknown parameter %.70q: there are %s", name, strings.Join(known, ", ")))
		case len(values[name]) > 1:
			fail(w, http.StatusBadRequest, fmt.Sprintf("parameter %q is given %d times", name, len(values[name])))
		default:
			continue
		}
		return false
	}
	return true
}

// failMethod says which methods there are (RFC 9110 §15.5.6).
func failMethod(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("this path does not take %.20q: it takes %s", r.Method, allow))
}

// read reads a body of at most so many bytes, or answers why not.
func read(w http.ResponseWriter, r *http.Request, limit int64) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than the %d bytes it has at most", limit))
	case err != nil: // the client is gone, or its framing is wrong: it must not be told 200
		fail(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
	}
	return body, err == nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// step is a step as it is shown.
type step struct {
	Name          string          `json:"name"`
	State         saga.StepState  `json:"state"`
	Kind          saga.Kind       `json:"kind,omitempty"`
	Attempts      int             `json:"attempts"`
	Compensations int             `json:"compensations,omitempty"`
	Next          *time.Time      `json:"next,omitempty"`
	Text          string          `json:"text,omitempty"`
	Result        json.RawMessage `json:"result,omitempty"`
	Timeline      []attempt       `json:"timeline,omitempty"`
}

// attempt is a call as it is shown. Took and Answer are there once it has ended; Took only if that was seen by who made it.
type attempt struct {
	Call    string      `json:"call"` // action or compensate
	Attempt int         `json:"attempt"`
	At      time.Time   `json:"at"`
	Took    string      `json:"took,omitempty"`
	Answer  saga.Answer `json:"answer,omitempty"`
}

// timelineOf returns the calls of a step of a saga that was started at a time.
func timelineOf(t saga.Timeline, started int64) []attempt {
	calls, _ := t.Attempts() // what cannot be read of it is missing, and nothing else
	out := make([]attempt, 0, len(calls))
	for _, c := range calls {
		a := attempt{Call: "action", Attempt: c.Attempt, At: time.Unix(0, started).Add(c.At).UTC().Truncate(time.Millisecond), Answer: c.Answer}
		if c.Undo {
			a.Call = "compensate"
		}
		if c.Took > 0 {
			a.Took = c.Took.String()
		}
		out = append(out, a)
	}
	return out
}

// view is a saga as it is shown.
type view struct {
	ID      string             `json:"id"`
	State   saga.State         `json:"state"`
	Reason  string             `json:"reason,omitempty"`
	Labels  map[string]string  `json:"labels,omitempty"`
	Started time.Time          `json:"started"`
	Ended   *time.Time         `json:"ended,omitempty"`
	Steps   []step             `json:"steps"`
	Verbs   []coordinator.Verb `json:"verbs,omitempty"`
}

func at(ns int64) *time.Time {
	if ns == 0 {
		return nil
	}
	t := time.Unix(0, ns).UTC()
	return &t
}

func viewOf(v *coordinator.View, verbs []coordinator.Verb) view {
	out := view{ID: v.Definition.ID, State: v.State, Reason: v.Reason, Labels: v.Definition.Labels, Started: time.Unix(0, v.Started).UTC(), Ended: at(v.Ended), Verbs: verbs}
	for i, p := range v.Steps {
		d := &v.Definition.Steps[i]
		s := step{Name: d.Name, State: p.State, Kind: d.Kind, Attempts: p.Attempts, Compensations: p.Compensations, Text: p.Text, Result: v.Results[d.Name],
			Timeline: timelineOf(p.Timeline, v.Started)}
		if p.State == saga.StepRunning || p.State == saga.StepCompensating {
			s.Next = at(p.Next)
		}
		out.Steps = append(out.Steps, s)
	}
	return out
}

func (h *Handler) start(w http.ResponseWriter, r *http.Request) {
	body, ok := read(w, r, saga.MaxDefinitionBytes)
	if !ok {
		return
	}
	d, err := saga.ParseDefinition(body)
	if err != nil {
		fail(w, http.StatusBadRequest, "the definition cannot be read: "+err.Error())
		return
	}
	var v *coordinator.View
	err = bounded(r.Context(), func(ctx context.Context) error {
		v, err = h.sagas.Start(ctx, d)
		return err
	})
	if err != nil {
		failFor(w, err)
		return
	}
	h.show(w, r.Context(), d.ID, v)
}

// patience bounds how long who starts a saga, or decides, waits for that to be durable.
const patience = 10 * time.Second

// errSlow is of what is not durable by then.
var errSlow = fmt.Errorf("the store of sagas has not taken it within %v, and may yet: ask again, or see whether it was done", patience)

// bounded calls f with patience.
func bounded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errSlow)
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// show answers with a saga: v, or as Get has it.
func (h *Handler) show(w http.ResponseWriter, ctx context.Context, id string, v *coordinator.View) { //nolint:revive // w comes first in handlers
	var err error
	if v == nil {
		if v, err = h.sagas.Get(ctx, id); err != nil {
			failFor(w, err)
			return
		}
	}
	var verbs []coordinator.Verb
	if v.Verbs > 0 {
		if verbs, err = h.sagas.Verbs(ctx, id); err != nil {
			failFor(w, err)
			return
		}
	}
	answer(w, http.StatusOK, viewOf(v, verbs))
}

// wait waits for a saga to end, or be parked, or for the time to be over, and shows it.
func (h *Handler) wait(w http.ResponseWriter, r *http.Request, id string) {
	timeout := coordinator.DefaultWait
	if q := r.URL.Query(); q.Has("timeout") {
		s := q.Get("timeout")
		var err error
		if timeout, err = time.ParseDuration(s); err != nil || timeout < 0 || timeout > coordinator.MaxWait {
			fail(w, http.StatusBadRequest, fmt.Sprintf("timeout: %.50q is not 0s to %v", s, coordinator.MaxWait))
			return
		}
	}
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests wait already, and more may not: ask again, or ask for the saga without :wait", maxWaiting))
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + 30*time.Second)) // where it can be set
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	v, err := h.sagas.Wait(ctx, id)
	switch {
	case err != nil && ctx.Err() == nil:
		failFor(w, err)
	case r.Context().Err() == nil:
		h.show(w, r.Context(), id, v)
	}
}

// maxVerb bounds what a person says.
const maxVerb = 16 << 10

// verb is what a person says.
type verb struct {
	Step string         `json:"step"`
	As   saga.StepState `json:"as"`
	By   string         `json:"by"`
	Note string         `json:"note"`
}

// check returns what is wrong with a verb of a name; empty: nothing.
func (v *verb) check(name string) string {
	results := []saga.StepState{saga.StepDone, saga.StepRefused, saga.StepCompensated}
	switch ofStep := name == "skip" || name == "resolve"; {
	case ofStep && v.Step == "":
		return "step is required: " + name + " is of a step"
	case !ofStep && v.Step != "":
		return "step is of skip and resolve: " + name + " is of the whole saga"
	case name == "resolve" && !slices.Contains(results, v.As):
		return fmt.Sprintf("as is %.50q: say done, refused or compensated", v.As)
	case name != "resolve" && v.As != "":
		return "as is of resolve"
	case len(v.By) > saga.MaxNameBytes || len(v.Note) > coordinator.MaxNoteBytes:
		return fmt.Sprintf("by has at most %d bytes, note %d", saga.MaxNameBytes, coordinator.MaxNoteBytes)
	}
	return ""
}

func (h *Handler) do(w http.ResponseWriter, r *http.Request, id, name string) {
	body, ok := read(w, r, maxVerb)
	if !ok {
		return
	}
	var v verb
	if len(body) > 0 {
		if err := exactjson.Unmarshal(body, &v); err != nil {
			fail(w, http.StatusBadRequest, "the verb cannot be read: "+err.Error())
			return
		}
	}
	if wrong := v.check(name); wrong != "" {
		fail(w, http.StatusBadRequest, wrong)
		return
	}
	err := bounded(r.Context(), func(ctx context.Context) error {
		return h.sagas.Do(ctx, id, coordinator.Verb{Name: name, Step: v.Step, As: v.As, By: v.By, Note: v.Note})
	})
	if err != nil {
		failFor(w, err)
		return
	}
	h.show(w, r.Context(), id, nil)
}

// page is a page of a list.
type page struct {
	Sagas []coordinator.Summary `json:"sagas"`
	// After is to be given to have the next one.
	After string `json:"after,omitempty"`
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	query := coordinator.Query{After: q.Get("after")}
	var err error
	query.State, err = coordinator.ParseState(q.Get("state"))
	if err == nil && query.State == "" && q.Has("state") {
		err = errors.New("state is empty: leave it out for sagas in all states")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if q.Has("label") {
		var ok bool
		if query.Label, query.Value, ok = strings.Cut(q.Get("label"), "="); !ok || query.Label == "" {
			fail(w, http.StatusBadRequest, "label is not NAME=VALUE")
			return
		}
	}
	if q.Has("limit") {
		if query.Limit, err = strconv.Atoi(q.Get("limit")); err != nil || query.Limit < 1 || query.Limit > coordinator.MaxPage {
			fail(w, http.StatusBadRequest, fmt.Sprintf("limit is not 1 to %d", coordinator.MaxPage))
			return
		}
	}
	sagas, more, err := h.sagas.List(r.Context(), query)
	if err != nil {
		failFor(w, err)
		return
	}
	out := page{Sagas: sagas}
	if out.Sagas == nil {
		out.Sagas = []coordinator.Summary{}
	}
	if more {
		out.After = sagas[len(sagas)-1].ID
	}
	answer(w, http.StatusOK, out)
}

// failFor answers an error of the coordinator.
func failFor(w http.ResponseWriter, err error) {
	var faults saga.Faults
	switch {
	case errors.As(err, &faults):
		refuse(w, failure{Code: http.StatusBadRequest, Message: err.Error(), Faults: faultsOf(faults)})
	case errors.Is(err, coordinator.ErrNotFound):
		fail(w, http.StatusNotFound, err.Error())
	case errors.Is(err, coordinator.ErrConflict), errors.Is(err, saga.ErrVerb):
		fail(w, http.StatusConflict, err.Error())
	case errors.Is(err, coordinator.ErrFull):
		w.Header().Set("Retry-After", "10")
		fail(w, http.StatusTooManyRequests, err.Error())
	default: // also of an owner that ends: who is gone does not read it
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, err.Error())
	}
}

// failure is an answer that is no.
type failure struct {
	// Code is the status.
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Faults are what is wrong with a definition, one by one. They are in the message, too.
	Faults []fault `json:"faults,omitempty"`
}

type fault struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

func faultsOf(all saga.Faults) []fault {
	faults := make([]fault, len(all))
	for i, f := range all {
		faults[i] = fault(f)
	}
	return faults
}

// fail answers with an error.
func fail(w http.ResponseWriter, status int, text string) {
	refuse(w, failure{Code: status, Message: text})
}

func refuse(w http.ResponseWriter, f failure) { answer(w, f.Code, f) }

func answer(w http.ResponseWriter, status int, v any) {
	b, err := saga.Marshal(v) // results as they came
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n'))
}
