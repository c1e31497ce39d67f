package main

import (
	"strings"
	"testing"
)

// 100 responses of 254 bytes over 4 connections.
func TestLoadWithOtherResponsesThanTheRightOnesIsRefused(t *testing.T) {
	right := load{Requests: 100, Bytes: 25400, Microseconds: 1e6}
	for _, c := range []struct {
		name string
		edit func(*load)
		want string // "" is accepted
	}{
		{"all right", func(*load) {}, ""},
		{"as many more as are under way", func(l *load) { l.Bytes += 4 * 254 }, ""},
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
