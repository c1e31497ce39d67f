package meshctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	yaml "go.yaml.in/yaml/v3"
)

// maxNested is how deep a YAML document may be: one whose anchor is in itself has no end.
const maxNested = 1000

// jsonOf returns the JSON that a YAML document stands for. Numbers keep all their digits: no float64 is in between.
func jsonOf(text []byte) ([]byte, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var n, more yaml.Node
	if err := decoder.Decode(&n); errors.Is(err, io.EOF) {
		return nil, errors.New("there is nothing but comments in it")
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(&more); err == nil {
		return nil, fmt.Errorf("line %d: a second document begins: one saga is started at a time", more.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	var out bytes.Buffer
	if err := writeJSON(&out, &n, 0); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeJSON(out *bytes.Buffer, n *yaml.Node, depth int) error {
	at := func(format string, args ...any) error {
		return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
	}
	switch {
	case depth > maxNested:
		return at("this is nested more than %d deep", maxNested)
	case out.Len() > maxFile: // by aliases of aliases
		return at("this stands for more than %d bytes", maxFile)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return writeJSON(out, n.Content[0], depth)
	case yaml.AliasNode:
		return writeJSON(out, n.Alias, depth+1)
	case yaml.SequenceNode:
		out.WriteByte('[')
		for i, e := range n.Content {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := writeJSON(out, e, depth+1); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return nil
	case yaml.MappingNode:
		return writeObject(out, n, depth)
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		out.WriteString("null")
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return at("%w", err)
		}
		fmt.Fprint(out, b)
	case "!!int", "!!float":
		if !json.Valid([]byte(n.Value)) {
			return at("%q is no number in JSON (RFC 8259 §6): write it in decimal digits, or quote it if it is a text", n.Value)
		}
		out.WriteString(n.Value)
	case "!!str", "!!timestamp":
		return writeString(out, n.Value)
	default:
		return at("JSON has nothing for %s", tag)
	}
	return nil
}

func writeObject(out *bytes.Buffer, n *yaml.Node, depth int) error {
	out.WriteByte('{')
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode:
			return fmt.Errorf("line %d: a name is a text", key.Line)
		case key.ShortTag() == "!!merge":
			return fmt.Errorf("line %d: << is not read: write out what it stands for", key.Line)
		case seen[key.Value]:
			return fmt.Errorf("line %d: %q is given more than once", key.Line, key.Value)
		}
		seen[key.Value] = true
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeString(out, key.Value); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := writeJSON(out, n.Content[i+1], depth+1); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// writeString writes a text without escaping what HTML would need.
func writeString(out *bytes.Buffer, s string) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		return err
	}
	out.Truncate(out.Len() - 1) // the line end
	return nil
}

// yamlOf returns JSON as YAML, in its order, numbers as they are.
func yamlOf(text []byte) ([]byte, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	n, err := nodeOf(decoder)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(n), encoder.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func nodeOf(decoder *json.Decoder) (*yaml.Node, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := token.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for decoder.More() {
			// The names of an object come as texts, between their values.
			e, err := nodeOf(decoder)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, e)
		}
		_, err = decoder.Token()
	case string:
		n.Tag, n.Value = "!!str", v
	case nil:
		n.Value = "null"
	default: // a number or a truth value
		n.Value = fmt.Sprint(v)
	}
	return n, err
}
