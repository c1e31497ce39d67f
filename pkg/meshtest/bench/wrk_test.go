package main

import (
	"os"
	"strings"
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

// 100 responses of 254 bytes over 4 connections.
func TestLoadWithOtherResponsesThanTheRightOnesIsRefused(t *testing.T) {
	right := load{Requests: 100, Bytes: 25400, Microseconds: 1e6}
	for _, c := range []struct {
		name string
		edit func(*load)
		want string // "" is accepted
	}{
		{"all right", func(*load) {}, ""},
		{"one more is under way on each connection", func(l *load) { l.Bytes += 4 * 254 }, ""},
		{"none", func(l *load) { *l = load{} }, "no response"},
		{"an error status", func(l *load) { l.Non2xx = 1 }, "1 of 100 responses were not 2xx"},
		{"a connection refused", func(l *load) { l.Connect = 1 }, "sockets failed: 1 to connect"},
		{"a connection reset", func(l *load) { l.Read = 1 }, "sockets failed"},
		{"a timeout", func(l *load) { l.Timeout = 1 }, "1 by timeout"},
		{"a shorter response", func(l *load) { l.Bytes-- }, "some were others"},
		{"longer responses", func(l *load) { l.Bytes += 5 * 254 }, "some were others"},
	} {
		l := right
		c.edit(&l)
		err := l.check(254, 4)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
