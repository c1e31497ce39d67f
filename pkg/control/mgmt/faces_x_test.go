package mgmt_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// ask makes a request of the API by one of its faces: what it is about decides
// which method it is.
type ask func(t *testing.T, w *world, request proto.Message) (proto.Message, error)

// onBothFaces runs a test once over gRPC and once over REST: nothing that it can
// see may differ.
func onBothFaces(t *testing.T, test func(t *testing.T, w *world, ask ask)) {
	t.Helper()
	for name, face := range map[string]ask{"grpc": askGRPC, "rest": askREST} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) { test(t, w, face) })
		})
	}
}

func askGRPC(t *testing.T, w *world, request proto.Message) (proto.Message, error) {
	t.Helper()
	method, answer := methodOf(t, request)
	if err := w.conn.Invoke(t.Context(), method, request, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// methodOf returns the method that takes a request, and an empty answer.
func methodOf(t *testing.T, request proto.Message) (method string, answer proto.Message) {
	t.Helper()
	switch request.(type) {
	case *meshv1.ListServicesRequest:
		return meshv1.Registry_ListServices_FullMethodName, &meshv1.ListServicesResponse{}
	case *meshv1.GetServiceRequest:
		return meshv1.Registry_GetService_FullMethodName, &meshv1.Service{}
	case *meshv1.ListInstancesRequest:
		return meshv1.Registry_ListInstances_FullMethodName, &meshv1.ListInstancesResponse{}
	case *meshv1.GetInstanceRequest:
		return meshv1.Registry_GetInstance_FullMethodName, &meshv1.Instance{}
	case *meshv1.RegisterInstanceRequest:
		return meshv1.Registry_RegisterInstance_FullMethodName, &meshv1.Instance{}
	case *meshv1.RenewInstanceRequest:
		return meshv1.Registry_RenewInstance_FullMethodName, &meshv1.RenewInstanceResponse{}
	case *meshv1.DeregisterInstanceRequest:
		return meshv1.Registry_DeregisterInstance_FullMethodName, &meshv1.DeregisterInstanceResponse{}
	case *meshv1.ReleaseInstancesRequest:
		return meshv1.Registry_ReleaseInstances_FullMethodName, &meshv1.ReleaseInstancesResponse{}
	case *meshv1.GetPolicyRequest:
		return meshv1.Policies_GetPolicy_FullMethodName, &meshv1.Policy{}
	case *meshv1.PutPolicyRequest:
		return meshv1.Policies_PutPolicy_FullMethodName, &meshv1.Policy{}
	case *meshv1.DeletePolicyRequest:
		return meshv1.Policies_DeletePolicy_FullMethodName, &meshv1.DeletePolicyResponse{}
	case *meshv1.ListSidecarsRequest:
		return meshv1.Sidecars_ListSidecars_FullMethodName, &meshv1.ListSidecarsResponse{}
	}
	t.Fatalf("no method takes %T", request)
	return "", nil
}

// pathOf says where REST has a method, as mesh.rest.yaml does.
func pathOf(t *testing.T, request proto.Message) (verb, path string, body proto.Message) {
	t.Helper()
	names := request.(interface {
		GetNamespace() string
		GetService() string
	})
	service := func() string {
		namespace := names.GetNamespace()
		if namespace == "" {
			namespace = "default"
		}
		return "/v1/namespaces/" + url.PathEscape(namespace) + "/services/" + url.PathEscape(names.GetService())
	}
	switch r := request.(type) {
	case *meshv1.GetServiceRequest:
		return "GET", service(), nil
	case *meshv1.ListInstancesRequest:
		return "GET", service() + "/instances", nil
	case *meshv1.GetInstanceRequest:
		return "GET", service() + "/instances/" + url.PathEscape(r.GetId()), nil
	case *meshv1.RegisterInstanceRequest:
		return "POST", service() + "/instances", r.GetInstance()
	case *meshv1.RenewInstanceRequest:
		return "POST", service() + "/instances/" + url.PathEscape(r.GetId()) + ":renew", nil
	case *meshv1.DeregisterInstanceRequest:
		return "DELETE", service() + "/instances/" + url.PathEscape(r.GetId()), nil
	case *meshv1.ReleaseInstancesRequest:
		return "POST", service() + "/instances:release", nil
	case *meshv1.GetPolicyRequest:
		return "GET", service() + "/policy", nil
	case *meshv1.PutPolicyRequest:
		return "PUT", service() + "/policy", r.GetPolicy()
	case *meshv1.DeletePolicyRequest:
		return "DELETE", service() + "/policy", nil
	}
	t.Fatalf("no path takes %T", request)
	return "", "", nil
}

func askREST(t *testing.T, w *world, request proto.Message) (proto.Message, error) {
	t.Helper()
	var verb, path string
	var body proto.Message
	switch r := request.(type) {
	case *meshv1.ListServicesRequest:
		verb, path = "GET", "/v1/services"
		if r.GetNamespace() != "" {
			path += "?namespace=" + url.QueryEscape(r.GetNamespace())
		}
	case *meshv1.ListSidecarsRequest:
		verb, path = "GET", "/v1/sidecars"
	default:
		verb, path, body = pathOf(t, request)
	}
	var sent string
	if body != nil && body.ProtoReflect().IsValid() {
		b, err := protojson.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		sent = string(b)
	}
	code, got := w.http(verb, path, sent)
	_, answer := methodOf(t, request)
	if code == http.StatusOK {
		if err := protojson.Unmarshal(got, answer); err != nil {
			t.Fatalf("%s %s answers %s: %v", verb, path, got, err)
		}
		return answer, nil
	}
	s := statusIn(t, got)
	if want := runtime.HTTPStatusFromCode(s.Code()); code != want {
		t.Errorf("%s %s answers %d with %v", verb, path, code, s.Code())
	}
	return nil, s.Err()
}

// statusIn reads the JSON of an error.
func statusIn(t *testing.T, body []byte) *status.Status {
	t.Helper()
	var s statuspb.Status
	if err := protojson.Unmarshal(body, &s); err != nil {
		t.Fatalf("an error is answered with %q: %v", body, err)
	}
	return status.FromProto(&s)
}

// http makes a request as curl does, and returns what comes back.
func (w *world) http(method, path, body string, headers ...string) (code int, answer []byte) {
	w.t.Helper()
	a := w.open(w.t.Context(), method, path, strings.NewReader(body), headers...)
	defer func() { _ = a.Body.Close() }()
	answer, err := io.ReadAll(a.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		w.t.Errorf("%s %s answers %q", method, path, got)
	}
	return a.StatusCode, answer
}

// open returns an answer whose body is still to be read.
func (w *world) open(ctx context.Context, method, path string, body io.Reader, headers ...string) *http.Response {
	w.t.Helper()
	q, err := http.NewRequestWithContext(ctx, method, "http://memory"+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	a, err := w.web.Do(q)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// expectFault checks how a request was refused: the code, what it says, and the
// fields it names.
func expectFault(t *testing.T, err error, code codes.Code, text string, fields ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code || !strings.Contains(s.Message(), text) {
		t.Errorf("%v, want %v that says %q", err, code, text)
	}
	var named []string
	for _, d := range s.Details() {
		bad, ok := d.(*errdetails.BadRequest)
		if !ok {
			t.Errorf("a detail is %T", d)
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			if v.GetDescription() == "" {
				t.Errorf("%s is faulty for no reason", v.GetField())
			}
			named = append(named, v.GetField())
		}
	}
	slices.Sort(named)
	slices.Sort(fields)
	if !slices.Equal(named, fields) {
		t.Errorf("the faulty fields are %v, want %v", named, fields)
	}
}

// must returns the answer to a request that holds.
func must[T proto.Message](t *testing.T, w *world, ask ask, request proto.Message) T {
	t.Helper()
	answer, err := ask(t, w, request)
	if err != nil {
		t.Fatalf("%T: %v", request, err)
	}
	typed, ok := answer.(T)
	if !ok {
		t.Fatalf("%T is answered with %T", request, answer)
	}
	return typed
}
