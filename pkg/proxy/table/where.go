package table

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// condition is a compiled one.
type condition struct {
	mesh.Condition
	id    wire.ID // of a field
	name  []byte  // of a parameter
	lower string  // of a field
	value []byte
	// lowerValue is the value with IgnoreCase.
	lowerValue string
	regex      *regexp.Regexp
}

// conditions compiles those of a route.
func conditions(where []mesh.Condition) ([]condition, error) {
	var all []condition
	for _, w := range where {
		c := condition{Condition: w, name: []byte(w.Name), lower: strings.ToLower(w.Name), value: []byte(w.Value)}
		c.id = wire.Lookup(c.name)
		c.lowerValue = strings.ToLower(w.Value)
		if w.How == mesh.WhereRegex {
			var err error
			if c.regex, err = regexp.Compile(`^(?:` + w.Value + `)$`); err != nil {
				return nil, fmt.Errorf("%q is not an RE2: %w", w.Value, err)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// For returns e if the request meets its conditions, else the entry of the next route of the virtual
// host that matches, nil if none does. It allocates nothing but, where a field is there twice and the
// head's memory does not suffice, that.
func (e *Entry) For(h *wire.Head) *Entry {
	for e != nil && !e.takes(h) {
		e = e.routes.at(e.routes.matcher.Next(e.index, h.Path))
	}
	return e
}

func (e *Entry) takes(h *wire.Head) bool {
	for i := range e.where {
		if !e.where[i].holds(h) {
			return false
		}
	}
	return true
}

func (c *condition) holds(h *wire.Head) bool {
	var value []byte
	var there bool
	switch c.Of {
	case mesh.OfGRPC:
		return rpc.KindOfType(h.Get(wire.ContentType)) == rpc.GRPC
	case mesh.OfPath:
		path, _, _ := bytes.Cut(h.Path, []byte("?"))
		return c.regex.Match(path)
	case mesh.OfParameter:
		value, there = parameter(h.Path, c.name)
	default:
		value, there = c.field(h)
	}
	if c.How == mesh.WherePresent {
		return there != c.Invert
	}
	if !there && !c.MissingIsEmpty {
		return false
	}
	return c.compare(value) != c.Invert
}

func (c *condition) compare(value []byte) bool {
	switch c.How {
	case mesh.WhereExact:
		return len(value) == len(c.value) && c.equal(value)
	case mesh.WherePrefix:
		return len(value) >= len(c.value) && c.equal(value[:len(c.value)])
	case mesh.WhereSuffix:
		return len(value) >= len(c.value) && c.equal(value[len(value)-len(c.value):])
	case mesh.WhereContains:
		if !c.IgnoreCase {
			return bytes.Contains(value, c.value)
		}
		for ; len(value) >= len(c.value); value = value[1:] {
			if c.equal(value[:len(c.value)]) {
				return true
			}
		}
		return false
	case mesh.WhereRegex:
		return c.regex.Match(value)
	default:
		n, err := strconv.ParseInt(string(value), 10, 64)
		return err == nil && n >= c.Low && n < c.High
	}
}

// equal compares what is as long as the condition's value.
func (c *condition) equal(value []byte) bool {
	if !c.IgnoreCase {
		return bytes.Equal(value, c.value)
	}
	return wire.EqualFold(value, c.lowerValue)
}

// field returns all values of a field, with commas between them (RFC 9110 §5.3).
func (c *condition) field(h *wire.Head) (value []byte, there bool) {
	switch c.lower {
	case ":method":
		return h.Method, true
	case ":path":
		return h.Path, h.Path != nil
	case ":authority", "host":
		return h.Authority, len(h.Authority) > 0
	case ":scheme":
		if h.Scheme == nil {
			return []byte("http"), true
		}
		return h.Scheme, true
	}
	for i := range h.Fields {
		f := &h.Fields[i]
		if !f.Is(c.id, c.lower) {
			continue
		}
		if there {
			value = h.OwnBoth(h.OwnBoth(value, []byte(",")), f.Value)
		} else {
			value, there = f.Value, true
		}
	}
	return value, there
}

// parameter returns the value of the first parameter of a path's query that has the name, as it is written.
func parameter(path, name []byte) (value []byte, there bool) {
	_, query, _ := bytes.Cut(path, []byte("?"))
	for len(query) > 0 {
		var one []byte
		one, query, _ = bytes.Cut(query, []byte("&"))
		if key, value, _ := bytes.Cut(one, []byte("=")); bytes.Equal(key, name) {
			return value, true
		}
	}
	return nil, false
}
