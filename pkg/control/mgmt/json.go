package mgmt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
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

// NewDecoder implements [runtime.Marshaler].
func (j plainJSON) NewDecoder(r io.Reader) runtime.Decoder {
	d := json.NewDecoder(r)
	first := runtime.DecoderWrapper{Decoder: d, UnmarshalOptions: j.UnmarshalOptions}
	return runtime.DecoderFunc(func(v any) error {
		switch err := first.Decode(v); {
		case errors.Is(err, io.EOF):
			return errors.New("the request has no body")
		case err != nil:
			return fmt.Errorf("the body is not as the schema says: %w", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return errors.New("the body goes on after its JSON")
		}
		return nil
	})
}
