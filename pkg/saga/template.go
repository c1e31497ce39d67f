package saga

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// template is text with places to fill in: ${steps.reserve.result.id}, ${steps.reserve.result.items.0:-none}, ${saga.id}. $${ is ${ as
// text.
type template []part

// part is text, or a place.
type part struct {
	text string // as it is, where the source is empty

	source     string   // of a place, as it is written
	step       string   // whose result is read; empty: it is the saga's id
	path       []string // into the result
	fallback   string   // what there is if the result has no such thing
	hasDefault bool
}

func (p *part) isText() bool { return p.source == "" }

// parseTemplate reads a template, which may be text only.
func parseTemplate(s string) (template, error) {
	var t template
	var text strings.Builder
	end := func() {
		if text.Len() > 0 {
			t = append(t, part{text: text.String()})
			text.Reset()
		}
	}
	for {
		at := strings.Index(s, "${")
		if at < 0 {
			break
		}
		if at > 0 && s[at-1] == '$' {
			text.WriteString(s[:at] + "{")
			s = s[at+2:]
			continue
		}
		text.WriteString(s[:at])
		n := strings.IndexByte(s[at:], '}')
		if n < 0 {
			return nil, fmt.Errorf("%.100q is not ended by }; write $${ for the text ${", s[at:])
		}
		p, err := parsePlace(s[at : at+n+1])
		if err != nil {
			return nil, err
		}
		end()
		t = append(t, p)
		s = s[at+n+1:]
	}
	text.WriteString(s)
	end()
	return t, nil
}

func parsePlace(source string) (part, error) {
	p := part{source: source}
	inner := source[2 : len(source)-1]
	inner, p.fallback, p.hasDefault = strings.Cut(inner, ":-")
	if inner == "saga.id" {
		return p, nil
	}
	names := strings.Split(inner, ".")
	if len(names) < 3 || names[0] != "steps" || names[1] == "" || names[2] != "result" {
		return p, fmt.Errorf("%.100s is neither ${saga.id} nor ${steps.NAME.result…}; write $${ for the text ${", source)
	}
	p.step, p.path = names[1], names[3:]
	return p, nil
}

// scope says what may be read at a place of a definition.
type scope struct {
	definition *Definition
	readable   set // the steps whose results may be read
	own        int // the step that is undone, whose result there need not be; -1: none
}

// Results are what the actions of a saga answered, by the names of steps: JSON. A step without one is not in it.
type Results map[string]json.RawMessage

// errNoValue is of a place for which there is no value, nor a default.
var errNoValue = errors.New("there is no such value, and no default")

// source is what the places of a call are filled in from.
type source struct {
	id      string
	results Results
	// parsed are the objects and arrays that were looked into, by the names that lead there: however many places there are, each is parsed once.
	parsed map[string]parsed
}

type parsed struct {
	fields   map[string]json.RawMessage
	elements []json.RawMessage
}

// look returns the value of a place, as JSON.
func (p *part) look(from *source) (json.RawMessage, error) {
	if p.step == "" {
		return json.Marshal(from.id)
	}
	v := from.results[p.step]
	where := p.step
	for _, name := range p.path {
		v = from.member(v, where, name)
		where += "." + name
	}
	switch {
	case len(v) > 0:
		return v, nil
	case !p.hasDefault:
		return nil, fmt.Errorf("%.100s: %w", p.source, errNoValue)
	case json.Valid([]byte(p.fallback)):
		return json.RawMessage(p.fallback), nil
	default:
		return json.Marshal(p.fallback)
	}
}

