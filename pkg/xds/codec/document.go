package codec

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxNodes bounds the values of a document, each counted as often as an alias
// repeats it.
const maxNodes = 500_000

// document is a YAML or JSON file on its way to becoming a message. It is read
// along the message's descriptor so that each fault has a path and a line; what
// could not be read is left out of the message, so that one reading finds all.
type document struct {
	faults
	lines  map[string]int // of each path
	nodes  int
	parsed bool // the message is filled in, apart from what has faults
}

// parseDocument fills m from data.
func parseDocument(data []byte, m proto.Message) *document {
	d := &document{lines: map[string]int{}}
	if len(data) > MaxBootstrapBytes {
		d.add("", "%d bytes, more than %d", len(data), MaxBootstrapBytes)
		return d
	}
	root := d.parse(data)
	if root == nil {
		return d
	}
	tree := d.message(root, m.ProtoReflect().Descriptor(), "", 0)
	text, err := json.Marshal(tree)
	if err == nil {
		err = protojson.UnmarshalOptions{RecursionLimit: 4 * maxDepth}.Unmarshal(text, m)
	}
	if err != nil {
		d.add("", "not a %s: %v", m.ProtoReflect().Descriptor().FullName(), err)
		return d
	}
	d.parsed = true
	return d
}

// parse returns the one document in data, nil after a fault.
func (d *document) parse(data []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, more yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		d.add("", "is empty")
		return nil
	case err != nil:
		d.add("", "neither YAML nor JSON: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return nil
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		d.add("", "has more than one document")
		return nil
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		d.add("", "is empty")
		return nil
	}
	return root.Content[0]
}

// err gives every fault the line of the nearest thing above it that has one.
func (d *document) err() error {
	for i := range d.list {
		at := d.list[i].Path
		for at != "" && d.lines[at] == 0 {
			at = at[:max(0, strings.LastIndexAny(at, ".["))]
		}
		if at != "" {
			d.list[i].Line = d.lines[at]
		}
	}
	slices.SortStableFunc(d.list, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path))
	})
	return d.faults.err()
}

// enter follows an alias and keeps count. It returns nil where no more is read.
func (d *document) enter(n *yaml.Node, path string, depth int) *yaml.Node {
	if d.lines[path] == 0 {
		d.lines[path] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	d.nodes++
	switch {
	case depth > maxDepth:
		d.add(path, "is nested more than %d deep", maxDepth)
		return nil
	case d.nodes > maxNodes:
		d.add("", "has more than %d values", maxNodes)
		return nil
	case n == nil || n.Kind == yaml.AliasNode || isNull(n):
		return nil
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// pairs calls f for each key of a mapping, with its line, and notes those that are
// doubled.
func (d *document) pairs(n *yaml.Node, path string, f func(key string, line int, value *yaml.Node)) {
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			d.add(path, "line %d: a key must be a plain name", key.Line)
		case seen[key.Value]:
			d.add(field(path, clip(key.Value)), "is there twice, on line %d again", key.Line)
		default:
			seen[key.Value] = true
			f(key.Value, key.Line, n.Content[i+1])
		}
	}
}

// message reads a mapping as a message and returns it as protobuf JSON.
func (d *document) message(n *yaml.Node, md protoreflect.MessageDescriptor, path string, depth int) map[string]any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.add(path, "must be a mapping")
		return nil
	}
	tree, set := map[string]any{}, map[protoreflect.FullName]string{}
	d.pairs(n, path, func(key string, line int, value *yaml.Node) {
		if key == "@type" {
			return // of an Any, read by its reader; elsewhere no field has this name
		}
		fd := fieldNamed(md, key)
		if fd == nil {
			at := field(path, clip(key))
			d.lines[at] = line
			d.add(at, "no such field in %s", md.FullName())
			return
		}
		at := field(path, string(fd.Name()))
		d.lines[at] = line
		v := d.field(value, fd, at, depth+1)
		if v == nil {
			return
		}
		if one := fd.ContainingOneof(); one != nil {
			if other := set[one.FullName()]; other != "" {
				d.add(at, "is set beside %s, and one of them may be", other)
				return
			}
			set[one.FullName()] = string(fd.Name())
		}
		if tree[string(fd.Name())] != nil {
			d.add(at, "is there twice, in two spellings")
			return
		}
		tree[string(fd.Name())] = v
	})
	return tree
}

// fieldNamed finds a field by its name in protobuf or in JSON.
func fieldNamed(md protoreflect.MessageDescriptor, key string) protoreflect.FieldDescriptor {
	if fd := md.Fields().ByName(protoreflect.Name(key)); fd != nil {
		return fd
	}
	return md.Fields().ByJSONName(key)
}

// field returns nil for what is null or has a fault.
func (d *document) field(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) any {
	switch {
	case fd.IsMap():
		return d.mapping(n, fd.MapValue(), path, depth)
	case fd.IsList():
		return d.sequence(n, fd, path, depth)
	}
	return d.value(n, fd, path, depth)
}

func (d *document) mapping(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.add(path, "must be a mapping")
		return nil
	}
	tree := map[string]any{}
	d.pairs(n, path, func(key string, line int, value *yaml.Node) {
		d.lines[entry(path, key)] = line
		if v := d.value(value, fd, entry(path, key), depth+1); v != nil {
			tree[key] = v
		}
	})
	return tree
}

func (d *document) sequence(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, depth int) any {
	n = d.enter(n, path, depth)
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		d.add(path, "must be a list")
		return nil
	}
	list := []any{}
	for i, one := range n.Content {
		v := d.value(one, fd, item(path, i), depth+1)
		if v == nil {
			d.add(item(path, i), "must not be null")
			v = zero(fd)
		}
		list = append(list, v)
	}
	return list
}

// zero stands in for a list's element that has a fault, so that the indices of
// those that follow stay right.
func zero(fd protoreflect.FieldDescriptor) any {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return placeholder(fd.Message())
	case protoreflect.StringKind, protoreflect.BytesKind:
		return ""
	case protoreflect.BoolKind:
		return false
	default:
		return 0
	}
}
