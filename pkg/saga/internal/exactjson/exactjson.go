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
	d = json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	w := walker{d: d, fields: map[reflect.Type]map[string]reflect.Type{}}
	return w.value(reflect.TypeOf(v))
}

// walker reads a value once more, for its names.
type walker struct {
	d      *json.Decoder
	path   []place                                  // where it is
	fields map[reflect.Type]map[string]reflect.Type // of structs, by the names that JSON has for them
}

// place is a member of an object, or an element of an array.
type place struct {
	name  string
	index int // -1: it is a member
}

// value reads one that becomes a t.
func (w *walker) value(t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		var skipped json.RawMessage
		return w.d.Decode(&skipped)
	}
	token, err := w.d.Token()
	switch {
	case err != nil:
		return err
	case token == json.Delim('{'):
		return w.object(t)
	case token == json.Delim('['):
		for i := 0; w.d.More(); i++ {
			if err := w.in(place{index: i}, t.Elem()); err != nil {
				return err
			}
		}
		_, err = w.d.Token()
	}
	return err
}

// in reads the value at a place within where it is.
func (w *walker) in(p place, t reflect.Type) error {
	w.path = append(w.path, p)
	err := w.value(t)
	w.path = w.path[:len(w.path)-1]
	return err
}

func (w *walker) object(t reflect.Type) error {
	seen := map[string]bool{}
	for w.d.More() {
		token, err := w.d.Token()
		if err != nil {
			return err
		}
		name := token.(string) //nolint:forcetypeassert // Decode has found an object here
		if seen[name] {
			return fmt.Errorf("%sfield %.70q is given twice", w.at(), name)
		}
		seen[name] = true
		var of reflect.Type
		if t.Kind() == reflect.Map {
			of = t.Elem()
		} else if of = w.fieldsOf(t)[name]; of == nil {
			return fmt.Errorf("%sunknown field %.70q", w.at(), name)
		}
		if err := w.in(place{name, -1}, of); err != nil {
			return err
		}
	}
	_, err := w.d.Token()
	return err
}

// at says where it is, before what is wrong there: "steps[1].action: ".
func (w *walker) at() string {
	var b strings.Builder
	for _, p := range w.path {
		switch {
		case p.index >= 0:
			fmt.Fprintf(&b, "[%d]", p.index)
		case b.Len() > 0:
			b.WriteString("." + p.name)
		default:
			b.WriteString(p.name)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + ": "
}

// fieldsOf returns the types of the fields of a struct.
func (w *walker) fieldsOf(t reflect.Type) map[string]reflect.Type {
	if fields, ok := w.fields[t]; ok {
		return fields
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if _, ok := fields[name]; !ok && f.IsExported() {
			fields[name] = f.Type
		}
	}
	w.fields[t] = fields
	return fields
}
