package codec

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
)

const wellKnown = "google.protobuf."

// value reads what is neither a map nor a list.
func (d *document) value(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) any {
	if fd.Message() == nil {
		n = d.enter(n, path, depth)
		if n == nil {
			return nil
		}
		return d.scalar(n, fd, path)
	}
	name := string(fd.Message().FullName())
	switch {
	case name == anyName:
		return d.any(n, path, depth)
	case name == wellKnown+"Duration":
		return d.duration(n, path, depth)
	case name == wellKnown+"Struct":
		if tree, ok := d.free(n, path, depth).(map[string]any); ok {
			return tree
		}
		d.add(path, "must be a mapping")
		return nil
	case isWrapper(name):
		return d.value(n, fd.Message().Fields().ByName("value"), path, depth)
	case strings.HasPrefix(name, wellKnown):
		d.add(path, notSupported)
		return nil
	}
	tree := d.message(n, fd.Message(), path, depth)
	if tree == nil {
		return nil
	}
	return tree
}

// isWrapper reports whether a message is written as the one scalar in it.
func isWrapper(name string) bool {
	kind, ok := strings.CutPrefix(name, wellKnown)
	if !ok {
		return false
	}
	kind, ok = strings.CutSuffix(kind, "Value")
	return ok && kind != "" && kind != "List"
}

// placeholder is an empty value of a message in JSON.
func placeholder(md protoreflect.MessageDescriptor) any {
	name := string(md.FullName())
	switch {
	case isWrapper(name):
		return zero(md.Fields().ByName("value"))
	case name == wellKnown+"Duration":
		return "0s"
	}
	return map[string]any{}
}

// any reads a mapping whose @type says which message it is.
func (d *document) any(n *yaml.Node, path string, depth int) any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	var url string
	if n.Kind == yaml.MappingNode {
		d.pairs(n, path, func(key string, _ int, value *yaml.Node) {
			if key == "@type" {
				url = value.Value
			}
		})
	}
	if url == "" {
		d.add(path, "must be a mapping with an @type")
		return nil
	}
	full, ok := strings.CutPrefix(url, typePrefix)
	t, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(full))
	if !ok || err != nil || strings.HasPrefix(full, wellKnown) {
		d.add(path, "type %q is %s", clip(url), notSupported)
		return nil
	}
	tree := d.message(n, t.Descriptor(), path, depth)
	if tree == nil {
		return nil
	}
	tree["@type"] = url
	return tree
}

func (d *document) duration(n *yaml.Node, path string, depth int) any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	text, err := json.Marshal(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || protojson.Unmarshal(text, &durationpb.Duration{}) != nil {
		d.add(path, "is %q, not a duration in seconds such as 0.25s", clip(n.Value))
		return nil
	}
	return n.Value
}

// scalar reads a string, a number, a truth value or the name of an enum's value.
func (d *document) scalar(n *yaml.Node, fd protoreflect.FieldDescriptor, path string) any {
	if n.Kind != yaml.ScalarNode {
		d.add(path, "must be a single value")
		return nil
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if n.Tag == "!!binary" { // which may be a key, and is not shown
			d.add(path, "must be a string, not binary")
			return nil
		}
		if n.Tag != "!!str" && n.Tag != "!!timestamp" {
			d.add(path, "must be a string: put %s in quotes", clip(n.Value))
			return nil
		}
		return n.Value
	case protoreflect.BytesKind:
		return d.base64(n, path)
	case protoreflect.BoolKind:
		var b bool
		if n.Tag != "!!bool" || n.Decode(&b) != nil {
			d.add(path, "is %q, not true or false", clip(n.Value))
			return nil
		}
		return b
	case protoreflect.EnumKind:
		return d.enum(n, fd.Enum(), path)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return d.float(n, path)
	default:
		return d.integer(n, fd.Kind(), path)
	}
}

// enum reads the name of a value in upper or lower case, as Envoy does, or its number.
func (d *document) enum(n *yaml.Node, ed protoreflect.EnumDescriptor, path string) any {
	for _, name := range []string{n.Value, strings.ToUpper(n.Value)} {
		if ed.Values().ByName(protoreflect.Name(name)) != nil {
			return name
		}
	}
	number, err := strconv.ParseInt(n.Value, 10, 32)
	if err != nil || ed.Values().ByNumber(protoreflect.EnumNumber(number)) == nil {
		d.add(path, "%q is no value of %s", clip(n.Value), ed.FullName())
		return nil
	}
	return number
}

func (d *document) float(n *yaml.Node, path string) any {
	var v float64
	if (n.Tag != "!!float" && n.Tag != "!!int") || n.Decode(&v) != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		d.add(path, "is %q, not a number", clip(n.Value))
		return nil
	}
	return v
}

// integer also reads numbers in quotes, as protobuf JSON does.
func (d *document) integer(n *yaml.Node, kind protoreflect.Kind, path string) any {
	text := strings.ReplaceAll(n.Value, "_", "")
	base := 0
	if n.Tag == "!!str" {
		text, base = n.Value, 10
	}
	if isUnsigned(kind) {
		if v, err := strconv.ParseUint(text, base, bits(kind)); err == nil {
			return json.Number(strconv.FormatUint(v, 10))
		}
	} else if v, err := strconv.ParseInt(text, base, bits(kind)); err == nil {
		return json.Number(strconv.FormatInt(v, 10))
	}
	d.add(path, "is %q, not a whole number of type %s", clip(n.Value), kind)
	return nil
}

func isUnsigned(kind protoreflect.Kind) bool {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return true
	}
	return false
}

func bits(kind protoreflect.Kind) int {
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Sint32Kind, protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind:
		return 32
	}
	return 64
}

// base64 reads bytes, of which a key may consist: no fault shows them.
func (d *document) base64(n *yaml.Node, path string) any {
	text := strings.Join(strings.Fields(n.Value), "")
	encoding := base64.StdEncoding
	if strings.ContainsAny(text, "-_") {
		encoding = base64.URLEncoding
	}
	if len(text)%4 != 0 {
		encoding = encoding.WithPadding(base64.NoPadding)
	}
	if _, err := encoding.DecodeString(text); err != nil || n.Tag != "!!str" && n.Tag != "!!binary" && n.Tag != "!!int" {
		d.add(path, "must be base64 (RFC 4648 §4)")
		return nil
	}
	return text
}

// free reads what no descriptor describes: the contents of a Struct.
func (d *document) free(n *yaml.Node, path string, depth int) any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		tree := map[string]any{}
		d.pairs(n, path, func(key string, _ int, value *yaml.Node) {
			tree[key] = d.free(value, field(path, clip(key)), depth+1)
		})
		return tree
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, one := range n.Content {
			list = append(list, d.free(one, item(path, i), depth+1))
		}
		return list
	}
	switch n.Tag {
	case "!!int", "!!float":
		return d.float(n, path)
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	}
	return n.Value
}
