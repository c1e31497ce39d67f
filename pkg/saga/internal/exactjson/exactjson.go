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
	"slices"
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
	return walk(d, reflect.TypeOf(v), "")
}

// walk reads a value that becomes a t.
func walk(d *json.Decoder, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		var skipped json.RawMessage
		return d.Decode(&skipped)
	}
	token, err := d.Token()
	switch {
	case err != nil:
		return err
	case token == json.Delim('{'):
		return object(d, t, path)
	case token == json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := walk(d, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}

func object(d *json.Decoder, t reflect.Type, path string) error {
	at := ""
	if path != "" {
		at = path + ": "
	}
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name := token.(string) //nolint:forcetypeassert // Decode has found an object here
		if seen[name] {
			return fmt.Errorf("%sfield %.70q is given twice", at, name)
		}
		seen[name] = true
		var of reflect.Type
		if t.Kind() == reflect.Map {
			of = t.Elem()
		} else if of = fieldOf(t, name); of == nil {
			return fmt.Errorf("%sunknown field %.70q", at, name)
		}
		if err := walk(d, of, strings.TrimPrefix(path+"."+name, ".")); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// fieldOf returns the type of the field that JSON calls name; nil: there is none.
func fieldOf(t reflect.Type, name string) reflect.Type {
	fields := reflect.VisibleFields(t)
	i := slices.IndexFunc(fields, func(f reflect.StructField) bool {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return tag == name && f.IsExported()
	})
	if i < 0 {
		return nil
	}
	return fields[i].Type
}
