package saga

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Timeline is what was called of a step, and when: "a1@0+12d c1@340+7u c2@1500" is attempt 1 at the action, at once and for 12 ms, done; two at the
// compensation, the first unknown, the second under way. It is text, since it is written with every transition, and kept in memory by the million. Where
// there is no room for all, the oldest are missing.
type Timeline string

// Attempt is one call of a Timeline.
type Attempt struct {
	CallRef
	// At is when it was intended, counted from the start of the saga, in whole milliseconds.
	At time.Duration
	// Took is until its outcome was known, in whole milliseconds, begun ones counted; 0 if that was not seen by who made it.
	Took time.Duration
	// Answer is empty while it is under way.
	Answer Answer
}

// answerLetters are the last letter of an entry.
const answerLetters = "drupn"

func letterOf(a Answer) byte {
	switch a {
	case AnswerDone:
		return 'd'
	case AnswerRefused:
		return 'r'
	case AnswerPending:
		return 'p'
	case AnswerNotRun:
		return 'n'
	default:
		return 'u'
	}
}

func answerOf(letter byte) Answer {
	switch letter {
	case 'd':
		return AnswerDone
	case 'r':
		return AnswerRefused
	case 'p':
		return AnswerPending
	case 'n':
		return AnswerNotRun
	default:
		return AnswerUnknown
	}
}

// begin notes a call that is intended.
func (t *Timeline) begin(c CallRef, at time.Duration) {
	b := make([]byte, 0, len(*t)+16)
	b = append(b, *t...)
	if len(b) > 0 {
		b = append(b, ' ')
	}
	what := byte('a')
	if c.Undo {
		what = 'c'
	}
	b = strconv.AppendInt(append(b, what), int64(c.Attempt), 10)
	b = strconv.AppendInt(append(b, '@'), max(0, at.Milliseconds()), 10)
	*t = Timeline(b)
}

// end notes what came of the call that is under way, which is the last, and when that was known.
func (t *Timeline) end(a Answer, at time.Duration) {
	_, begun, _ := strings.Cut(string((*t)[strings.LastIndexByte(string(*t), ' ')+1:]), "@")
	ms, err := strconv.ParseInt(begun, 10, 64)
	if err != nil {
		return // it was cut away
	}
	b := make([]byte, 0, len(*t)+8)
	b = append(append(b, *t...), '+')
	b = strconv.AppendInt(b, max(1, at.Milliseconds()-ms), 10)
	*t = Timeline(append(b, letterOf(a)))
}

// lose notes that nobody has seen what came of the call that is under way.
func (t *Timeline) lose() {
	if *t != "" { // else it was cut away
		*t += "u"
	}
}

// shorten leaves out the older half of the entries, and reports whether there were any but the last.
func (t *Timeline) shorten() bool {
	entries := strings.Split(string(*t), " ")
	*t = Timeline(strings.Join(entries[len(entries)/2:], " "))
	return len(entries) > 1
}

// Attempts returns the calls, oldest first. Step of each is 0. What cannot be read is an error.
func (t Timeline) Attempts() ([]Attempt, error) {
	var all []Attempt
	for entry := range strings.FieldsSeq(string(t)) {
		a, ok := parseAttempt(entry)
		if !ok {
			return all, fmt.Errorf("saga: %q is no attempt of a timeline", entry)
		}
		all = append(all, a)
	}
	return all, nil
}

func parseAttempt(entry string) (a Attempt, ok bool) {
	a.Undo = entry[0] == 'c'
	number, rest, ok := strings.Cut(entry[1:], "@")
	if !ok || !a.Undo && entry[0] != 'a' {
		return a, false
	}
	if last := rest[max(0, len(rest)-1):]; last != "" && strings.Contains(answerLetters, last) {
		a.Answer, rest = answerOf(last[0]), rest[:len(rest)-1]
	}
	at, took, hasTook := strings.Cut(rest, "+")
	ok = true
	ms := func(s string) time.Duration {
		n, err := strconv.ParseInt(s, 10, 48)
		ok = ok && err == nil && n >= 0
		return time.Duration(n) * time.Millisecond
	}
	a.At = ms(at)
	if hasTook {
		a.Took = ms(took)
	}
	n, err := strconv.Atoi(number)
	a.Attempt = n
	return a, ok && err == nil
}
