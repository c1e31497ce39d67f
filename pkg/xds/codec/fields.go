package codec

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxChanges bounds what is done to one head at one place.
const maxChanges = 100

// fielded is a message that says what is done to heads.
type fielded interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
}

// actions are Envoy's names. FieldRemove has none, for that is a list of its own.
func actions() map[mesh.FieldAction]corev3.HeaderValueOption_HeaderAppendAction {
	return map[mesh.FieldAction]corev3.HeaderValueOption_HeaderAppendAction{
		mesh.FieldAppend:        corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
		mesh.FieldAddIfAbsent:   corev3.HeaderValueOption_ADD_IF_ABSENT,
		mesh.FieldOverwrite:     corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		mesh.FieldOverwriteOnly: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS,
	}
}

// changesProto notes what the message could not express: Envoy takes fields out before it adds any.
func changesProto(f *faults, path string, changes []mesh.FieldChange) (add []*corev3.HeaderValueOption, remove []string) {
	for _, c := range changes {
		if c.How == mesh.FieldRemove {
			if len(add) > 0 {
				f.add(path, "takes %q out after others are added", clip(c.Name))
			}
			remove = append(remove, c.Name)
			continue
		}
		add = append(add, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: c.Name, Value: strings.ReplaceAll(c.Value, "%", "%%")},
			AppendAction: actions()[c.How], KeepEmptyValue: c.Value == "",
		})
	}
	return add, remove
}

// fieldsValue reads what is done to heads.
func fieldsValue(f *faults, path string, m fielded) mesh.FieldChanges {
	return mesh.FieldChanges{
		Request:  changesValue(f, path, "request", m.GetRequestHeadersToRemove(), m.GetRequestHeadersToAdd()),
		Response: changesValue(f, path, "response", m.GetResponseHeadersToRemove(), m.GetResponseHeadersToAdd()),
	}
}

func changesValue(f *faults, path, of string, remove []string, add []*corev3.HeaderValueOption) (changes []mesh.FieldChange) {
	at := field(path, of+"_headers_to_remove")
	if n := len(remove); n > maxChanges {
		f.add(at, "are %d, more than %d", n, maxChanges)
		return nil
	}
	for i, name := range remove {
		checkChanged(f, item(at, i), name)
		changes = append(changes, mesh.FieldChange{Name: name})
	}
	at = field(path, of+"_headers_to_add")
	if n := len(add); n > maxChanges {
		f.add(at, "are %d, more than %d", n, maxChanges)
		return nil
	}
	for i, m := range add {
		c := changeValue(f, item(at, i), m)
		if c.Value != "" || m.GetKeepEmptyValue() { // as in Envoy
			changes = append(changes, c)
		}
	}
	return changes
}

func changeValue(f *faults, path string, m *corev3.HeaderValueOption) mesh.FieldChange {
	c := mesh.FieldChange{Name: m.GetHeader().GetKey()}
	checkChanged(f, field(path, "header.key"), c.Name)
	c.Value = literal(f, field(path, "header.value"), m.GetHeader().GetValue())
	for how, name := range actions() {
		if name == m.GetAppendAction() {
			c.How = how
		}
	}
	if c.How == mesh.FieldRemove {
		f.add(field(path, "append_action"), "%s is %s", m.GetAppendAction(), notSupported)
	}
	before := m.GetAppend() //nolint:staticcheck // many files have it
	switch {
	case before == nil:
	case m.GetAppendAction() != corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		f.add(field(path, "append"), "must not be there with append_action")
	case !before.GetValue():
		c.How = mesh.FieldOverwrite
	}
	return c
}

// literal reads a value, in which two percent signs stand for one (Envoy's command operators).
func literal(f *faults, path, value string) string {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) || strings.TrimSpace(value) != value {
		f.add(path, "%q is not the value of a field: it may have no control characters, and no white space around it (RFC 9110 §5.5)", clip(value))
	}
	if len(value) > maxName {
		f.add(path, "is %d bytes long, more than %d", len(value), maxName)
	}
	if rest := strings.ReplaceAll(value, "%%", ""); strings.Contains(rest, "%") {
		f.add(path, "%q has a command operator, which is %s: say what it is to be, with %%%% for a percent sign", clip(value), notSupported)
	}
	return strings.ReplaceAll(value, "%%", "%")
}

// checkChanged refuses names that are none, and those whose fields the engine writes itself: of who
// is asked for, the framing, one connection, and what sidecars tell each other.
func checkChanged(f *faults, path, name string) {
	checkFieldName(f, path, name)
	switch lower := strings.ToLower(name); {
	case lower == "host":
		f.add(path, "%q cannot be changed so: say host_rewrite_literal", name)
	case strings.HasPrefix(lower, "fairlead-"):
		f.add(path, "%q cannot be changed: it is what sidecars tell each other and clients", clip(name))
	default:
		switch lower {
		case "connection", "content-length", "expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
			f.add(path, "%q cannot be changed: it says where messages end, or is of one connection only", name)
		}
	}
}

// checkFieldName wants a token.
func checkFieldName(f *faults, path, name string) {
	const symbols = "!#$%&'*+-.^_`|~"
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(symbols, r)
	}) {
		f.add(path, "%q is not the name of a field (RFC 9110 §5.1)", clip(name))
	}
}

// fieldedTo writes what is done to heads into a message of routes.
func fieldedTo(f *faults, path string, c mesh.FieldChanges, requestAdd, responseAdd *[]*corev3.HeaderValueOption, requestRemove, responseRemove *[]string) {
	*requestAdd, *requestRemove = changesProto(f, field(path, "request_headers_to_add"), c.Request)
	*responseAdd, *responseRemove = changesProto(f, field(path, "response_headers_to_add"), c.Response)
}
