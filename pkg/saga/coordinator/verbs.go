package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// The names of verbs.
const (
	Retry   = "retry"
	Resume  = "resume"
	Skip    = "skip"
	Resolve = "resolve"
	Abort   = "abort"
)

// Verb is what a person does to a saga. It is kept with it.
type Verb struct {
	// Name is Retry, Resume, Skip, Resolve or Abort.
	Name string `json:"verb"`
	// Step is of skip and resolve.
	Step string `json:"step,omitempty"`
	// As is of resolve: done, refused or compensated.
	As saga.StepState `json:"as,omitempty"`
	// By is who does it, and Note why, as they say; saga.MaxNameBytes and MaxNoteBytes at the most.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
	// At is when it was done. It is set where it is.
	At time.Time `json:"at"`
}

const (
	// MaxNoteBytes bounds a note.
	MaxNoteBytes = 1024
	// MaxVerbs is how many verbs a saga has at the most.
	MaxVerbs = 1000
)

// Do does to a saga what a person asks for, and returns when that is durable. Errors beside those of Start: ErrNotFound, and one that matches
// saga.ErrVerb if the saga is not in a state for it.
func (c *Coordinator) Do(ctx context.Context, id string, v Verb) error {
	if !slices.Contains([]string{Retry, Resume, Skip, Resolve, Abort}, v.Name) {
		return fmt.Errorf("%w: %q is none of retry, resume, skip, resolve, abort", saga.ErrVerb, v.Name)
	}
	if as := []saga.StepState{saga.StepDone, saga.StepRefused, saga.StepCompensated}; v.Name == Resolve && !slices.Contains(as, v.As) {
		return fmt.Errorf("%w %s: a step is resolved as done, refused or compensated, not as %q", saga.ErrVerb, id, v.As)
	}
	if len(v.By) > saga.MaxNameBytes || len(v.Note) > MaxNoteBytes {
		return fmt.Errorf("%w: by has at most %d bytes, note %d", saga.ErrVerb, saga.MaxNameBytes, MaxNoteBytes)
	}
	return c.ask(ctx, id, func(o *owner, answer func(error)) { o.do(id, v, answer) })
}

// do does it now, or once the saga is live.
func (o *owner) do(id string, v Verb, answer func(error)) {
	e := o.find(id)
	switch {
	case e == nil:
		answer(fmt.Errorf("%w: %s", ErrNotFound, id))
	case e.live == nil && e.state.Ended():
		answer(fmt.Errorf("%w %s: it is %s", saga.ErrVerb, id, e.state))
	case e.live == nil:
		e.later = append(e.later, func() { o.apply(e, v, answer) })
		o.read(e)
	default:
		o.apply(e, v, answer)
	}
}

// apply does it to a saga that is live.
func (o *owner) apply(e *entry, v Verb, answer func(error)) {
	if !e.pending.hasRoom() {
		e.later = append(e.later, func() { o.apply(e, v, answer) })
		return
	}
	s := e.live.saga
	if s.Verbs >= MaxVerbs {
		answer(fmt.Errorf("%w %s: %d verbs were done to it, and no more are kept", saga.ErrVerb, e.id, s.Verbs))
		return
	}
	if err := act(s, v, o.now()); err != nil {
		answer(err)
		return
	}
	o.log.Info("a person has decided", "saga", e.id, "verb", v.Name, "step", v.Step, "as", v.As, "by", v.By, "note", v.Note)
	s.Verbs++
	v.At = time.Now().UTC()
	text, err := json.Marshal(v)
	if err != nil {
		answer(err)
		return
	}
	if e.pending.verbs == nil {
		e.pending.verbs = map[int][]byte{}
	}
	e.pending.verbs[s.Verbs] = text
	e.pending.told = append(e.pending.told, answer)
	o.advance(e)
}

func act(s *saga.Saga, v Verb, now int64) error {
	switch v.Name {
	case Retry:
		return s.Retry(now)
	case Resume:
		return s.Resume(now)
	case Skip:
		return s.Skip(v.Step)
	case Resolve:
		return s.Resolve(v.Step, v.As)
	default: // Abort
		why := "aborted"
		if v.By != "" {
			why += " by " + v.By
		}
		if v.Note != "" {
			why += ": " + v.Note
		}
		return s.Abort(why)
	}
}

// Verbs returns what people did to a saga, in order, whoever owns its shard.
func (c *Coordinator) Verbs(ctx context.Context, id string) ([]Verb, error) {
	texts, err := c.reader(id).Verbs(ctx, id)
	if err != nil {
		return nil, err
	}
	verbs := make([]Verb, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal(text, &verbs[i]); err != nil {
			return nil, fmt.Errorf("verb %d of saga %s: %w", i+1, id, err)
		}
	}
	return verbs, nil
}
