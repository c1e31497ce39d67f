package meshctl

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	sagas "github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

func sagaRows(views []*sagas.Summary, now time.Time) [][]string {
	rows := [][]string{{"ID", "STATE", "AGE", "REASON", "LABELS"}}
	for _, v := range views {
		rows = append(rows, []string{v.ID, string(v.State), age(timestamppb.New(v.Started), now), orDash(v.Reason), orDash(labelsOf(v.Labels))})
	}
	return rows
}

// writeSaga writes what a saga is, its steps in the order of the definition, what was called when, and what people did to it.
func writeSaga(out io.Writer, v *sagas.Saga, now time.Time) error {
	took := "-"
	if !v.Ended.IsZero() {
		took = v.Ended.Sub(v.Started).Round(time.Millisecond).String()
	}
	err := writeTable(out, [][]string{
		{"ID", "STATE", "STARTED", "TOOK", "REASON", "LABELS"},
		{v.ID, string(v.State), instant(v.Started), took, orDash(v.Reason), orDash(labelsOf(v.Labels))},
	})
	if err == nil {
		err = writeTable(out, append([][]string{{""}}, stepRows(v, now)...))
	}
	if rows := timelineRows(v, now); err == nil && len(rows) > 0 {
		err = writeTable(out, append([][]string{{""}}, rows...))
	}
	if err == nil && len(v.Verbs) > 0 {
		err = writeTable(out, append([][]string{{""}}, verbRows(v.Verbs)...))
	}
	return err
}

func stepRows(v *sagas.Saga, now time.Time) [][]string {
	rows := [][]string{{"STEP", "KIND", "STATE", "ATTEMPTS", "TO UNDO", "NEXT", "LAST FAILURE", "RESULT"}}
	for _, s := range v.Steps {
		next := "-"
		switch {
		case s.Next.IsZero() || v.Settled(): // nothing is called while it is parked
		case s.Next.After(now):
			next = "in " + s.Next.Sub(now).Round(time.Second).String()
		default:
			next = "now"
		}
		kind := cmp.Or(s.Kind, saga.Compensatable)
		rows = append(rows, []string{s.Name, string(kind), string(s.State), strconv.Itoa(s.Attempts), strconv.Itoa(s.Compensations), next, orDash(s.Text), orDash(shortened(s.Result))})
	}
	return rows
}

func verbRows(verbs []sagas.Verb) [][]string {
	rows := [][]string{{"WHEN", "WHO", "DID", "NOTE"}}
	for _, v := range verbs {
		did := v.Name
		if v.Step != "" {
			did += " " + v.Step
		}
		if v.As != "" {
			did += " as " + string(v.As)
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
