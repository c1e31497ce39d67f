package saga

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"time"
)

// State is where a saga as a whole stands.
type State string

// The states of sagas.
const (
	Running      State = "running"      // goes forward
	Compensating State = "compensating" // what ran is being undone
	Completed    State = "completed"    // all is done
	Compensated  State = "compensated"  // all that ran is undone
	Parked       State = "parked"       // a person has to decide
)

// Ended reports whether nothing will happen any more.
func (s State) Ended() bool { return s == Completed || s == Compensated }

// StepState is where a step stands.
type StepState string

// The states of steps.
const (
	StepPending      StepState = "pending"      // has not begun
	StepRunning      StepState = "running"      // its action was, or is about to be, called
	StepDone         StepState = "done"         // its action is done
	StepRefused      StepState = "refused"      // its action surely has no effect
	StepCompensating StepState = "compensating" // its compensation was, or is about to be, called
	StepCompensated  StepState = "compensated"  // its action has no effect any more
	StepSkipped      StepState = "skipped"      // a person has said that it does not matter
)

// Progress is where a saga stands: what is stored of it with every transition. Times are Unix nanoseconds.
type Progress struct {
	State State `json:"state"`
	// From is where a parked saga goes on.
	From State `json:"from,omitempty"`
	// Reason says why the saga is compensating, compensated or parked, for people.
	Reason  string `json:"reason,omitempty"`
	Started int64  `json:"started"`
	Ended   int64  `json:"ended,omitempty"`
	// Trace is the traceparent of the span that the saga was started in: all its calls, whoever makes them, are of that trace. Empty: of none.
	Trace string `json:"trace,omitempty"`
	// Verbs counts what people did.
	Verbs int            `json:"verbs,omitempty"`
	Steps []StepProgress `json:"steps"`
}

// Shorten makes what is kept for people shorter: the longest timeline by its older half, else the longest text by a half, else a timeline is left out. It
// reports whether there was something to take away.
func (p *Progress) Shorten() bool {
	timeline, text := new(Timeline), &p.Reason
	for i := range p.Steps {
		if s := &p.Steps[i]; len(s.Timeline) > len(*timeline) {
			timeline = &s.Timeline
		}
		if s := &p.Steps[i]; len(s.Text) > len(*text) {
			text = &s.Text
		}
	}
	switch {
	case timeline.shorten():
	case *text != "":
		*text = cutTo(*text, len(*text)/2)
	case *timeline != "":
		*timeline = ""
	default:
		return false
	}
	return true
}

// Calling reports whether a call is intended of which it is not known here what came of it.
func (p *Progress) Calling() bool {
	for i := range p.Steps {
		if p.Steps[i].Calling {
			return true
		}
	}
	return false
}

// StepProgress is where a step stands. Its names in JSON are short, for there may be many, and they are written with every transition.
type StepProgress struct {
	State StepState `json:"s"`
	// Attempts counts the calls that were intended, of the action, and of the compensation.
	Attempts      int `json:"a,omitempty"`
	Compensations int `json:"c,omitempty"`
	// Failures counts those, of what is called now, that were neither done nor not yet.
	Failures int `json:"f,omitempty"`
	// Calling: a call is intended, and what came of it is not known here.
	Calling bool `json:"i,omitempty"`
	// Unknown: an earlier call of the action may have had an effect.
	Unknown bool `json:"u,omitempty"`
	// Next is when the next call is due.
	Next int64 `json:"n,omitempty"`
	// Text says what came of the last call that was not done.
	Text string `json:"t,omitempty"`
	// Timeline is what was called, and when.
	Timeline Timeline `json:"l,omitempty"`
}

// MaxTextBytes bounds reasons and texts; what is longer is cut. MaxProgressBytes bounds where a saga stands, as JSON: see Shorten.
const (
	MaxTextBytes     = 80
	MaxProgressBytes = 4 << 10
)

// Saga is a definition and where it stands. It is not safe for concurrent use.
type Saga struct {
	Definition *Definition
	Progress
	graph *graph
}

// Start returns a saga that begins at now. The definition has been checked.
func Start(d *Definition, now int64) *Saga {
	s := &Saga{Definition: d, graph: newGraph(d.Steps)}
	s.State, s.Started = Running, now
	s.Steps = make([]StepProgress, len(d.Steps))
	for i := range s.Steps {
		s.Steps[i].State = StepPending
	}
	return s
}

// Load returns a saga that was stored. Who did not make the calls that are intended in it goes on with Recover.
func Load(d *Definition, p Progress) (*Saga, error) {
	if len(p.Steps) != len(d.Steps) {
		return nil, fmt.Errorf("saga %s: its progress has %d steps, its definition %d", d.ID, len(p.Steps), len(d.Steps))
	}
	p.Steps = slices.Clone(p.Steps)
	return &Saga{Definition: d, Progress: p, graph: newGraph(d.Steps)}, nil
}

// CallRef names a call: which attempt at what of which step.
type CallRef struct {
	Step    int  // its place in the definition
	Undo    bool // the compensation, not the action
	Attempt int  // from 1
}

