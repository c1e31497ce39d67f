package saga

import (
	"errors"
	"fmt"
)

// ErrVerb is of what a person asks of a saga that is not in a state for it.
var ErrVerb = errors.New("saga")

func (s *Saga) not(format string, args ...any) error {
	return fmt.Errorf("%w %s: "+format, append([]any{ErrVerb, s.Definition.ID}, args...)...)
}

// Retry calls again, at once, whatever waits to be called, with all its attempts before it. A parked saga goes on.
func (s *Saga) Retry(now int64) error {
	if s.State.Ended() {
		return s.not("it is %s, and nothing is left to be tried", s.State)
	}
	if s.State == Parked {
		return s.Resume(now)
	}
	s.refresh(now)
	return nil
}

// Resume goes on with a parked saga, where it was.
func (s *Saga) Resume(now int64) error {
	if s.State != Parked {
		return s.not("it is %s, not parked", s.State)
	}
	s.State, s.From = s.From, ""
	if s.State == Running {
		s.Reason = ""
	}
	s.refresh(now)
	return nil
}

func (s *Saga) refresh(now int64) {
	for i := range s.Steps {
		if p := &s.Steps[i]; p.State == StepRunning || p.State == StepCompensating {
			p.Failures, p.Next = 0, now
		}
	}
}

// Skip says that a step does not matter: neither its action nor its compensation is called from here on. A parked saga stays parked
// until Resume.
func (s *Saga) Skip(name string) error {
	p, err := s.still(name)
	if err != nil {
		return err
	}
	switch p.State {
	case StepCompensated, StepSkipped:
		return s.not("step %s is %s already", name, p.State)
	case StepDone:
		if s.direction() == Running {
			return s.not("step %s is done already", name)
		}
	}
	p.State, p.Failures, p.Next, p.Unknown = StepSkipped, 0, 0, false
	return nil
}

// Resolve says what became of a step that a person has looked after: StepDone, StepRefused or StepCompensated. A parked saga stays
// parked until Resume.
func (s *Saga) Resolve(name string, as StepState) error {
	p, err := s.still(name)
	if err != nil {
		return err
	}
	kind := s.Definition.Steps[s.place(name)].kind()
	switch as {
	case StepDone:
		if p.State == StepCompensated || p.State == StepCompensating {
			return s.not("step %s is %s: say compensated, or skip it", name, p.State)
		}
		if s.direction() == Compensating && kind != Compensatable {
			return s.not("it is being undone, and a %s is never undone: skip step %s if it was done", kind, name)
		}
	case StepRefused:
		if p.State != StepPending && p.State != StepRunning && p.State != StepRefused {
			return s.not("step %s is %s, and so was not refused", name, p.State)
		}
		if kind == Retriable {
			return s.not("step %s is retriable: it comes behind what cannot be undone, and so has to be done, or skipped", name)
		}
	case StepCompensated:
		if s.direction() != Compensating {
			return s.not("it goes forward, and nothing is undone: abort it first, or say refused of the step")
		}
	default:
		return s.not("a step is resolved as done, refused or compensated, not as %q", as)
	}
	p.State, p.Failures, p.Next, p.Unknown = as, 0, 0, false
	return nil
}

// Abort goes back, as long as nothing has happened, or may have, that cannot be undone.
func (s *Saga) Abort(why string) error {
	switch {
	case s.State.Ended():
		return s.not("it is %s", s.State)
	case s.direction() == Compensating:
		return s.not("it is being undone already")
	case s.committed():
		return s.not("its pivot is done, or may be, and from there on it only goes forward: resolve that step as refused if it was")
	}
	s.turn(why)
	return nil
}

// direction is where the saga goes, or will when it is resumed.
func (s *Saga) direction() State {
	if s.State == Parked {
		return s.From
	}
	return s.State
}

func (s *Saga) place(name string) int {
	for i := range s.Definition.Steps {
		if s.Definition.Steps[i].Name == name {
			return i
		}
	}
	return -1
}

// still returns a step of which no call is under way.
func (s *Saga) still(name string) (*StepProgress, error) {
	if s.State.Ended() {
		return nil, s.not("it is %s", s.State)
	}
	i := s.place(name)
	if i < 0 {
		return nil, s.not("it has no step %q", name)
	}
	if s.Steps[i].Calling {
		return nil, s.not("a call of step %s is under way: ask again when it has ended", name)
	}
	return &s.Steps[i], nil
}
