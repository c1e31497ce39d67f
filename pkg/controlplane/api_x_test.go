package controlplane_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

func dialAPI(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestServicesAreFoundByReflection(t *testing.T) {
	addresses := runControlPlane(t)
	stream, err := reflectionv1.NewServerReflectionClient(dialAPI(t, addresses.GRPC.String())).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(q *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		a, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	list := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, s := range list.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{
		"mesh.v1.Registry", "mesh.v1.Policies", "mesh.v1.Sidecars", "mesh.v1.Attachment",
		"envoy.service.discovery.v3.AggregatedDiscoveryService", "grpc.health.v1.Health",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among %v", want, names)
		}
	}
	file := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "mesh.v1.Registry"}})
	if len(file.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("the schema is answered with %v", file)
	}
}

func TestCallOfTheAPIIsASpanOfItsCallersTrace(t *testing.T) {
	spans, err := otlptest.Start(otlptest.Config{GRPCAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = spans.Close() })
	config := loopbackConfig(t)
	config.OTLPEndpoint, config.TraceRatio = spans.GRPCEndpoint(), 0 // whom the caller samples is sampled
	addresses, stop := runControlPlaneAt(t, config)
	const (
		rest, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		orders       = "/v1/namespaces/default/services/orders"
		direct       = "0af7651916cd43dd8448eb211c80319c"
	)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addresses.HTTP.String()+orders, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("traceparent", "00-"+rest+"-"+caller+"-01")
	a, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+direct+"-"+caller+"-01")
	if _, err := meshv1.NewRegistryClient(dialAPI(t, addresses.GRPC.String())).ListServices(ctx, &meshv1.ListServicesRequest{}); err != nil {
		t.Fatal(err)
	}
	stop() // which sends what was not sent yet
	named := func(trace, kind, part string) otlptest.Span {
		t.Helper()
		var of []otlptest.Span
		for _, s := range spans.Trace(trace) {
			if s.Kind == kind && strings.Contains(s.Name, part) {
				of = append(of, s)
			}
		}
		if len(of) != 1 {
			t.Fatalf("%d %s spans of %s in %v", len(of), kind, part, spans.Trace(trace))
		}
		return of[0]
	}
	web := named(rest, "server", "GET")
	if web.ParentID != caller || web.Attributes["url.path"] != orders || web.Attributes["http.response.status_code"] != "404" ||
		web.Attributes["http.route"] != "/v1/namespaces/{namespace}/services/{service}" {
		t.Errorf("the request's span is %+v", web)
	}
	between := named(rest, "client", "mesh.v1.Registry/GetService")
	within := named(rest, "server", "mesh.v1.Registry/GetService")
	if between.ParentID != web.SpanID || within.ParentID != between.SpanID {
		t.Errorf("below it are %+v and %+v", between, within)
	}
	if call := named(direct, "server", "mesh.v1.Registry/ListServices"); call.ParentID != caller {
		t.Errorf("the call's span is %+v", call)
	}
}
