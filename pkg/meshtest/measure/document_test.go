package measure

import "testing"

func TestOnlyWhatIsBetweenTheMarksIsReplaced(t *testing.T) {
	mark := beginMark("make bench")
	document := "# Title\n" + mark + "\nold\n" + endMark + "\n## Rest\n"
	once, err := splice(document, "make bench", "new\n")
	if want := "# Title\n" + mark + "\nnew\n" + endMark + "\n## Rest\n"; err != nil || once != want {
		t.Errorf("%q, %v", once, err)
	}
	if twice, err := splice(once, "make bench", "new\n"); err != nil || twice != once {
		t.Errorf("again: %q, %v", twice, err)
	}
	for _, bad := range []string{"", mark + "\n", endMark, endMark + "\n" + mark + "\n"} {
		if got, err := splice(bad, "make bench", "new\n"); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}
