package mesh

import (
	"fmt"
	"strings"
)

// Fault is what is wrong with a field of what somebody sent. Field is its path in
// proto JSON, as in ports[0].number.
type Fault struct{ Field, Reason string }

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