// IdempotencyKey is the same for all attempts at the action of a step, or at its compensation.
func (s *Saga) IdempotencyKey(c CallRef) string {
	what := "action"
	if c.Undo {
		what = "compensate"
	}
	return s.Definition.ID + "/" + s.Definition.Steps[c.Step].Name + "/" + what
}

// Call returns what is to be called, with its templates as they are.
func (s *Saga) Call(c CallRef) *Call {
	step := &s.Definition.Steps[c.Step]
	if c.Undo {
		return step.Compensate
	}
	return &step.Action
}

// Recover says that the calls which are intended were made by somebody who is gone: what came of them is unknown. They are due again.
// So are those that are due later than any pause is long, for whoever said so had another clock.
func (s *Saga) Recover(now int64) {
	for i := range s.Steps {
		p := &s.Steps[i]
		// A pause may have as much again added to it, as the participant asks.
		if p.Next-now > 2*int64(s.Definition.Steps[i].maxPause()) {
			p.Next = now
		}
		if !p.Calling {
			continue
		}
		p.Calling, p.Next = false, now
		p.Text = "the coordinator ended during the call"
		p.Timeline.lose()
		if p.State == StepRunning {
			p.Unknown = true
		}
	}
}

// Advance goes on as far as what is known allows, marks the calls that are due as intended, and returns them. They are to be made
// when the state is durable, and each is to be told to Settle. room is asked of each call whether it may be made now, and if so it is;
// else it stays due. nil: all may.
func (s *Saga) Advance(now int64, room func(CallRef) bool) []CallRef {
	switch refused := s.refused(); {
	case s.State != Running:
	case refused != "":
		s.turn("step " + refused + " is refused") // as a person has said of it
	case s.isLate(now) && !s.committed():
		s.turn("the deadline, " + time.Duration(s.Definition.Deadline).String() + ", has passed")
	}
	switch s.State {
	case Running:
		return s.forward(now, room)
	case Compensating:
		return s.back(now, room)
	default:
		return nil
	}
}

// isLate reports whether the deadline has passed.
func (s *Saga) isLate(now int64) bool {
	return s.Definition.Deadline > 0 && now-s.Started >= int64(s.Definition.Deadline)
}

// refused returns the name of a step that is refused, or nothing.
func (s *Saga) refused() string {
	for i := range s.Steps {
		if s.Steps[i].State == StepRefused {
			return s.Definition.Steps[i].Name
		}
	}
	return ""
}

// committed reports whether something has happened, or may have, that is never undone.
func (s *Saga) committed() bool {
	for i := range s.Steps {
		p := &s.Steps[i]
		if s.Definition.Steps[i].kind() != Compensatable &&
			(p.State == StepDone || p.State == StepSkipped || p.State == StepRunning && (p.Calling || p.Unknown)) {
			return true
		}
	}
	return false
}

// turn goes back from here on.
func (s *Saga) turn(why string) {
	s.State, s.From, s.Reason = Compensating, "", cut(why)
}

// park leaves the saga to people. Calls under way end, and what comes of them is noted.
func (s *Saga) park(why string) {
	s.From, s.State, s.Reason = s.State, Parked, cut(why)
}

func (s *Saga) forward(now int64, room func(CallRef) bool) (due []CallRef) {
	var done set
	for i := range s.Steps {
		if p := s.Steps[i].State; p == StepDone || p == StepSkipped {
			done |= 1 << i
		}
	}
	for _, i := range s.graph.order {
		p := &s.Steps[i]
		if p.State == StepPending && s.graph.before[i]&^done == 0 {
			p.State, p.Next = StepRunning, now
		}
		if c := (CallRef{Step: i, Attempt: p.Attempts + 1}); p.State == StepRunning && s.mayCall(c, now, room) {
			p.Attempts++
			due = append(due, s.intend(c, now))
		}
	}
	if bits.OnesCount64(uint64(done)) == len(s.Steps) {
		s.end(Completed, now)
	}
	return due
}

func (s *Saga) back(now int64, room func(CallRef) bool) (due []CallRef) {
	var settled set // those without an effect
	for _, i := range slices.Backward(s.graph.order) {
		p := &s.Steps[i]
		if p.State == StepRunning && !p.Calling && !p.Unknown {
			p.State = StepRefused // nothing of it has run, and nothing will
		}
		ran := p.State == StepDone || p.State == StepRunning && !p.Calling
		if ran && s.graph.behind[i]&^settled == 0 {
			p.State, p.Failures, p.Next = StepCompensating, 0, now
			if s.Definition.Steps[i].Compensate == nil {
				p.State = StepCompensated
			}
		}
		switch p.State {
		case StepPending, StepRefused, StepCompensated, StepSkipped:
			settled |= 1 << i
		case StepCompensating:
			if c := (CallRef{Step: i, Undo: true, Attempt: p.Compensations + 1}); s.mayCall(c, now, room) {
				p.Compensations++
				due = append(due, s.intend(c, now))
			}
		}
	}
	if bits.OnesCount64(uint64(settled)) == len(s.Steps) {
		s.end(Compensated, now)
	}
	return due
}

