package mgmt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// plainJSON is the gateway's JSON without its surprises. It writes no spaces, which
// protojson varies from process to process: scripts compare what they read. It
// refuses bodies that are missing or go on after their end.
type plainJSON struct{ *runtime.JSONPb }

// marshaler writes JSON as the schema names it, with the fields that are empty, and
// refuses fields that it does not know.
func marshaler() plainJSON {
	return plainJSON{&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}
}

// Marshal implements [runtime.Marshaler].
func (j plainJSON) Marshal(v any) ([]byte, error) {
	b, err := j.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, b)
	return compact.Bytes(), err
}

// NewDecoder implements [runtime.Marshaler]. It leaves with the body, if that is a
// [requestBody], which fields are not as the schema says.
func (j plainJSON) NewDecoder(r io.Reader) runtime.Decoder {
	d := json.NewDecoder(r)
	return runtime.DecoderFunc(func(v any) error {
		var text json.RawMessage
		switch err := d.Decode(&text); {
		case errors.Is(err, io.EOF):
			return errors.New("the request has no body")
		case err != nil:
			return fmt.Errorf("the body is not as the schema says: %w", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return errors.New("the body goes on after its JSON")
		}
		err := j.Unmarshal(text, v)
		if err == nil {
			return nil
		}
		if faults := schemaFaults(text, messageOf(v)); len(faults) > 0 {
			invalid := &mesh.InvalidError{What: "the body", Faults: faults}
			if body, ok := r.(*requestBody); ok {
				body.invalid = invalid
			}
			return invalid
		}
		return fmt.Errorf("the body is not as the schema says: %w", err)
	})
}

// messageOf returns the message that v is, or is a pointer to.
func messageOf(v any) protoreflect.Message {
	if m, ok := v.(proto.Message); ok {
		return m.ProtoReflect()
	}
	return reflect.ValueOf(v).Elem().Interface().(proto.Message).ProtoReflect()
}

// requestBody is a request's body, and what was found wrong with it: the gateway makes
// a text of a decoder's error.
type requestBody struct {
	io.ReadCloser
	invalid *mesh.InvalidError // nil: nothing, or nothing about a field
}
