package table

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestConditionsAllocateNothing(t *testing.T) {
	where, err := conditions([]mesh.Condition{
		{Name: ":method", How: mesh.WhereExact, Value: "GET"},
		{Name: "x-a", How: mesh.WhereContains, Value: "V", IgnoreCase: true},
		{Name: "x-b", How: mesh.WhereRegex, Value: "a+,b+"},
		{Name: "x-n", How: mesh.WhereRange, Low: 1, High: 10},
		{Of: mesh.OfParameter, Name: "q", How: mesh.WhereSuffix, Value: "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	e := &Entry{where: where}
	var h wire.Head
	method, path := []byte("GET"), []byte("/?a=b&q=a1&q=2")
	meet := func() {
		h.Reset()
		h.Method, h.Path = method, path
		h.Add(wire.Other, "X-A", []byte("a v"))
		h.Add(wire.Other, "x-b", []byte("aa"))
		h.Add(wire.Other, "x-n", []byte("9"))
		h.Add(wire.Other, "X-B", []byte("bb"))
		if e.For(&h) != e {
			t.Fatal("the request does not meet them")
		}
	}
	meet()
	if n := testing.AllocsPerRun(100, meet); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if _, err := conditions([]mesh.Condition{{How: mesh.WhereRegex, Value: "("}}); err == nil {
		t.Error("an expression that is none is taken")
	}
}
