package mgmt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxSchemaFaults bounds the answer to a body that is all wrong.
const maxSchemaFaults = 32

// maxElements bounds how many elements of a list or a map are looked at one by one.
const maxElements = 1000

// bodyError says all that is wrong with a body that cannot be read as its message.
type bodyError struct {
	faults []mesh.Fault // at least one
	// rest is the message as far as it can be read, nil if nothing can be said of it.
	rest protoreflect.Message
}

func (e *bodyError) Error() string {
	return (&mesh.InvalidError{What: "the body", Faults: e.faults}).Error()
}

// readBody sets m, which is empty, to what a JSON body says, or returns everything that
// is not as the schema says, where protojson stops at the first.
func readBody(body []byte, m protoreflect.Message) *bodyError {
	if protojson.Unmarshal(body, m.Interface()) == nil {
		return nil
	}
	// A body as a whole has the name that it has in the request over gRPC.
	whole := strings.ToLower(string(m.Descriptor().Name()))
	wrong := func(format string, args ...any) *bodyError {
		return &bodyError{faults: []mesh.Fault{{Field: whole, Reason: fmt.Sprintf(format, args...)}}}
	}
	text := bytes.TrimSpace(body)
	var valid json.RawMessage
	switch err := json.Unmarshal(text, &valid); {
	case len(text) == 0 || string(text) == "null":
		return wrong("is required: the request has no body")
	case !utf8.Valid(text):
		return wrong("must be JSON in UTF-8")
	case err != nil:
		return wrong("must be one JSON object: %v", err)
	case text[0] != '{':
		return wrong("must be an object")
	}
	s, rest := &schema{}, m.New()
	s.object("", text, rest)
	switch {
	case len(s.faults) == 0:
		return wrong("is not as the schema says")
	case len(s.faults) >= maxSchemaFaults:
		s.fault(whole, "has more faults than are told at once")
		return &bodyError{faults: s.faults}
	}
	return &bodyError{faults: s.faults, rest: rest}
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
		case len(s.faults) >= maxSchemaFaults:
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
		if list.Len() == maxElements || len(s.faults) >= maxSchemaFaults {
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
		if n == maxElements || len(s.faults) >= maxSchemaFaults {
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

func clipName(name string) string {
	const most = 70
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}
