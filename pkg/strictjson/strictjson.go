// Package strictjson reads JSON as a protobuf message, and says in plain words all that is
// wrong with it: whoever writes it by hand mends it in one go.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxFaults bounds what is said of a text that is all wrong.
const maxFaults = 32

// maxElements bounds how many elements of a list or a map are looked at one by one.
const maxElements = 1000

// Unmarshal sets m to what a JSON text says, as protojson does, and returns everything
// that is not as the schema says, where protojson stops at the first. The path of a
// fault's field begins in m; "" is m as a whole, and then it is the only one or the last,
// and m says too little to look for what else is wrong with it. Else m is what can be
// read beside the faults.
func Unmarshal(text []byte, m proto.Message) []mesh.Fault {
	if protojson.Unmarshal(text, m) == nil {
		return nil
	}
	proto.Reset(m)
	whole := func(format string, args ...any) []mesh.Fault {
		return []mesh.Fault{{Reason: fmt.Sprintf(format, args...)}}
	}
	text = bytes.TrimSpace(text)
	var valid json.RawMessage
	switch err := json.Unmarshal(text, &valid); {
	case len(text) == 0 || string(text) == "null":
		return whole("is required")
	case !utf8.Valid(text):
		return whole("must be JSON in UTF-8")
	case err != nil:
		return whole("must be one JSON object: %v", err)
	case text[0] != '{':
		return whole("must be an object")
	}
	s := &schema{}
	s.object("", text, m.ProtoReflect())
	switch {
	case len(s.faults) == 0:
		return whole("is not as the schema says")
	case len(s.faults) >= maxFaults:
		s.fault("", "has more faults than are told at once")
	}
	return s.faults
}

// schema walks through valid JSON.
type schema struct{ faults []mesh.Fault }

func (s *schema) fault(path, reason string) {
	s.faults = append(s.faults, mesh.Fault{Field: path, Reason: reason})
}

// object sets m to what an object says, and adds the faults of its fields.
func (s *schema) object(path string, object []byte, m protoreflect.Message) {
	seen := map[string]int{}
	for name, value := range members(object) {
		fd := m.Descriptor().Fields().ByJSONName(name)
		if fd == nil {
			fd = m.Descriptor().Fields().ByTextName(name)
		}
		at := path + clipName(name)
		if fd != nil {
			at = path + fd.JSONName()
		}
		seen[at]++
		switch {
		case len(s.faults) >= maxFaults:
			return
		case fd == nil && seen[at] == 1:
			s.fault(at, "there is no such field")
		case fd != nil && seen[at] == 1:
			s.field(at, value, m, fd)
		case fd != nil && seen[at] == 2:
			m.Clear(fd)
			s.fault(at, "is given more than once")
		}
	}
}

// field sets one field, by asking protojson for that alone, or adds its faults.
func (s *schema) field(path string, value json.RawMessage, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if setAlone(m, fd, value) {
		return
	}
	before := len(s.faults)
	switch {
	case fd.IsMap() && value[0] == '{':
		s.entries(path, value, m, fd)
	case fd.IsList() && isOurs(fd) && value[0] == '[':
		s.elements(path, value, m.Mutable(fd).List())
	case !fd.IsMap() && !fd.IsList() && isOurs(fd) && value[0] == '{':
		s.object(path+".", value, m.Mutable(fd).Message())
	}
	if len(s.faults) == before {
		s.fault(path, mustBe(fd))
	}
}

// setAlone reports whether a value can be read as the field's, and sets it.
func setAlone(m protoreflect.Message, fd protoreflect.FieldDescriptor, value json.RawMessage) bool {
	alone := m.New()
	if protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", fd.JSONName(), value), alone.Interface()) != nil {
		return false
	}
	if alone.Has(fd) {
		m.Set(fd, alone.Get(fd))
	}
	return true
}

// elements appends the messages of a list.
func (s *schema) elements(path string, value json.RawMessage, list protoreflect.List) {
	for _, element := range members(value) {
		at := fmt.Sprintf("%s[%d]", path, list.Len())
		if list.Len() == maxElements {
			s.fault(path, fmt.Sprintf("has more than %d elements, and one of them is not as the schema says", maxElements))
		}
		if list.Len() == maxElements || len(s.faults) >= maxFaults {
			return
		}
		m := list.AppendMutable().Message()
		if element[0] == '{' {
			s.object(at+".", element, m)
		} else {
			s.fault(at, "must be an object")
		}
	}
}

// entries sets a map whose keys are texts.
func (s *schema) entries(path string, value json.RawMessage, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	told := map[string]bool{}
	into := m.Mutable(fd).Map()
	n := 0
	for name, element := range members(value) {
		if n == maxElements {
			s.fault(path, fmt.Sprintf("has more than %d entries, and one of them is not as the schema says", maxElements))
		}
		if n == maxElements || len(s.faults) >= maxFaults {
			return
		}
		n++
		at, key := fmt.Sprintf("%s[%.70q]", path, name), protoreflect.ValueOfString(name).MapKey()
		entry, _ := json.Marshal(map[string]json.RawMessage{name: element}) // of what was valid JSON before
		alone := m.New()
		switch {
		case protojson.Unmarshal(fmt.Appendf(nil, "{%q:%s}", fd.JSONName(), entry), alone.Interface()) != nil:
			s.fault(at, mustBe(fd.MapValue()))
		case into.Has(key) && !told[name]:
			told[name] = true
			s.fault(at, "is given more than once")
		default:
			into.Set(key, alone.Get(fd).Map().Get(key))
		}
	}
}

// members yields what an object or a list holds, in its order and with what is there
// twice; the elements of a list have no names. value is valid JSON.
func members(value []byte) iter.Seq2[string, json.RawMessage] {
	return func(yield func(string, json.RawMessage) bool) {
		d := json.NewDecoder(bytes.NewReader(value))
		_, _ = d.Token() // the bracket
		for d.More() {
			var name string
			if value[0] == '{' {
				t, _ := d.Token()
				name, _ = t.(string)
			}
			var member json.RawMessage
			if d.Decode(&member) != nil || !yield(name, member) {
				return
			}
		}
	}
}

// isOurs reports whether a field holds messages that JSON writes as objects with the
// message's fields, which those of Google do not.
func isOurs(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsMap() && fd.Message().FullName().Parent() != "google.protobuf"
}

// mustBe says in plain words what JSON a field takes.
func mustBe(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return `must be an object of names and texts, such as {"version":"v1"}`
	case fd.IsList():
		return "must be a list"
	}
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return "must be true or false"
	case protoreflect.StringKind:
		return "must be a text"
	case protoreflect.Uint32Kind:
		return "must be a whole number from 0 to 4294967295"
	case protoreflect.Int64Kind:
		return "must be a whole number"
	case protoreflect.EnumKind:
		var names []string
		for i := range fd.Enum().Values().Len() {
			names = append(names, string(fd.Enum().Values().Get(i).Name()))
		}
		return "must be one of " + strings.Join(names, ", ")
	case protoreflect.MessageKind:
		switch fd.Message().FullName() {
		case "google.protobuf.Duration":
			return `must be a duration in seconds, such as "1.5s"`
		case "google.protobuf.Timestamp":
			return `must be a time, such as "2006-01-02T15:04:05Z"`
		}
		return "must be an object"
	default:
		return "must be a " + fd.Kind().String()
	}
}

// clipName bounds a name that is none of the schema's; the empty one can be seen.
func clipName(name string) string {
	const most = 70
	switch {
	case name == "":
		return `""`
	case len(name) > most:
		return strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}
