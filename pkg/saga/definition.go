package saga

import (
	"bytes"
	"encoding/json"
	"time"
)

// Kind is what can become of a step once its action is done.
type Kind string

// The kinds of steps. Every compensatable step is an ancestor of the pivot, every retriable one a descendant of it.
const (
	// Compensatable can be undone. It is what a step is of which nothing is said.
	Compensatable Kind = "compensatable"
	// Pivot decides: once it is done, or may be, the saga only goes forward. There is one at the most.
	Pivot Kind = "pivot"
	// Retriable comes behind the decision, is not undone, and so has to succeed at some time.
	Retriable Kind = "retriable"
)

// Definition is a saga as its client submits it. It is not changed once it was taken.
type Definition struct {
	// ID is chosen by the client, and makes starting idempotent. See MaxNameBytes.
	ID string `json:"id"`
	// Deadline is how long the saga may take until its pivot is done, counted from its start; then what was done is undone. 0:
	// as long as its steps' attempts take. What comes behind the pivot has no deadline.
	Deadline Duration `json:"deadline,omitempty"`
	// Labels are for those who look for sagas.
	Labels map[string]string `json:"labels,omitempty"`
	// Steps are at least one. If none says After, each comes after the one before it.
	Steps []Step `json:"steps"`
}

// Step is one action of a saga, and what undoes it.
type Step struct {
	// Name is unique in its saga.
	Name string `json:"name"`
	// After names the steps that have to be done before. Where any step of the saga has it, though it be empty, one without comes after none.
	After []string `json:"after,omitzero"`
	// Kind is Compensatable if it is empty.
	Kind Kind `json:"kind,omitempty"`
	// Action is what is called. Required.
	Action Call `json:"action"`
	// Compensate undoes the action, also one that never ran: nil if there is nothing to undo. Only compensatable steps have one.
	Compensate *Call `json:"compensate,omitempty"`
	// Timeout is how long an attempt may take, of the action or the compensation: 10 ms to 15 min, 10 s by default.
	Timeout Duration `json:"timeout,omitempty"`
	// Retry is how often, and after what pauses.
	Retry Retry `json:"retry,omitzero"`
}

// Call is a request to a service: over HTTP, with a method and a path, or over gRPC, with the name of an operation.
type Call struct {
	// Service is a name of the mesh, such as orders or orders.shop. Required.
	Service string `json:"service"`
	// Method is POST if it is empty.
	Method string `json:"method,omitempty"`
	// Path begins with a slash, and may have a query. It may have templates, whose values are percent-encoded. Required over HTTP.
	Path string `json:"path,omitempty"`
	// GRPC names an operation of a service that is a saga.v1.Participant, in place of Method and Path: see MaxNameBytes.
	GRPC string `json:"grpc,omitempty"`
	// Headers may have templates as values. Over gRPC they are metadata.
	Headers map[string]string `json:"headers,omitempty"`
	// Body is JSON, in which strings may have templates. Nothing is sent if it is empty.
	Body json.RawMessage `json:"body,omitempty"`
	// Statuses says what statuses mean where it is not what HTTPAnswer and GRPCAnswer say: "404": "done" over HTTP, "NOT_FOUND": "done" over gRPC.
	Statuses map[string]Answer `json:"statuses,omitempty"`
}

// Retry is how a call is tried again whose outcome is unknown, or that surely did not run. The pause before attempt n+1 is drawn
// evenly from 0 to min(Max, Backoff · 2ⁿ⁻¹): exponential back-off with full jitter (M. Brooker: Exponential Backoff And Jitter, 2015). If the participant asks
// for time (Outcome.After), it comes behind that, or behind Max, if that is less.
type Retry struct {
	// Attempts is how many calls may fail, 1 to 1000. By default an action that can be undone has 5, others, and compensations,
	// which have to succeed, 25. Behind the last the step has failed, or the saga is parked.
	Attempts int `json:"attempts,omitempty"`
	// Backoff is 1 ms to 1 h, 100 ms by default.
	Backoff Duration `json:"backoff,omitempty"`
	// Max is at least Backoff, and 24 h at the most; 30 s by default, or Backoff if that is more.
	Max Duration `json:"max,omitempty"`
}

// Duration is a time.Duration that JSON has as time.ParseDuration reads it, such as "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// The defaults of what a step does not say.
const (
	defaultTimeout      = 10 * time.Second
	defaultAttempts     = 5
	defaultMustAttempts = 25
	defaultBackoff      = 100 * time.Millisecond
	defaultMaxBackoff   = 30 * time.Second
)

// kind returns what the step is, with the default.
func (s *Step) kind() Kind {
	if s.Kind == "" {
		return Compensatable
	}
	return s.Kind
}

// CallTimeout returns how long an attempt may take.
func (s *Step) CallTimeout() time.Duration {
	if s.Timeout == 0 {
		return defaultTimeout
	}
	return time.Duration(s.Timeout)
}

// attempts returns how many calls may fail: of the compensation, or of the action.
func (s *Step) attempts(undo bool) int {
	switch {
	case s.Retry.Attempts != 0:
		return s.Retry.Attempts
	case undo || s.kind() != Compensatable:
		return defaultMustAttempts
	default:
		return defaultAttempts
	}
}

func (s *Step) backoff() time.Duration {
	if s.Retry.Backoff == 0 {
		return defaultBackoff
	}
	return time.Duration(s.Retry.Backoff)
}

// maxPause bounds a pause, and what is added to one because the participant asks for it.
func (s *Step) maxPause() time.Duration {
	if s.Retry.Max == 0 {
		return max(defaultMaxBackoff, s.backoff())
	}
	return time.Duration(s.Retry.Max)
}

// pause returns how long to wait behind so many failed calls. jitter is 0 to 1.
func (s *Step) pause(failures int, jitter float64) time.Duration {
	base, limit := s.backoff(), s.maxPause()
	for range failures - 1 {
		if base *= 2; base >= limit {
			break
		}
	}
	return time.Duration(jitter * float64(min(base, limit)))
}

// Marshal returns a definition, or a call, in JSON as it is stored: without white space, and else, in bodies too, with each character as it came.
func Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
