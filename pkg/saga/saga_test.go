package saga_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

// script drives a saga by words: "a=done" settles the action of step a, "a'=unknown" its compensation, "+2s" lets time pass,
// "!abort" is a verb, "recover" is a crash. Behind each word, what is due is called.
type script struct {
	t   *testing.T
	s   *saga.Saga
	now int64
	due map[string]saga.CallRef
}

func newScript(t *testing.T, d *saga.Definition) *script {
	t.Helper()
	sc := &script{t: t, now: 1, s: saga.Start(d, 1), due: map[string]saga.CallRef{}}
	sc.advance()
	return sc
}

func (sc *script) advance() {
	for _, c := range sc.s.Advance(sc.now, nil) {
		name := sc.s.Definition.Steps[c.Step].Name
		if c.Undo {
			name += "'"
		}
		if _, twice := sc.due[name]; twice {
			sc.t.Fatalf("%s is called twice at once", name)
		}
		sc.due[name] = c
	}
}

func (sc *script) do(words string) {
	sc.t.Helper()
	for word := range strings.FieldsSeq(words) {
		call, answer, isCall := strings.Cut(word, "=")
		var err error
		switch {
		case isCall:
			c, ok := sc.due[call]
			if !ok {
				sc.t.Fatalf("%s: %s is not called; called are %v: %s", words, call, sc.due, sc)
			}
			delete(sc.due, call)
			err = sc.s.Settle(c, saga.Outcome{Answer: saga.Answer(answer), Text: answer}, sc.now, 1)
		case word == "recover":
			clear(sc.due)
			sc.s.Recover(sc.now)
		case word[0] == '+':
			pause, e := time.ParseDuration(word[1:])
			err = e
			sc.now += int64(pause)
		default:
			err = sc.verb(word)
		}
		if err != nil {
			sc.t.Fatalf("%s: %s: %v", words, word, err)
		}
		sc.advance()
	}
}

func (sc *script) verb(word string) error {
	verb, step, _ := strings.Cut(word[1:], ":")
	step, as, _ := strings.Cut(step, ":")
	switch verb {
	case "abort":
		return sc.s.Abort("aborted by a person")
	case "retry":
		return sc.s.Retry(sc.now)
	case "resume":
		return sc.s.Resume(sc.now)
	case "skip":
		return sc.s.Skip(step)
	case "resolve":
		return sc.s.Resolve(step, saga.StepState(as))
	}
	return fmt.Errorf("no verb %q", verb)
}

// String says where the saga stands, and in parentheses what is called.
func (sc *script) String() string {
	var b strings.Builder
	b.WriteString(string(sc.s.State))
	for i, p := range sc.s.Steps {
		fmt.Fprintf(&b, " %s:%s", sc.s.Definition.Steps[i].Name, p.State)
		if p.Calling {
			b.WriteString("(called)")
		}
	}
	return b.String()
}

