package table

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestChangesOfAHeadAllocateNothing(t *testing.T) {
	c := changes([]mesh.FieldChange{
		{Name: "x-gone"},
		{Name: "x-more", How: mesh.FieldAppend, Value: "v"},
		{Name: "User-Agent", How: mesh.FieldOverwrite, Value: "v"},
		{Name: "x-new", How: mesh.FieldAddIfAbsent, Value: "v"},
		{Name: "x-more", How: mesh.FieldOverwriteOnly, Value: "w"},
	})
	var h wire.Head
	change := func() {
		h.Reset()
		h.Add(wire.Other, "X-Gone", []byte("a"))
		h.Add(wire.Other, "X-More", []byte("a"))
		h.Add(wire.UserAgent, "user-agent", []byte("a"))
		c.Apply(&h)
	}
	change()
	if n := testing.AllocsPerRun(100, change); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(h.Fields) != 3 || string(h.Get(wire.UserAgent)) != "v" || string(h.Fields[2].Name) != "x-more" || string(h.Fields[2].Value) != "w" {
		t.Errorf("%+v", h.Fields)
	}
}
