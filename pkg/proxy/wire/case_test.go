package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestSpellingOfNamesSurvivesLowerCase(t *testing.T) {
	for _, test := range []struct{ names, said string }{
		{"", ""},
		{"accept,x-a", ""},
		{"accept,traceparent,b3", ""},
		{"Accept,X-A,User-Agent", "canonical"},
		{"Accept,traceparent,X-A,tracestate,X--1", "canonical"},
		{"ACCEPT,x-a", "ACCEPT,x-a"},
		{"Accept,x-a", "Accept,x-a"},
		{"SOAPAction,Accept", "SOAPAction,Accept"},
		{strings.Repeat("x-A,", 500) + "x-A", strings.Repeat("x-A,", 500) + "x-A"},
		{"Traceparent,X-A", "canonical"}, // which is spelt in lower case afterwards
	} {
		h := head()
		if test.names != "" {
			for _, name := range strings.Split(test.names, ",") {
				h.Add(Lookup([]byte(name)), name, []byte("v"))
			}
		}
		said := h.AppendCase(nil)
		if string(said) != test.said {
			t.Errorf("%s: said %q, want %q", test.names, said, test.said)
		}
		for i := range h.Fields {
			copy(h.Fields[i].Name, bytes.ToLower(h.Fields[i].Name))
		}
		h.Add(Other, "x-later", nil) // a peer may add some
		if len(said) > 0 {
			h.SetCase(said)
		}
		var got []string
		for _, f := range h.Fields[:len(h.Fields)-1] {
			got = append(got, string(f.Name))
		}
		want := strings.Replace(test.names, "Traceparent", "traceparent", 1)
		if strings.Join(got, ",") != want {
			t.Errorf("%s became %s", test.names, got)
		}
	}
}

func TestSpellingThatIsSaidOfOtherNamesChangesNone(t *testing.T) {
	for said, want := range map[string]string{
		"X-B":       "x-a,X-B,x-c",
		"X-A,X-C":   "X-A,x-b,X-C",
		"X-C,X-B":   "x-a,X-B,x-c",
		"Y,X-A,Z,":  "X-A,x-b,x-c",
		"X-A,":      "X-A,x-b,x-c",
		"X-A,X-B":   "X-A,X-B,x-c",
		",":         "x-a,x-b,x-c",
		"X-A\x00":   "x-a,x-b,x-c",
		"Canonical": "x-a,x-b,x-c",
	} {
		h := head()
		for _, name := range []string{"x-a", "x-b", "x-c"} {
			h.Add(Other, name, nil)
		}
		h.SetCase([]byte(said))
		var got []string
		for _, f := range h.Fields {
			got = append(got, string(f.Name))
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%q: %s, want %s", said, got, want)
		}
	}
}

func TestSpellingOfVeryMuchIsNotSaid(t *testing.T) {
	h := head()
	for range 600 {
		h.Add(Other, "x-A", nil)
	}
	if said := h.AppendCase(nil); len(said) > 0 {
		t.Errorf("%d bytes", len(said))
	}
}
