package main

import (
	"strings"
	"testing"
	"time"
)

func TestUsageIsOfAllProcessesOfTheGroupAndNoOther(t *testing.T) {
	got, err := groupUsage("testdata/proc", 100)
	want := usage{
		processes: 3, // one of them has ended and was not waited for
		cpu:       (20 + 200 + 1) * 10 * time.Millisecond,
		rss:       10_000 << 10,
		anonymous: 3_500 << 10,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := groupUsage("testdata/proc", 7); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a group without processes: %v", err)
	}
}

func TestStatLinesThatAreNoneAreRefused(t *testing.T) {
	for _, line := range []string{"", "1 (a", "1 (a) S 1 1", "1 (a) S 1 x 1 0 -1 0 0 0 0 0 1 1 1 1", "1 (a) S 1 1 1 0 -1 0 0 0 0 0 1 1 1 x"} {
		if cpu, group, err := parseStat(line); err == nil {
			t.Errorf("%q: %v, %d", line, cpu, group)
		}
	}
	if n, err := statusBytes([]byte("VmRSS: 12 MB\n"), "VmRSS"); err == nil {
		t.Errorf("another unit is read as %d", n)
	}
}
