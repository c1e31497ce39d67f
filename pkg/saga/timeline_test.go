package saga_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
)

func TestATimelineSaysWhatWasCalledWhenAndWhatCameOfIt(t *testing.T) {
	d := steps(t, "a b")
	d.Steps[0].Retry.Attempts = 10
	sc := newScript(t, d)
	for _, step := range []struct{ words, a, b string }{
		{"", "a1@0", ""},
		{"+12ms a=unknown", "a1@0+12u", ""},
		{"+100ms +3ms a=pending", "a1@0+12u a2@112+3p", ""},
		{"+10s recover +5ms a=not_run", "a1@0+12u a2@112+3p a3@10115u a4@10115+5n", ""},
		{"+10m +7ms a=done", "a1@0+12u a2@112+3p a3@10115u a4@10115+5n a5@610120+7d", "a1@610127"},
		{"b=refused", "a1@0+12u a2@112+3p a3@10115u a4@10115+5n a5@610120+7d c1@610127", "a1@610127+1r"},
		{"+1s a'=done", "a1@0+12u a2@112+3p a3@10115u a4@10115+5n a5@610120+7d c1@610127+1000d", "a1@610127+1r"},
	} {
		sc.do(step.words)
		if a, b := string(sc.s.Steps[0].Timeline), string(sc.s.Steps[1].Timeline); a != step.a || b != step.b {
			t.Fatalf("behind %q: %q, %q; not %q, %q", step.words, a, b, step.a, step.b)
		}
	}
	all, err := sc.s.Steps[0].Timeline.Attempts()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, a := range all {
		lines = append(lines, fmt.Sprint(a.Attempt, " ", a.Undo, " ", a.At, " ", a.Took, " ", a.Answer))
	}
	if got, want := strings.Join(lines, "\n"), `1 false 0s 12ms unknown
2 false 112ms 3ms pending
3 false 10.115s 0s unknown
4 false 10.115s 5ms not_run
5 false 10m10.12s 7ms done
1 true 10m10.127s 1s done`; got != want {
		t.Errorf("%s\nis not\n%s", got, want)
	}
}

func TestWhatIsNoTimelineIsAnError(t *testing.T) {
	for _, text := range []saga.Timeline{"a", "b1@0", "a1", "a@0", "ax@0", "a1@", "a1@-1", "a1@x+1d", "a1@0+", "a1@0+d", "a1@0x", "a1@99999999999999999999", "a1@0+12d a"} {
		if all, err := text.Attempts(); err == nil {
			t.Errorf("%q is %v", text, all)
		}
	}
	if all, err := saga.Timeline("c7@1500").Attempts(); err != nil || len(all) != 1 || all[0].Answer != "" || all[0].At != 1500*time.Millisecond || !all[0].Undo || all[0].Attempt != 7 {
		t.Errorf("%v, %v", all, err)
	}
}

func FuzzTimeline(f *testing.F) {
	f.Add("a1@0+12d c1@340+7u c2@1500")
	f.Add("a1@0 ")
	f.Fuzz(func(_ *testing.T, s string) { _, _ = saga.Timeline(s).Attempts() })
}