// member returns what the object at a place has by a name, or the array at an index; nil if that is nothing.
func (f *source) member(v json.RawMessage, where, name string) json.RawMessage {
	v = bytes.TrimSpace(v)
	if len(v) == 0 || v[0] != '{' && v[0] != '[' {
		return nil
	}
	in, ok := f.parsed[where]
	if !ok {
		var err error
		if v[0] == '{' {
			err = json.Unmarshal(v, &in.fields)
		} else {
			err = json.Unmarshal(v, &in.elements)
		}
		if err != nil {
			in = parsed{}
		}
		f.parsed[where] = in
	}
	if v[0] == '{' {
		return in.fields[name]
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(in.elements) {
		return in.elements[i]
	}
	return nil
}

// scalar returns a value as text: a string without its quotes, a number or a truth value as JSON has it, null as nothing.
func scalar(v json.RawMessage) (string, error) {
	switch v = bytes.TrimSpace(v); v[0] {
	case '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case '{', '[':
		return "", errors.New("the value is no text, number or truth value, and so cannot be a part of a text")
	case 'n':
		return "", nil
	}
	return string(v), nil
}

// fillText fills in a template whose values are parts of a text, each through escape. What becomes longer than limit is an error.
func fillText(s string, from *source, limit int, escape func(string) (string, error)) (string, error) {
	t, err := parseTemplate(s)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i := range t {
		text := t[i].text
		if !t[i].isText() {
			v, err := t[i].look(from)
			if err != nil {
				return "", err
			}
			if text, err = scalar(v); err == nil {
				text, err = escape(text)
			}
			if err != nil {
				return "", fmt.Errorf("%.100s: %w", t[i].source, err)
			}
		}
		if b.WriteString(text); b.Len() > limit {
			return "", fmt.Errorf("it has more than %d bytes with its values", limit)
		}
	}
	return b.String(), nil
}

// escapePath lets a value be a part of a path or a query, and never more than that: all but the unreserved characters is
// percent-encoded (RFC 3986 §2.1, §2.3).
func escapePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("the value is empty, which would lead to another path")
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String(), nil
}

// hasDots reports whether a path has a segment that leads elsewhere (RFC 3986 §3.3), however it is spelled (§6.2.2.2).
func hasDots(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	path = strings.ReplaceAll(strings.ReplaceAll(path, "%2e", "."), "%2E", ".")
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// escapeHeader lets a value be a part of a field's value.
func escapeHeader(s string) (string, error) {
	if !isFieldValue(s) {
		return "", errors.New("the value has line ends or other control characters, which no header has")
	}
	return s, nil
}

// escapeMetadata is escapeHeader for gRPC.
func escapeMetadata(s string) (string, error) {
	if !isMetadata(s) {
		return "", errors.New("the value has more than printable ASCII, which metadata of gRPC has not")
	}
	return s, nil
}

// mayHavePlaces reports whether JSON may have a place in a string: a character of ${ may be written as its code.
func mayHavePlaces(body json.RawMessage) bool {
	return bytes.Contains(body, []byte("${")) || bytes.Contains(body, []byte(`\u0024`)) || bytes.Contains(bytes.ToLower(body), []byte(`\u007b`))
}

// fillBody fills in the strings of a body. One that is a place and nothing else becomes what is there, whatever its type. What becomes longer than MaxBodyBytes is an error.
func fillBody(body json.RawMessage, from *source) (json.RawMessage, error) {
	if !mayHavePlaces(body) {
		return body, nil
	}
	return mapStrings(body, MaxBodyBytes, func(s string) (json.RawMessage, error) {
		if !strings.Contains(s, "${") {
			return nil, nil
		}
		t, err := parseTemplate(s)
		if err != nil {
			return nil, err
		}
		if len(t) == 1 && !t[0].isText() {
			return t[0].look(from)
		}
		filled, err := fillText(s, from, MaxBodyBytes, func(s string) (string, error) { return s, nil })
		if err != nil {
			return nil, err
		}
		return Marshal(filled)
	})
}

// mapStrings returns JSON with each string that is a value replaced by what f makes of it, or as it is if that is nil. All else stays as it is, byte by byte. What becomes longer than
// limit is an error.
func mapStrings(body json.RawMessage, limit int, f func(string) (json.RawMessage, error)) (json.RawMessage, error) {
	var out bytes.Buffer
	for i := 0; i < len(body); {
		if out.Len() > limit {
			return nil, fmt.Errorf("it has more than %d bytes with its values", limit)
		}
		if body[i] != '"' {
			out.WriteByte(body[i])
			i++
			continue
		}
		end := i + 1
		for body[end] != '"' {
			if body[end] == '\\' {
				end++
			}
			end++
		}
		literal := body[i : end+1]
		i = end + 1
		if rest := bytes.TrimLeft(body[i:], " \t\r\n"); len(rest) > 0 && rest[0] == ':' {
			out.Write(literal) // a member's name
			continue
		}
		var s string
		if err := json.Unmarshal(literal, &s); err != nil {
			return nil, err
		}
		v, err := f(s)
		if err != nil {
			return nil, err
		}
		if v == nil {
			v = literal
		}
		out.Write(v)
	}
	return out.Bytes(), nil
}

// eachString calls f with each string of a body that is a value.
func eachString(body json.RawMessage, f func(string)) error {
	_, err := mapStrings(body, len(body), func(s string) (json.RawMessage, error) {
		f(s)
		return nil, nil
	})
	return err
}

// HasPlaces reports whether a call has templates, or what looks like one.
func (c *Call) HasPlaces() bool {
	if strings.Contains(c.Path, "${") || mayHavePlaces(c.Body) {
		return true
	}
	for _, value := range c.Headers {
		if strings.Contains(value, "${") {
			return true
		}
	}
	return false
}

// Fill returns a call with its templates filled in, for a client to make as it is. It fails if a value is not there and has
// no default, or may not be where it is to go.
func (c *Call) Fill(id string, results Results) (*Call, error) {
	out := *c
	from := &source{id: id, results: results, parsed: map[string]parsed{}}
	path, err := fillText(c.Path, from, MaxPathBytes, escapePath)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	if hasDots(path) {
		return nil, fmt.Errorf("path: %.100q has a segment of dots, which leads elsewhere", path)
	}
	out.Path = path
	if len(c.Headers) > 0 {
		out.Headers = make(map[string]string, len(c.Headers))
	}
	escape := escapeHeader
	if c.GRPC != "" {
		escape = escapeMetadata
	}
	for name, value := range c.Headers {
		v, err := fillText(value, from, MaxHeaderBytes-len(name), escape)
		if err != nil {
			return nil, fmt.Errorf("headers[%q]: %w", name, err)
		}
		out.Headers[name] = v
	}
	body, err := fillBody(c.Body, from)
	if err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if len(body) > MaxBodyBytes { // by the last value
		return nil, fmt.Errorf("body: it has more than %d bytes with its values", MaxBodyBytes)
	}
	out.Body = body
	return &out, nil
}
