package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Fault is what is wrong with a field of what somebody sent. Field is its path in
// proto JSON, as in ports[0].number.
type Fault struct{ Field, Reason string }

// Under returns faults of something as those of what has it as the field at path. A fault
// of "" is of all of it.
func Under(path string, faults []Fault) []Fault {
	within := make([]Fault, 0, len(faults))
	for _, f := range faults {
		at := path
		if f.Field != "" {
			at += "." + f.Field
		}
		within = append(within, Fault{Field: at, Reason: f.Reason})
	}
	return within
}

// WithOthers adds to faults those of err, an *InvalidError or anything else that has
// none, that are about other fields: all that is wrong is told together, and what is
// wrong with a field, or around it, once.
func WithOthers(faults []Fault, err error) []Fault {
	var others *InvalidError
	if !errors.As(err, &others) {
		return faults
	}
	told := faults
	for _, f := range others.Faults {
		if !slices.ContainsFunc(told, func(t Fault) bool { return isWithin(f.Field, t.Field) }) {
			faults = append(faults, f)
		}
	}
	return faults
}

// isWithin reports whether the field at path is the one at around, or a part of it.
// Everything is a part of "".
func isWithin(path, around string) bool {
	rest, ok := strings.CutPrefix(path, around)
	return ok && (around == "" || rest == "" || rest[0] == '.' || rest[0] == '[')
}

// InvalidError holds all that is wrong with something, at least one fault.
type InvalidError struct {
	What   string // as in "the instance"
	Faults []Fault
}

func (e *InvalidError) Error() string {
	var b strings.Builder
	b.WriteString(e.What + " is not valid")
	for _, f := range e.Faults {
		fmt.Fprintf(&b, "; %s: %s", f.Field, f.Reason)
	}
	return b.String()
}
