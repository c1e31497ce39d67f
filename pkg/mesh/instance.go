package mesh

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The bounds of what an instance says of itself. Lengths are in bytes.
const (
	MaxLabels     = 64 // on one instance
	MaxLabelKey   = 63
	MaxLabelValue = 255
	MaxZone       = 63
	MaxWeight     = 10_000
)

// LabelFaults returns everything that is wrong with a label of an instance.
func LabelFaults(key, value string) (faults []string) {
	if key == "" || len(key) > MaxLabelKey {
		faults = append(faults, fmt.Sprintf("the key must be 1 to %d characters long", MaxLabelKey))
	}
	if len(value) > MaxLabelValue {
		faults = append(faults, fmt.Sprintf("the value must be at most %d characters long", MaxLabelValue))
	}
	if err := checkText(key + value); err != nil {
		faults = append(faults, "key and value "+err.Error())
	}
	return faults
}

// CheckZone reports why s is not the name of a zone; the empty one means that nobody
// said.
func CheckZone(s string) error {
	if len(s) > MaxZone {
		return textError(fmt.Sprintf("must be at most %d characters long", MaxZone))
	}
	return checkText(s)
}

// checkText reports why s cannot be sent as protobuf, or would be obeyed by the
// terminal of whoever lists instances.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return textError("must be UTF-8")
	}
	if strings.ContainsFunc(s, unicode.IsControl) {
		return textError("must have no control characters")
	}
	return nil
}
