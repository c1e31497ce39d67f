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

// The order of Envoy's filter_chain_match: each criterion looks at what the one before has
// left, and nothing comes back.
func TestChainsAreComparedByServerThenTransportThenProtocols(t *testing.T) {
	var r Routes
	for name, match := range map[string]Match{
		"shop h2":  {ServerNames: []string{"shop.example"}, Protocols: []string{"h2"}},
		"shop any": {ServerNames: []string{"shop.example"}, Transport: TLS},
		"tls":      {Transport: TLS},
		"http":     {Transport: RawBuffer, Protocols: []string{"http/1.1", "h2c"}},
		"any h2":   {ServerNames: []string{"blog.example"}, Protocols: []string{"http/1.1", "h2"}},
	} {
		if err := r.Add(match, &Route{Name: name}); err != nil {
			t.Fatal(err)
		}
		if r.Add(match, &Route{}) == nil {
			t.Errorf("%s is there twice", name)
		}
	}
	r.Fallback(&Route{Name: "rest"})
	for _, test := range []struct {
		seen seen
		want string
	}{
		{seen{}, "rest"}, // for there is a chain of raw_buffer
		{seen{protocols: []byte("\x08http/1.1\x08http/1.0")}, "http"},
		{seen{protocols: []byte("\x03h2c")}, "http"},
		{seen{tls: true}, "tls"},
		{seen{tls: true, protocols: []byte("\x08http/1.1")}, "tls"},
		{seen{tls: true, server: []byte("shop.example"), protocols: []byte("\x02h2")}, "shop any"}, // the transport goes first
		{seen{tls: true, server: []byte("blog.example"), protocols: []byte("\x01x\x02h2")}, "any h2"},
		{seen{tls: true, server: []byte("blog.example")}, "rest"},
	} {
		if got := r.find(&test.seen); got == nil || got.Name != test.want {
			t.Errorf("%+v: %v, want %s", test.seen, got, test.want)
		}
	}
	one := seen{tls: true, server: []byte("blog.example"), protocols: []byte("\x01x\x02h2")}
	if n := testing.AllocsPerRun(100, func() { r.find(&one) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
