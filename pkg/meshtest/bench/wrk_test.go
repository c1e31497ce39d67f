package main

import (
	"os"
	"testing"
)

func TestWrkOutputIsRead(t *testing.T) {
	out, err := os.ReadFile("testdata/wrk.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseWrk(out)
	want := load{Requests: 68423, Bytes: 17383128, Microseconds: 2000142, Non2xx: 3, Connect: 1, Read: 2, Write: 4, Timeout: 5}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWrkOutputWithoutSummaryIsRefused(t *testing.T) {
	for _, out := range []string{"", "Running 2s test\n", "summary {\"requests\":\n", "unable to connect\n"} {
		if l, err := parseWrk([]byte(out)); err == nil {
			t.Errorf("%q: %+v", out, l)
		}
	}
}
