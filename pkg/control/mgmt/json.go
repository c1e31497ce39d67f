package mgmt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/strictjson"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
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

// NewDecoder implements [runtime.Marshaler]. r is bounded; if it is a [requestBody],
// what is wrong with it is left there.
func (j plainJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		text, err := io.ReadAll(r)
		if err == nil {
			into := messageOf(v)
			bad := readBody(text, into)
			if bad == nil {
				return nil
			}
			err = bad
		}
		if body, ok := r.(*requestBody); ok {
			body.err = err
		}
		return fmt.Errorf("the body cannot be read: %w", err)
	})
}

// messageOf returns the message that v is, or that it makes v point to.
func messageOf(v any) proto.Message {
	if m, ok := v.(proto.Message); ok {
		return m
	}
	pointer := reflect.ValueOf(v).Elem()
	pointer.Set(reflect.New(pointer.Type().Elem()))
	return pointer.Interface().(proto.Message)
}

// bodyError says all that is wrong with a body that cannot be read as its message.
type bodyError struct {
	faults []mesh.Fault // at least one
	// rest is the message as far as it can be read, nil if nothing can be said of it.
	rest proto.Message
}

func (e *bodyError) Error() string {
	return (&mesh.InvalidError{What: "the body", Faults: e.faults}).Error()
}

// readBody is [strictjson.Unmarshal] of a body, which as a whole has the name that it has
// in the request over gRPC.
func readBody(body []byte, m proto.Message) *bodyError {
	faults := strictjson.Unmarshal(body, m)
	if len(faults) == 0 {
		return nil
	}
	last := &faults[len(faults)-1]
	if last.Field != "" {
		return &bodyError{faults: faults, rest: m}
	}
	last.Field = strings.ToLower(string(m.ProtoReflect().Descriptor().Name()))
	if text := bytes.TrimSpace(body); len(text) == 0 || string(text) == "null" {
		last.Reason += ": the request has no body"
	}
	return &bodyError{faults: faults}
}

// requestBody is a request's body, with what the gateway makes a mere text of.
type requestBody struct {
	io.ReadCloser
	names map[string]string // of the path
	err   error             // a *bodyError, one of reading, or nil
}

// bodies notes the names that a path says beside a body, and bounds what is read of it.
// A body that the path does not take is refused, if it says anything. The request's
// span learns the path's pattern.
func bodies(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request, names map[string]string) {
		var route string
		if pattern, ok := runtime.HTTPPattern(q.Context()); ok {
			route = strings.ReplaceAll(pattern.String(), "=*}", "}")
			tracing.SetRoute(q.Context(), route)
		}
		q.Body = &requestBody{ReadCloser: http.MaxBytesReader(w, q.Body, maxBody), names: names}
		if q.Method == http.MethodPut || q.Method == http.MethodPost && strings.HasSuffix(route, "/instances") {
			next(w, q, names)
			return
		}
		text, err := io.ReadAll(q.Body)
		var large *http.MaxBytesError
		switch text = bytes.TrimSpace(text); {
		case errors.As(err, &large):
			writeTooLarge(w)
		case len(text) > 0 && string(text) != "{}":
			writeStatus(w, http.StatusBadRequest, status.Newf(codes.InvalidArgument, "%s of this path takes no body", q.Method))
		default:
			next(w, q, names)
		}
	}
}

// refused returns an error with all that is wrong with a body and with what can be read
// of it, each faulty field a violation, as it is of what the API itself refuses.
func (c *Config) refused(e *bodyError, names map[string]string) error {
	if e.rest == nil {
		return &mesh.InvalidError{What: "the body", Faults: e.faults}
	}
	var err error
	switch m := e.rest.(type) {
	case *meshv1.Instance:
		_, err = c.named(m, names["namespace"], names["service"], e.faults...)
	case *meshv1.Policy:
		_, err = ofService(m, names["namespace"], names["service"], e.faults...)
	}
	return err
}