func TestWhatFollowsFromWhatIsKnown(t *testing.T) {
	const three, pivot = "a b c", "a b:pivot c:retriable"
	for name, c := range map[string]struct{ steps, words, want string }{
		"all is done": {three, "a=done b=done c=done", "completed a:done b:done c:done"},
		"a refusal undoes what was done before it":      {three, "a=done b=refused", "compensating a:compensating(called) b:refused c:pending"},
		"and nothing else":                              {three, "a=done b=refused a'=done", "compensated a:compensated b:refused c:pending"},
		"what comes last is undone first":               {three, "a=done b=done c=refused", "compensating a:done b:compensating(called) c:refused"},
		"an unknown call is made again":                 {three, "a=unknown +100ms", "running a:running(called) b:pending c:pending"},
		"not before its pause":                          {three, "a=unknown +99ms", "running a:running b:pending c:pending"},
		"and counts":                                    {three, "a=unknown +100ms a=unknown +200ms a=unknown", "compensating a:compensating(called) b:pending c:pending"},
		"a refusal behind an unknown call undoes it":    {three, "a=unknown +100ms a=refused", "compensating a:compensating(called) b:pending c:pending"},
		"a call that never left is made again":          {three, "a=not_run +100ms a=done", "running a:done b:running(called) c:pending"},
		"three that never left leave nothing":           {three, "a=not_run +1s a=not_run +1s a=not_run", "compensated a:refused b:pending c:pending"},
		"a refusal behind one that never left is final": {three, "a=not_run +1s a=refused", "compensated a:refused b:pending c:pending"},
		"one that never left says nothing of others":    {three, "a=unknown +1s a=not_run +1s a=not_run", "compensating a:compensating(called) b:pending c:pending"},
		"not yet is asked for again":                    {three, "a=pending +1s a=pending +1s a=pending +1s a=pending +2s a=pending +5s", "running a:running(called) b:pending c:pending"},
		"not yet may have had an effect":                {three, "a=pending +1s a=refused", "compensating a:compensating(called) b:pending c:pending"},
		"a crash makes a call unknown":                  {three, "recover a=refused", "compensating a:compensating(called) b:pending c:pending"},
		"a compensation that failed is made again":      {three, "a=done b=refused a'=unknown +100ms a'=refused +200ms a'=done", "compensated a:compensated b:refused c:pending"},
		"until the saga is parked":                      {three, "a=done b=refused a'=unknown +1s a'=refused +1s a'=not_run", "parked a:compensating b:refused c:pending"},
		"a pivot's refusal undoes":                      {pivot, "a=done b=refused a'=done", "compensated a:compensated b:refused c:pending"},
		"an unknown pivot is made again":                {pivot, "a=done b=unknown +1s b=done c=done", "completed a:done b:done c:done"},
		"and never undone":                              {pivot, "a=done b=unknown +1s b=refused +1s b=refused", "parked a:done b:running c:pending"},
		"a pivot that never left is undone":             {pivot, "a=done b=not_run +1s b=not_run +1s b=not_run", "compensating a:compensating(called) b:refused c:pending"},
		"behind the pivot a refusal is made again":      {pivot, "a=done b=done c=refused +1s c=done", "completed a:done b:done c:done"},
		"until that saga is parked":                     {pivot, "a=done b=done c=refused +1s c=unknown +1s c=not_run", "parked a:done b:done c:running"},
		"branches begin together":                       {"a< b< c<a,b", "", "running a:running(called) b:running(called) c:pending"},
		"and are awaited":                               {"a< b< c<a,b", "a=done", "running a:done b:running(called) c:pending"},
		"one that is refused lets the other end":        {"a< b< c<a,b", "a=refused", "compensating a:refused b:running(called) c:pending"},
		"and what it did is undone":                     {"a< b< c<a,b", "a=refused b=done b'=done", "compensated a:refused b:compensated c:pending"},
		"or may have done":                              {"a< b< c<a,b", "a=refused b=unknown", "compensating a:refused b:compensating(called) c:pending"},
		"or surely did not do":                          {"a< b< c<a,b", "a=refused b=not_run", "compensated a:refused b:refused c:pending"},
		"branches are undone together":                  {"a< b<a c<a d<b,c", "a=done b=done c=done d=refused", "compensating a:done b:compensating(called) c:compensating(called) d:refused"},
		"and before what they came behind":              {"a< b<a c<a d<b,c", "a=done b=done c=done d=refused b'=done", "compensating a:done b:compensated c:compensating(called) d:refused"},

		"the deadline undoes":                    {"10s " + three, "a=done +10s b=unknown", "compensating a:done b:compensating(called) c:pending"},
		"and waits for what is called":           {"10s " + three, "a=done +10s", "compensating a:done b:running(called) c:pending"},
		"a step that has not run does not begin": {"10s " + three, "a=done b=not_run +10s", "compensating a:compensating(called) b:refused c:pending"},
		"a pivot that is called is awaited":      {"10s " + pivot, "a=done +10s", "running a:done b:running(called) c:pending"},
		"one that may have happened goes on":     {"10s " + pivot, "a=done b=unknown +10s", "running a:done b:running(called) c:pending"},
		"one that was refused undoes":            {"10s " + pivot, "a=done +10s b=refused", "compensating a:compensating(called) b:refused c:pending"},
		"one that never left does, too":          {"10s " + pivot, "a=done b=not_run +10s", "compensating a:compensating(called) b:refused c:pending"},
		"behind the pivot there is none":         {"10s " + pivot, "a=done b=done +10s c=done", "completed a:done b:done c:done"},
		"nor while it is undone":                 {"10s " + three, "a=done b=refused +10s a'=unknown +10s a'=done", "compensated a:compensated b:refused c:pending"},
		"nor behind a step that can only go on":  {"10s a b:retriable c:retriable", "a=done +9s b=done +9s c=done", "completed a:done b:done c:done"},

		"aborting undoes":                               {three, "a=done b=done !abort", "compensating a:done b:done c:running(called)"},
		"with the attempts that undoing has":            {three, "a=done b=unknown +1s b=unknown !abort b'=unknown +1s b'=unknown +1s b'=done a'=done", "compensated a:compensated b:compensated c:pending"},
		"retrying does not wait":                        {three, "a=unknown !retry", "running a:running(called) b:pending c:pending"},
		"and gives all attempts again":                  {three, "a=unknown +1s a=unknown !retry a=unknown", "running a:running b:pending c:pending"},
		"a parked saga goes on where it was":            {pivot, "a=done b=unknown +1s b=unknown +1s b=unknown !retry b=done", "running a:done b:done c:running(called)"},
		"a person knows of the pivot: done":             {pivot, "a=done b=unknown +1s b=unknown +1s b=unknown !resolve:b:done !resume", "running a:done b:done c:running(called)"},
		"a person knows of the pivot: refused":          {pivot, "a=done b=unknown +1s b=unknown +1s b=unknown !resolve:b:refused !resume", "compensating a:compensating(called) b:refused c:pending"},
		"what is resolved waits for being resumed":      {pivot, "a=done b=unknown +1s b=unknown +1s b=unknown !resolve:b:done", "parked a:done b:done c:pending"},
		"a person undoes":                               {three, "a=done b=refused a'=unknown +1s a'=unknown +1s a'=unknown !resolve:a:compensated !resume", "compensated a:compensated b:refused c:pending"},
		"a person skips what is to be undone":           {three, "a=done b=refused a'=unknown +1s a'=unknown +1s a'=unknown !skip:a !resume", "compensated a:skipped b:refused c:pending"},
		"a person skips what is to be done":             {pivot, "a=done b=done c=refused +1s c=unknown +1s c=not_run !skip:c !resume", "completed a:done b:done c:skipped"},
		"a step that has not begun can be skipped, too": {three, "!skip:b a=done", "running a:done b:skipped c:running(called)"},
		"what is skipped is not undone":                 {three, "!skip:b a=done c=refused", "compensating a:compensating(called) b:skipped c:refused"},
	} {
		t.Run(name, func(t *testing.T) {
			deadline, words, has := strings.Cut(c.steps, "s ")
			if !has {
				deadline, words = "0", c.steps
			}
			d := steps(t, words)
			seconds, err := time.ParseDuration(deadline + "s")
			if err != nil {
				t.Fatal(err)
			}
			d.Deadline = saga.Duration(seconds)
			sc := newScript(t, d)
			sc.do(c.words)
			if got := sc.String(); got != c.want {
				t.Errorf("%s\n  is %s\n not %s", c.words, got, c.want)
			}
			if ended := sc.s.State.Ended(); ended != (sc.s.Ended != 0) {
				t.Errorf("ended at %d", sc.s.Ended)
			}
		})
	}
}

