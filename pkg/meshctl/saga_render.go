package meshctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// sagaView is a saga as the API shows it.
type sagaView struct {
	ID      string            `json:"id"`
	State   string            `json:"state"`
	Reason  string            `json:"reason"`
	Labels  map[string]string `json:"labels"`
	Started time.Time         `json:"started"`
	Ended   *time.Time        `json:"ended"`
	Steps   []sagaStep        `json:"steps"`
	Verbs   []sagaVerb        `json:"verbs"`
}

type sagaStep struct {
	Name          string          `json:"name"`
	State         string          `json:"state"`
	Kind          string          `json:"kind"`
	Attempts      int             `json:"attempts"`
	Compensations int             `json:"compensations"`
	Next          *time.Time      `json:"next"`
	Text          string          `json:"text"`
	Result        json.RawMessage `json:"result"`
}

type sagaVerb struct {
	Verb string    `json:"verb"`
	Step string    `json:"step"`
	As   string    `json:"as"`
	By   string    `json:"by"`
	Note string    `json:"note"`
	At   time.Time `json:"at"`
}

// viewOf reads a saga.
func viewOf(b []byte) (*sagaView, error) {
	v := new(sagaView)
	if err := json.Unmarshal(b, v); err != nil {
		return nil, err
	}
	if v.ID == "" {
		return nil, errors.New("there is no saga in it")
	}
	return v, nil
}

// settled reports whether nothing happens to the saga by itself.
func (v *sagaView) settled() bool {
	return v.State == "completed" || v.State == "compensated" || v.State == "parked"
}

func sagaRows(views []sagaView, now time.Time) [][]string {
	rows := [][]string{{"ID", "STATE", "AGE", "REASON", "LABELS"}}
	for _, v := range views {
		rows = append(rows, []string{v.ID, v.State, age(timestamppb.New(v.Started), now), orDash(v.Reason), orDash(labelsOf(v.Labels))})
	}
	return rows
}

// writeSaga writes what a saga is, its steps in the order of the definition, and what people did to it.
func writeSaga(out io.Writer, v *sagaView, now time.Time) error {
	took := "-"
	if v.Ended != nil {
		took = v.Ended.Sub(v.Started).Round(time.Millisecond).String()
	}
	err := writeTable(out, [][]string{
		{"ID", "STATE", "STARTED", "TOOK", "REASON", "LABELS"},
		{v.ID, v.State, instant(v.Started), took, orDash(v.Reason), orDash(labelsOf(v.Labels))},
	})
	if err == nil {
		err = writeTable(out, append([][]string{{""}}, stepRows(v, now)...))
	}
	if err == nil && len(v.Verbs) > 0 {
		err = writeTable(out, append([][]string{{""}}, verbRows(v.Verbs)...))
	}
	return err
}

func stepRows(v *sagaView, now time.Time) [][]string {
	rows := [][]string{{"STEP", "KIND", "STATE", "ATTEMPTS", "TO UNDO", "NEXT", "LAST FAILURE", "RESULT"}}
	for _, s := range v.Steps {
		next := "-"
		switch {
		case s.Next == nil || v.settled(): // nothing is called while it is parked
		case s.Next.After(now):
			next = "in " + s.Next.Sub(now).Round(time.Second).String()
		default:
			next = "now"
		}
		kind := s.Kind
		if kind == "" {
			kind = "compensatable"
		}
		rows = append(rows, []string{s.Name, kind, s.State, strconv.Itoa(s.Attempts), strconv.Itoa(s.Compensations), next, orDash(s.Text), orDash(shortened(s.Result))})
	}
	return rows
}

func verbRows(verbs []sagaVerb) [][]string {
	rows := [][]string{{"WHEN", "WHO", "DID", "NOTE"}}
	for _, v := range verbs {
		did := v.Verb
		if v.Step != "" {
			did += " " + v.Step
		}
		if v.As != "" {
			did += " as " + v.As
		}
		rows = append(rows, []string{instant(v.At), orDash(v.By), did, orDash(v.Note)})
	}
	return rows
}

// orDash keeps the columns of a table in line.
func orDash(s string) string { return cmp.Or(s, "-") }

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// maxShown is how much of a result a table shows, in runes.
const maxShown = 60

// shortened is the begin of a result in one line.
func shortened(result json.RawMessage) string {
	var line bytes.Buffer
	if json.Compact(&line, result) != nil {
		return "" // there is none
	}
	runes := []rune(line.String())
	if len(runes) <= maxShown {
		return line.String()
	}
	return fmt.Sprintf("%s… (%d bytes)", string(runes[:maxShown]), line.Len())
}
