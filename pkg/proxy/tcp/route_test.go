package tcp

import (
	"strings"
	"testing"
)

func TestTheLongestNameWins(t *testing.T) {
	var r Routes
	for name, names := range map[string][]string{
		"exact": {"a.example.com"}, "below": {"*.Example.com"}, "deep": {"*.b.example.com", "*.c.example.com"}, "rest": nil,
	} {
		if err := r.Add(Match{ServerNames: names}, &Route{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"a.example.com": "exact", "A.EXAMPLE.com": "exact", "x.example.com": "below", "x.a.example.com": "below",
		"b.example.com": "below", "x.b.example.com": "deep", "y.x.c.example.com": "deep",
		"example.com": "rest", "aexample.com": "rest", "com": "rest", "": "rest", strings.Repeat("a", 300): "rest", "...": "rest",
	} {
		if got := r.find(&seen{server: []byte(name)}); got == nil || got.Name != want {
			t.Errorf("%q: %v, want %s", name, got, want)
		}
	}
	name := []byte("Y.x.C.example.com")
	if n := testing.AllocsPerRun(100, func() { r.find(&seen{server: name}) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWithoutAChainForAllOthersThereIsNone(t *testing.T) {
	var r Routes
	if err := r.Add(Match{ServerNames: []string{"a.example"}}, &Route{}); err != nil {
		t.Fatal(err)
	}
	if r.find(&seen{server: []byte("b.example")}) != nil || r.find(&seen{}) != nil {
		t.Error("another name has a route")
	}
}

func TestAServerHasOneRoute(t *testing.T) {
	var r Routes
	for _, names := range [][]string{{"a.example", "*.a.example"}, nil} {
		if err := r.Add(Match{ServerNames: names}, &Route{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, names := range [][]string{{"A.example"}, {"*.A.example"}, nil} {
		if r.Add(Match{ServerNames: names}, &Route{}) == nil {
			t.Errorf("%q has two", names)
		}
	}
}
