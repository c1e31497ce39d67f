package measure

import (
	"strings"
	"testing"
	"time"
)

func TestUsageIsOfAllProcessesOfTheGroupAndNoOther(t *testing.T) {
	got, err := groupUsage("testdata/proc", 100)
	want := Usage{
		Processes: 3, // one of them has ended and was not waited for
		CPU:       (20 + 200 + 1) * 10 * time.Millisecond,
		RSS:       10_000 << 10,
		Anonymous: 3_500 << 10,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := groupUsage("testdata/proc", 7); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a group without Processes: %v", err)
	}
}

func TestUsageOfATreeIsOfAProcessAndAllBelowIt(t *testing.T) {
	got, err := treeUsage("testdata/proc", 100)
	if err != nil || got.Processes != 4 || got.CPU != (20+200+1+7)*10*time.Millisecond {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := treeUsage("testdata/proc", 7); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestStatLinesThatAreNoneAreRefused(t *testing.T) {
	for _, line := range []string{"", "1 (a", "1 (a) S 1 1", "1 (a) S x 1 1 0 -1 0 0 0 0 0 1 1 1 1", "1 (a) S 1 x 1 0 -1 0 0 0 0 0 1 1 1 1", "1 (a) S 1 1 1 0 -1 0 0 0 0 0 1 1 1 x"} {
		if s, err := parseStat(line); err == nil {
			t.Errorf("%q: %+v", line, s)
		}
	}
	if n, err := statusBytes([]byte("VmRSS: 12 MB\n"), "VmRSS"); err == nil {
		t.Errorf("another unit is read as %d", n)
	}
}
