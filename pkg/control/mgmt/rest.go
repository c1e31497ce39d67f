package mgmt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// maxBody bounds what a request may bring.
const maxBody = 1 << 20

// REST is the API as JSON over HTTP. Its requests go to a gRPC server through
// memory, so that both faces have the same interceptors.
type REST struct {
	listener *bufconn.Listener
	conn     *grpc.ClientConn
	handler  http.Handler
	api      *API
	closing  context.Context //nolint:containedctx // it is the life of the watches, not of a call
	close    context.CancelFunc
}

// NewREST returns the REST face of a. Serve its Listener with the gRPC server that a
// is registered with, and Close it when no more requests come.
func NewREST(a *API, options ...grpc.DialOption) (*REST, error) {
	r := &REST{listener: bufconn.Listen(256 << 10), api: a}
	r.closing, r.close = context.WithCancel(context.Background())
	options = append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // it is this process's memory
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.listener.DialContext(ctx) }))
	var err error
	if r.conn, err = grpc.NewClient("passthrough:///api", options...); err != nil {
		return nil, err
	}
	gateway := runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler()))
	ctx := context.Background() // the handlers keep nothing that would have to end with it
	err = errors.Join(
		meshv1.RegisterRegistryHandlerClient(ctx, gateway, meshv1.NewRegistryClient(r.conn)),
		meshv1.RegisterPoliciesHandlerClient(ctx, gateway, meshv1.NewPoliciesClient(r.conn)),
		meshv1.RegisterSidecarsHandlerClient(ctx, gateway, meshv1.NewSidecarsClient(r.conn)),
		gateway.HandlePath(http.MethodGet, "/v1/watch", r.serveWatch),
	)
	if err != nil {
		return nil, errors.Join(err, r.conn.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", http.MaxBytesHandler(gateway, maxBody))
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(meshv1.OpenAPI()) // a client that went away
	})
	r.handler = mux
	return r, nil
}

// Listener is where the gRPC server takes what REST clients ask.
func (r *REST) Listener() net.Listener { return r.listener }

// ServeHTTP implements [http.Handler] for /v1/ and /openapi.json.
func (r *REST) ServeHTTP(w http.ResponseWriter, q *http.Request) { r.handler.ServeHTTP(w, q) }

// EndWatches ends the watches, each with a last line that says where to go on.
func (r *REST) EndWatches() { r.close() }

// Close breaks the requests under way.
func (r *REST) Close() error {
	r.close()
	return errors.Join(r.conn.Close(), r.listener.Close())
}

// marshaler writes JSON as the schema names it, with the fields that are empty, and
// refuses fields that it does not know.
func marshaler() runtime.Marshaler {
	return steadyJSON{&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}
}

// steadyJSON takes out the spaces that protojson varies from process to process:
// scripts compare what they read.
type steadyJSON struct{ *runtime.JSONPb }

// Marshal implements [runtime.Marshaler].
func (j steadyJSON) Marshal(v any) ([]byte, error) {
	b, err := j.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var steady bytes.Buffer
	err = json.Compact(&steady, b)
	return steady.Bytes(), err
}

// serveWatch writes the watch as lines of JSON, {"result": WatchResponse}, and at
// the end, if it does not end with the client, {"error": google.rpc.Status}.
func (r *REST) serveWatch(w http.ResponseWriter, q *http.Request, _ map[string]string) {
	query := q.URL.Query()
	for name := range query {
		if name != "namespace" && name != "service" && name != "revision" {
			writeError(w, fmt.Sprintf("unknown parameter %q: there are namespace, service and revision", name))
			return
		}
	}
	request := &meshv1.WatchRequest{Namespace: query.Get("namespace"), Service: query.Get("service"), Revision: query.Get("revision")}
	lines := &lineWriter{w: w, control: http.NewResponseController(w), marshaler: marshaler()}
	if _, err := filterOf(request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		lines.failure(err)
		return
	}
	// The server's bound on reading a request would end a watch.
	if err := lines.control.SetReadDeadline(time.Time{}); err != nil {
		lines.failure(err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	err := r.api.c.watch(q.Context(), r.closing, request, func(r *meshv1.WatchResponse) error { return lines.write("result", r) })
	if q.Context().Err() == nil {
		lines.failure(err)
	}
}

func writeError(w http.ResponseWriter, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": 3, "message": message, "details": []any{}})
}

// lineWriter writes a JSON object per line, each within a bound of time.
type lineWriter struct {
	w         http.ResponseWriter
	control   *http.ResponseController
	marshaler runtime.Marshaler
}

func (l *lineWriter) write(key string, message any) error {
	body, err := l.marshaler.Marshal(message)
	if err != nil {
		return err
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.w, "{%q:%s}\n", key, body); err != nil {
		return err
	}
	return l.control.Flush()
}

// failure writes the last line. If the client is gone, nobody reads it.
func (l *lineWriter) failure(err error) {
	s, _ := status.FromError(statusOf(err))
	_ = l.write("error", s.Proto())
}
