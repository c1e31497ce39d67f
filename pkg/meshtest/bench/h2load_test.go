package main

import (
	"bytes"
	"os"
	"testing"
)

func TestH2loadOutputIsRead(t *testing.T) {
	out, err := os.ReadFile("testdata/h2load.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseH2load(out)
	want := load{Requests: 50183, Bytes: 5018300}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, c := range []struct {
		line, instead string
		want          load
	}{
		{"50183 succeeded, 0 failed, 0 errored, 0 timeout", "50173 succeeded, 10 failed, 4 errored, 2 timeout",
			load{Requests: 50183, Bytes: 5018300, Non2xx: 6, Read: 4, Timeout: 2}},
		{"50183 2xx, 0 3xx", "50180 2xx, 3 3xx", load{Requests: 50183, Bytes: 5018300, Non2xx: 3}},
	} {
		edited := bytes.Replace(out, []byte(c.line), []byte(c.instead), 1)
		if c.want.Read > 0 { // the statuses are those of the responses that came
			edited = bytes.Replace(edited, []byte("50183 2xx, 0 3xx, 0 4xx, 0 5xx"), []byte("50173 2xx, 0 3xx, 0 4xx, 6 5xx"), 1)
		}
		if got, err := parseH2load(edited); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.instead, got, err, c.want)
		}
	}
}

func TestH2loadOutputWithoutSummaryIsRefused(t *testing.T) {
	whole, err := os.ReadFile("testdata/h2load.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, without := range []string{"requests: ", "status codes: ", "traffic: "} {
		if l, err := parseH2load(bytes.Replace(whole, []byte(without), []byte("nothing: "), 1)); err == nil {
			t.Errorf("without %q: %+v", without, l)
		}
	}
}
