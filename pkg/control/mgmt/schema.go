package mgmt

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxSchemaFaults bounds the answer to a body that is all wrong.
const maxSchemaFaults = 32

// maxElements bounds how many elements of a list are looked at one by one.
const maxElements = 1000

// schemaFaults says of a JSON object that cannot be read as m which of its fields are
// the cause: all of them, where protojson stops at the first. It finds none in what is
// no object, or has a field twice.
func schemaFaults(body []byte, m protoreflect.Message) []mesh.Fault {
	var s schema
	s.object("", body, m)
	return s.faults
}

type schema struct{ faults []mesh.Fault }

// object adds the faults of an object's fields, or returns false if it is none.
func (s *schema) object(path string, body []byte, m protoreflect.Message) bool {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return false
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if len(s.faults) >= maxSchemaFaults {
			break
		}
		s.field(path+clipName(name), name, fields[name], m)
	}
	return true
}

// field adds the faults of one field, by asking protojson for that alone.
func (s *schema) field(path, name string, value json.RawMessage, m protoreflect.Message) {
	fd := m.Descriptor().Fields().ByJSONName(name)
	if fd == nil {
		fd = m.Descriptor().Fields().ByTextName(name)
	}
	if fd == nil {
		s.faults = append(s.faults, mesh.Fault{Field: path, Reason: "there is no such field"})
		return
	}
	alone, err := json.Marshal(map[string]json.RawMessage{name: value})
	if err != nil || protojson.Unmarshal(alone, m.New().Interface()) == nil {
		return
	}
	before := len(s.faults)
	if isOurs(fd) {
		s.inside(path, value, m, fd)
	}
	if len(s.faults) == before {
		s.faults = append(s.faults, mesh.Fault{Field: path, Reason: mustBe(fd)})
	}
}

// inside adds the faults of a message within a message, or of a list of them.
func (s *schema) inside(path string, value json.RawMessage, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if !fd.IsList() {
		s.object(path+".", value, m.NewField(fd).Message())
		return
	}
	var elements []json.RawMessage
	if json.Unmarshal(value, &elements) != nil {
		return
	}
	before := len(s.faults)
	for i, e := range elements[:min(len(elements), maxElements)] {
		at := fmt.Sprintf("%s[%d]", path, i)
		if len(s.faults) < maxSchemaFaults && !s.object(at+".", e, m.NewField(fd).List().NewElement().Message()) {
			s.faults = append(s.faults, mesh.Fault{Field: at, Reason: "must be an object"})
		}
	}
	if len(s.faults) == before && len(elements) > maxElements {
		s.faults = append(s.faults, mesh.Fault{Field: path, Reason: fmt.Sprintf("one of the elements behind the first %d is not as the schema says", maxElements)})
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