func TestWhatAPersonMayNotAskForIsRefused(t *testing.T) {
	const pivot = "a b:pivot c:retriable"
	for _, c := range []struct{ steps, words, verb, want string }{
		{"a", "a=done", "!retry", "it is completed"},
		{"a", "a=done", "!abort", "it is completed"},
		{"a", "", "!resume", "it is running, not parked"},
		{"a", "", "!skip:b", `no step "b"`},
		{"a", "", "!skip:a", "a call of step a is under way"},
		{"a b", "a=done", "!skip:a", "is done already"},
		{"a b", "a=done b=refused", "!abort", "being undone already"},
		{pivot, "a=done", "!abort", "its pivot is done, or may be"},
		{pivot, "a=done b=done", "!abort", "its pivot is done, or may be"},
		{pivot, "a=done b=done c=unknown", "!resolve:c:refused", "has to be done, or skipped"},
		{"a b", "a=done", "!resolve:a:compensated", "it goes forward"},
		{"a b", "a=done", "!resolve:a:refused", "is done, and so was not refused"},
		{"a b", "a=unknown", "!resolve:a:else", `not as "else"`},
		{"a b c", "a=done b=done c=refused b'=done a'=unknown", "!resolve:b:done", "is compensated"},
		{pivot, "a=done b=refused a'=unknown", "!resolve:b:done", "a pivot is never undone"},
		{"a b c", "a=done b=done c=refused b'=done a'=unknown", "!skip:b", "is compensated already"},
	} {
		sc := newScript(t, steps(t, c.steps))
		sc.do(c.words)
		before := sc.String()
		if err := sc.verb(c.verb); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v is not about %q", c.words, c.verb, err, c.want)
		}
		if after := sc.String(); after != before {
			t.Errorf("%s %s: it was %s, and is %s", c.words, c.verb, before, after)
		}
	}
}

