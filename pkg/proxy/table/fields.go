package table

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Changes are what is done to a head, in order.
type Changes []change

type change struct {
	how         mesh.FieldAction
	id          wire.ID
	name, lower string
	value       []byte
}

// changes compiles what is done at several places, the most specific first.
func changes(places ...[]mesh.FieldChange) Changes {
	var all Changes
	for _, place := range places {
		for _, c := range place {
			all = append(all, change{c.How, wire.Lookup([]byte(c.Name)), c.Name, strings.ToLower(c.Name), []byte(c.Value)})
		}
	}
	return all
}

// Apply changes a head. It allocates only where the head's memory does not suffice.
func (c Changes) Apply(h *wire.Head) {
	for i := range c {
		c[i].apply(h)
	}
}

func (c *change) apply(h *wire.Head) {
	switch c.how {
	case mesh.FieldRemove:
		h.DelFunc(c.is)
		return
	case mesh.FieldAppend:
	case mesh.FieldAddIfAbsent:
		if c.in(h) {
			return
		}
	case mesh.FieldOverwrite:
		h.DelFunc(c.is)
	case mesh.FieldOverwriteOnly:
		if !c.in(h) {
			return
		}
		h.DelFunc(c.is)
	}
	h.Add(c.id, c.name, c.value)
}

func (c *change) is(f *wire.Field) bool {
	return f.Is(c.id, c.lower)
}

func (c *change) in(h *wire.Head) bool {
	for i := range h.Fields {
		if c.is(&h.Fields[i]) {
			return true
		}
	}
	return false
}