// mayCall reports whether a call is due, and there is room for it.
func (s *Saga) mayCall(c CallRef, now int64, room func(CallRef) bool) bool {
	p := &s.Steps[c.Step]
	return !p.Calling && p.Next <= now && (room == nil || room(c))
}

// intend marks a call as one that is to be made.
func (s *Saga) intend(c CallRef, now int64) CallRef {
	p := &s.Steps[c.Step]
	p.Calling = true
	p.Timeline.begin(c, time.Duration(now-s.Started))
	return c
}

func (s *Saga) end(state State, now int64) {
	s.State, s.Ended = state, now
}

// NextAt returns when Advance has something to do again though no call ends, behind a time; 0: never.
func (s *Saga) NextAt(behind int64) (at int64) {
	if s.State != Running && s.State != Compensating {
		return 0
	}
	earliest := func(t int64) {
		if t > behind && (at == 0 || t < at) {
			at = t
		}
	}
	if s.State == Running && s.Definition.Deadline > 0 && !s.committed() {
		earliest(s.Started + int64(s.Definition.Deadline))
	}
	for i := range s.Steps {
		p := &s.Steps[i]
		waits := s.State == Running && p.State == StepRunning || s.State == Compensating && p.State == StepCompensating
		if waits && !p.Calling {
			earliest(p.Next)
		}
	}
	return at
}

// Settle notes what came of a call that Advance returned. jitter is a random number from 0 to 1. It returns an error, and changes
// nothing, if the call is not the one that is under way.
func (s *Saga) Settle(c CallRef, o Outcome, now int64, jitter float64) error {
	if c.Step < 0 || c.Step >= len(s.Steps) {
		return fmt.Errorf("saga %s has no step %d", s.Definition.ID, c.Step)
	}
	p := &s.Steps[c.Step]
	attempts, state := p.Attempts, StepRunning
	if c.Undo {
		attempts, state = p.Compensations, StepCompensating
	}
	if !p.Calling || p.State != state || attempts != c.Attempt {
		return fmt.Errorf("saga %s: attempt %d at %s is not under way", s.Definition.ID, c.Attempt, s.IdempotencyKey(c))
	}
	p.Calling = false
	p.Timeline.end(o.Answer, time.Duration(now-s.Started))
	if o.Answer == AnswerDone {
		p.Text, p.Failures, p.Next = "", 0, 0
		p.State = StepDone
		if c.Undo {
			p.State = StepCompensated
		}
		return nil
	}
	p.Text = cut(o.Text)
	step := &s.Definition.Steps[c.Step]
	asked := now + int64(min(o.After, step.maxPause())) // the pause is behind it, so that all who are asked so do not come back at once
	if o.Answer == AnswerPending {
		p.Unknown = p.Unknown || !c.Undo
		p.Next = asked + int64(step.pause(1+min(p.Attempts+p.Compensations, 20), jitter))
		return nil
	}
	p.Failures++
	p.Next = asked + int64(step.pause(p.Failures, jitter))
	if c.Undo {
		if p.Failures >= step.attempts(true) {
			s.parkAt(c, "could not be undone")
		}
		return nil
	}
	refused := o.Answer == AnswerRefused && !p.Unknown // else an earlier attempt may have had an effect, whatever this one says
	p.Unknown = p.Unknown || o.Answer == AnswerUnknown
	s.failed(c, step, p, refused, o.Answer)
	return nil
}

// failed says what follows from an attempt at an action that was not done.
func (s *Saga) failed(c CallRef, step *Step, p *StepProgress, refused bool, answer Answer) {
	exhausted := p.Failures >= step.attempts(false)
	switch step.kind() {
	case Retriable:
		if exhausted {
			s.parkAt(c, "has to succeed, and did not")
		}
		return
	case Pivot:
		if exhausted && p.Unknown {
			s.parkAt(c, "may or may not have happened, and is never undone")
			return
		}
	case Compensatable:
		exhausted = exhausted || answer == AnswerRefused // with an unknown attempt before it
	}
	if refused {
		p.State = StepRefused
	}
	if !refused && !exhausted || s.State != Running {
		return
	}
	why := "failed " + strconv.Itoa(p.Failures) + " times"
	if answer == AnswerRefused {
		why = "is refused"
	}
	s.turn("step " + step.Name + " " + why + s.because(p))
}

// parkAt parks the saga for what became of a step.
func (s *Saga) parkAt(c CallRef, why string) {
	if s.State == Running || s.State == Compensating {
		s.park("step " + s.Definition.Steps[c.Step].Name + " " + why + s.because(&s.Steps[c.Step]))
	}
}

func (s *Saga) because(p *StepProgress) string {
	if p.Text == "" {
		return ""
	}
	return ": " + p.Text
}

// cut shortens a text for people to what is kept of it.
func cut(s string) string { return cutTo(s, MaxTextBytes) }

func cutTo(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := max(0, limit-len("…"))
	for n > 0 && s[n]&0xc0 == 0x80 { // not in the middle of a character
		n--
	}
	if n == 0 {
		return ""
	}
	return s[:n] + "…"
}