// Sagas are counted by the million, so what is written of one with every transition is small.
func TestProgressIsMadeAsSmallAsItHasToBe(t *testing.T) {
	d := &saga.Definition{ID: "wide"}
	for i := range saga.MaxSteps {
		s := saga.Step{Name: fmt.Sprint("step", i), After: []string{}, Action: saga.Call{Service: "a", Path: "/"}, Retry: saga.Retry{Attempts: 1000, Backoff: saga.Duration(time.Hour)}}
		s.Compensate = &s.Action
		d.Steps = append(d.Steps, s)
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	begun := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC).UnixNano()
	s, now := saga.Start(d, begun), begun
	s.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fit := func() {
		t.Helper()
		for len(marshal(t, s.Progress)) > saga.MaxProgressBytes {
			if !s.Shorten() {
				t.Fatalf("%d bytes are left: %s", len(marshal(t, s.Progress)), marshal(t, s.Progress))
			}
		}
	}
	long := strings.Repeat("ü", 1000)
	for range 999 {
		due := s.Advance(now, nil)
		fit()
		now += int64(15 * time.Minute)
		for _, c := range due {
			if err := s.Settle(c, saga.Outcome{Answer: saga.AnswerUnknown, Text: long}, now, 1); err != nil {
				t.Fatal(err)
			}
		}
		fit()
		now += int64(time.Hour)
	}
	if err := s.Abort(long); err != nil {
		t.Fatal(err)
	}
	s.Advance(now, nil)
	fit()
	s.Recover(now)
	fit()
	for i := range s.Steps {
		all, err := s.Steps[i].Timeline.Attempts()
		if err != nil || len(all) > 0 && all[len(all)-1].Attempt != 1 {
			t.Errorf("step %d: %v, %v", i, all, err)
		}
	}

	one := saga.Start(&saga.Definition{ID: "one", Steps: d.Steps[:1]}, 0)
	now = 0
	for range 900 {
		now += int64(time.Hour)
		c := one.Advance(now, nil)[0]
		if err := one.Settle(c, saga.Outcome{Answer: saga.AnswerUnknown, Text: long}, now+int64(20*time.Millisecond), 0); err != nil {
			t.Fatal(err)
		}
		for len(marshal(t, one.Progress)) > saga.MaxProgressBytes {
			one.Shorten()
		}
	}
	all, err := one.Steps[0].Timeline.Attempts()
	if err != nil || len(all) < 80 || all[len(all)-1].Attempt != 900 || all[0].Attempt != 901-len(all) {
		t.Errorf("of 900 attempts there are %d: %v, %v", len(all), all, err)
	}
	if text := one.Steps[0].Text; !strings.HasSuffix(text, "…") || strings.ContainsRune(text, '\uFFFD') || len(text) < saga.MaxTextBytes-3 {
		t.Errorf("text %q", text)
	}
}

func TestPausesGrowToTheirLimitAndAreDrawnEvenly(t *testing.T) {
	d := steps(t, "a")
	d.Steps[0].Retry = saga.Retry{Attempts: 100, Backoff: saga.Duration(time.Second), Max: saga.Duration(10 * time.Second)}
	for _, jitter := range []float64{0, 0.25, 1} {
		s, now := saga.Start(d, 0), int64(0)
		for i, want := range []time.Duration{1, 2, 4, 8, 10, 10, 10} {
			due := s.Advance(now, nil)
			if len(due) != 1 {
				t.Fatalf("%d calls", len(due))
			}
			if err := s.Settle(due[0], saga.Outcome{Answer: saga.AnswerUnknown}, now, jitter); err != nil {
				t.Fatal(err)
			}
			if got := time.Duration(s.NextAt(0) - now); got != time.Duration(jitter*float64(want)*float64(time.Second)) {
				t.Errorf("pause %d with jitter %v: %v", i, jitter, got)
			}
			now = s.NextAt(0)
		}
	}
}

