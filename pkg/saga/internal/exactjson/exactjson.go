// Package exactjson reads JSON so that nobody else can read it otherwise: where one parser takes the first of two members with a name, or minds
// case, and another does not, what was checked is not what is done.
package exactjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Unmarshal is json.Unmarshal into a pointer to a struct. Errors beside those of that: bytes that are no UTF-8 (RFC 8259 §8.1), something behind the value, and
// of objects that become structs or maps, a name that is given twice; of structs, one that there is not, in this very spelling. Values that become json.RawMessage are taken as they
// are.
func Unmarshal(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("it is no UTF-8 (RFC 8259 §8.1)")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind it")
	}
	r := &reader{rest: b, fields: map[reflect.Type]map[string]field{}}
	if wrong := r.value(reflect.TypeOf(v)); wrong != nil {
		return wrong
	}
	return nil
}

// fault is what is wrong, and where.
type fault struct{ path, text string }

func (f *fault) Error() string {
	if f.path == "" {
		return f.text
	}
	return strings.TrimPrefix(f.path, ".") + ": " + f.text
}

// in puts a step before the path of a fault, if there is one.
func (f *fault) in(step string) *fault {
	if f != nil {
		f.path = step + f.path
	}
	return f
}

// reader reads JSON that is known to be valid, and to fit the type that it is read into: names are all that it looks at.
type reader struct {
	rest   []byte
	fields map[reflect.Type]map[string]field // of the structs that there were
}

// field is a field of a struct.
type field struct {
	number int
	of     reflect.Type
}

// next returns the next byte that is no white space, and leaves it there.
func (r *reader) next() byte {
	r.rest = bytes.TrimLeft(r.rest, " \t\r\n")
	return r.rest[0]
}

// value reads a value that becomes a t.
func (r *reader) value(t reflect.Type) *fault {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	first := r.next()
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		r.skip()
	case first == '{' && t.Kind() == reflect.Map:
		return r.named(t.Elem())
	case first == '{':
		return r.object(t)
	case first == '[':
		r.rest = r.rest[1:]
		for i := 0; r.more(']'); i++ {
			if wrong := r.value(t.Elem()); wrong != nil {
				return wrong.in(fmt.Sprintf("[%d]", i))
			}
		}
	default:
		r.skip()
	}
	return nil
}

// more reports whether a value follows, and reads the comma before it; or else the end.
func (r *reader) more(end byte) bool {
	switch r.next() {
	case end:
		r.rest = r.rest[1:]
		return false
	case ',':
		r.rest = r.rest[1:]
	}
	return true
}

// object reads what becomes a struct.
func (r *reader) object(t reflect.Type) *fault {
	fields := r.fieldsOf(t)
	seen := make([]bool, len(fields))
	r.rest = r.rest[1:]
	for r.more('}') {
		name := r.name()
		f, ok := fields[string(name)]
		switch {
		case !ok:
			return &fault{"", fmt.Sprintf("unknown field %.70q", name)}
		case seen[f.number]:
			return twice(name)
		}
		seen[f.number] = true
		if wrong := r.value(f.of); wrong != nil {
			return wrong.in("." + string(name))
		}
	}
	return nil
}

// named reads what becomes a map.
func (r *reader) named(of reflect.Type) *fault {
	seen := map[string]bool{}
	r.rest = r.rest[1:]
	for r.more('}') {
		name := string(r.name())
		if seen[name] {
			return twice([]byte(name))
		}
		seen[name] = true
		if wrong := r.value(of); wrong != nil {
			return wrong.in("." + name)
		}
	}
	return nil
}

func twice(name []byte) *fault { return &fault{"", fmt.Sprintf("field %.70q is given twice", name)} }

// name reads the name of a member, and the colon behind it.
func (r *reader) name() []byte {
	r.next()
	n := stringLength(r.rest)
	name := r.rest[1 : n-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var s string
		if json.Unmarshal(r.rest[:n], &s) == nil { // it is valid
			name = []byte(s)
		}
	}
	r.rest = r.rest[n:]
	r.next()
	r.rest = r.rest[1:]
	return name
}

// stringLength returns how long the string is that b begins with, its quotes counted.
func stringLength(b []byte) int {
	i := 1
	for b[i] != '"' {
		if b[i] == '\\' {
			i++
		}
		i++
	}
	return i + 1
}

// skip reads a value, whatever it is.
func (r *reader) skip() {
	for depth := 0; ; {
		switch r.next() {
		case '"':
			r.rest = r.rest[stringLength(r.rest):]
		case '{', '[':
			depth++
			r.rest = r.rest[1:]
		case '}', ']':
			depth--
			r.rest = r.rest[1:]
		case ',', ':':
			r.rest = r.rest[1:]
			continue
		default: // a number, or a word
			n := bytes.IndexAny(r.rest, ",:]} \t\r\n")
			if n < 0 {
				n = len(r.rest)
			}
			r.rest = r.rest[n:]
		}
		if depth == 0 {
			return
		}
	}
}

// fieldsOf returns the fields of a struct by the names that JSON has for them.
func (r *reader) fieldsOf(t reflect.Type) map[string]field {
	if fields := r.fields[t]; fields != nil {
		return fields
	}
	fields := make(map[string]field, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() && name != "" && name != "-" {
			fields[name] = field{len(fields), f.Type}
		}
	}
	r.fields[t] = fields
	return fields
}
