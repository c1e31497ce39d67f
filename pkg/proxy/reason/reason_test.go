package reason

import (
	"regexp"
	"testing"
)

func TestEveryReasonHasItsOwnCodeAndASentence(t *testing.T) {
	seen := map[string]bool{}
	shape := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	for r := range count {
		code := r.Code()
		if seen[code] || !shape.MatchString(code) {
			t.Errorf("reason %d: code %q", r, code)
		}
		seen[code] = true
		if got := Parse([]byte(code)); got != r {
			t.Errorf("%s is read as %s", code, got.Code())
		}
		if r.Text() == "" {
			t.Errorf("%s has no sentence", code)
		}
		if s := r.Status(); s != 0 && (s < 400 || s > 599) {
			t.Errorf("%s answers %d", code, s)
		}
	}
	if got := Parse([]byte("nonsense")); got != None {
		t.Errorf("nonsense is read as %s", got.Code())
	}
	if got := len(Codes()); got != int(count) {
		t.Errorf("%d codes for %d reasons", got, count)
	}
}