func TestAParticipantThatAsksForTimeIsLeftAloneForThatLongAtTheLeast(t *testing.T) {
	for _, answer := range []saga.Answer{saga.AnswerUnknown, saga.AnswerPending, saga.AnswerNotRun} {
		for _, c := range []struct {
			retry       saga.Retry
			after, want time.Duration
		}{
			{saga.Retry{}, 0, 100 * time.Millisecond},
			{saga.Retry{}, 7 * time.Second, 7100 * time.Millisecond},
			{saga.Retry{}, time.Hour, 30100 * time.Millisecond},
			{saga.Retry{Max: saga.Duration(2 * time.Second)}, 7 * time.Second, 2100 * time.Millisecond},
			{saga.Retry{Backoff: saga.Duration(time.Minute)}, time.Hour, 2 * time.Minute},
		} {
			s := saga.Start(&saga.Definition{ID: "a", Steps: []saga.Step{{Name: "a", Action: saga.Call{Service: "a", Path: "/"}, Retry: c.retry}}}, 1)
			due := s.Advance(1, nil)
			if err := s.Settle(due[0], saga.Outcome{Answer: answer, After: c.after}, 1, 1); err != nil {
				t.Fatal(err)
			}
			want := c.want
			if answer == saga.AnswerPending && c.retry.Backoff == 0 {
				want += 100 * time.Millisecond // its pauses grow with all attempts
			}
			if got := time.Duration(s.NextAt(1) - 1); got != want {
				t.Errorf("%s, %v: after %v, not %v", answer, c, got, want)
			}
		}
	}
}

func TestOutcomesOfCallsThatAreNotUnderWayChangeNothing(t *testing.T) {
	sc := newScript(t, steps(t, "a b"))
	first := sc.due["a"]
	sc.do("recover")
	second := sc.due["a"]
	for _, c := range []saga.CallRef{first, {Step: 1, Attempt: 1}, {Step: 5, Attempt: 1}, {Step: 0, Undo: true, Attempt: 2}} {
		if err := sc.s.Settle(c, saga.Outcome{Answer: saga.AnswerDone}, sc.now, 0); err == nil {
			t.Errorf("%+v was taken, while %+v is under way", c, second)
		}
	}
	if key := sc.s.IdempotencyKey(first); key != sc.s.IdempotencyKey(second) || key != "chain/a/action" {
		t.Errorf("key %q", key)
	}
}

func TestStatusesOfHTTPAreAnswers(t *testing.T) {
	c := &saga.Call{Statuses: map[string]saga.Answer{"404": saga.AnswerDone, "503": saga.AnswerRefused}}
	for status, want := range map[int]saga.Answer{
		200: saga.AnswerDone, 201: saga.AnswerDone, 204: saga.AnswerDone, 202: saga.AnswerPending, 425: saga.AnswerPending,
		301: saga.AnswerUnknown, 307: saga.AnswerUnknown, 400: saga.AnswerRefused, 404: saga.AnswerDone, 408: saga.AnswerUnknown,
		409: saga.AnswerRefused, 410: saga.AnswerRefused, 422: saga.AnswerRefused, 429: saga.AnswerUnknown,
		500: saga.AnswerUnknown, 502: saga.AnswerUnknown, 503: saga.AnswerRefused, 504: saga.AnswerUnknown,
	} {
		if got := c.HTTPAnswer(status); got != want {
			t.Errorf("%d is %s, not %s", status, got, want)
		}
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsDueLaterThanAnyPauseIsLongIsDueAtOnceForWhoTakesOver(t *testing.T) {
	d := steps(t, "a b c")
	for i := range d.Steps {
		d.Steps[i].After = []string{}
		d.Steps[i].Retry.Max = saga.Duration(10 * time.Second)
	}
	s := saga.Start(d, 0)
	hour := int64(time.Hour)
	for _, c := range s.Advance(hour, nil) {
		if err := s.Settle(c, saga.Outcome{Answer: saga.AnswerUnknown, After: 20 * time.Second}, hour, 1); err != nil {
			t.Fatal(err)
		}
	}
	if s.Recover(hour); len(s.Advance(hour, nil)) != 0 || s.NextAt(0) <= hour {
		t.Error("a pause was cut short, by the same clock")
	}
	// The clock of the successor is an hour behind.
	if s.Recover(1); len(s.Advance(1, nil)) != 3 {
		t.Errorf("%+v", s.Steps)
	}
}
