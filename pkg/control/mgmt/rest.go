package mgmt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

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
	paths    paths
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
	if r.paths, err = describedPaths(); err != nil {
		return nil, err
	}
	if r.conn, err = grpc.NewClient("passthrough:///api", options...); err != nil {
		return nil, err
	}
	gateway := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler()),
		runtime.WithRoutingErrorHandler(r.unrouted),
		runtime.WithErrorHandler(r.failed),
		runtime.WithMiddlewares(bodies),
		runtime.WithDisablePathLengthFallback(), // a form is no way to say GET
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
	)
	ctx := context.Background() // the handlers keep nothing that would have to end with it
	err = errors.Join(
		meshv1.RegisterRegistryHandlerClient(ctx, gateway, meshv1.NewRegistryClient(r.conn)),
		meshv1.RegisterPoliciesHandlerClient(ctx, gateway, meshv1.NewPoliciesClient(r.conn)),
		meshv1.RegisterSidecarsHandlerClient(ctx, gateway, meshv1.NewSidecarsClient(r.conn)),
		gateway.HandlePath(http.MethodGet, "/v1/watch", r.serveWatch),
		gateway.HandlePath(http.MethodHead, "/v1/watch", r.serveWatch),
	)
	if err != nil {
		return nil, errors.Join(err, r.conn.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/", bounded(gateway))
	mux.Handle("/v1", bounded(gateway)) // a mux would redirect it
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(meshv1.OpenAPI()) // a client that went away
	})
	r.handler = r.WithoutRedirects(mux)
	return r, nil
}

// Listener is where the gRPC server takes what REST clients ask.
func (r *REST) Listener() net.Listener { return r.listener }

// ServeHTTP implements [http.Handler] for /v1, what is below it, and /openapi.json.
func (r *REST) ServeHTTP(w http.ResponseWriter, q *http.Request) { r.handler.ServeHTTP(w, q) }

// WithoutRedirects answers requests whose path is not in its shortest form, such as
// //v1/services or /v1/x/../services, as those for what there is not: a ServeMux would
// answer with a redirect, in HTML. next, such a mux, serves the others.
func (r *REST) WithoutRedirects(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		is := q.URL.EscapedPath()
		shortest := path.Clean(is)
		if strings.HasSuffix(is, "/") && shortest != "/" {
			shortest += "/"
		}
		if strings.HasPrefix(is, "/") && is != shortest { // else it is "" or *
			r.unrouted(q.Context(), nil, nil, w, q, http.StatusNotFound)
			return
		}
		next.ServeHTTP(w, q)
	})
}

// EndWatches ends the watches, each with a last line that says where to go on.
func (r *REST) EndWatches() { r.close() }

// Close breaks the requests under way.
func (r *REST) Close() error {
	r.close()
	return errors.Join(r.conn.Close(), r.listener.Close())
}

// bounded refuses what is too large, and parameters that nobody would look at: a
// misspelt filter must not match everything. HEAD is a GET whose answer's body the
// server leaves out, except that of the watch, which has no end.
func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.ContentLength > maxBody {
			writeTooLarge(w)
			return
		}
		if err := checkQuery(q); err != nil {
			writeStatus(w, http.StatusBadRequest, status.New(codes.InvalidArgument, err.Error()))
			return
		}
		if q.Method == http.MethodHead && q.URL.Path != "/v1/watch" {
			q = q.WithContext(q.Context()) // a copy: the server looks at its own
			q.Method = http.MethodGet
		}
		next.ServeHTTP(w, q)
	})
}

// failed answers a request that failed, and says of a body that is the cause what is
// wrong with it.
func (r *REST) failed(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, q *http.Request, err error) {
	if body, ok := q.Body.(*requestBody); ok && body.err != nil {
		var large *http.MaxBytesError
		var bad *bodyError
		switch {
		case errors.As(body.err, &large): // it did not say how large it is
			writeTooLarge(w)
			return
		case errors.As(body.err, &bad):
			err = statusOf(r.api.c.refused(bad, body.names))
		}
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, q, err)
}

func writeTooLarge(w http.ResponseWriter) {
	writeStatus(w, http.StatusRequestEntityTooLarge, status.Newf(codes.InvalidArgument, "the body is larger than %d bytes", maxBody))
}

// checkQuery refuses parameters that the path does not have.
func checkQuery(q *http.Request) error {
	values, err := url.ParseQuery(q.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("the query cannot be read: %w", err)
	}
	var known []string
	switch q.URL.Path {
	case "/v1/services":
		known = []string{"namespace"}
	case "/v1/watch":
		known = []string{"namespace", "service", "revision"}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch {
		case len(known) == 0:
			return fmt.Errorf("unknown parameter %.70q: there are none here", name)
		case !slices.Contains(known, name):
			return fmt.Errorf("unknown parameter %.70q: there are %s", name, strings.Join(known, ", "))
		case len(values[name]) > 1:
			return fmt.Errorf("parameter %q is given %d times", name, len(values[name]))
		}
	}
	return nil
}

// unrouted answers what is at no path, or at a path that does not take the method.
func (r *REST) unrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, q *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		writeStatus(w, code, status.New(codes.NotFound, "there is nothing at this path: /openapi.json says what there is"))
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", r.paths.allow(q.URL.Path))
		writeStatus(w, code, status.Newf(codes.Unimplemented, "this path does not take %.20q: /openapi.json says what it takes", q.Method))
	default:
		writeStatus(w, code, status.New(codes.InvalidArgument, http.StatusText(code)))
	}
}

// writeStatus answers as the gateway does.
func writeStatus(w http.ResponseWriter, code int, s *status.Status) {
	body, err := marshaler().Marshal(s.Proto())
	if err != nil {
		http.Error(w, s.Message(), code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that went away
}

// serveWatch writes the watch as lines of JSON, {"result": WatchResponse}, and at
// the end, if it does not end with the client, {"error": google.rpc.Status}. One that
// cannot begin is answered like any other request.
func (r *REST) serveWatch(w http.ResponseWriter, q *http.Request, _ map[string]string) {
	query := q.URL.Query()
	request := &meshv1.WatchRequest{Namespace: query.Get("namespace"), Service: query.Get("service"), Revision: query.Get("revision")}
	lines := &lineWriter{w: w, control: http.NewResponseController(w), marshaler: marshaler()}
	_, err := filterOf(request)
	if unready := r.api.c.ready(); unready != nil {
		err = unready
	}
	if err == nil {
		// The server's bound on reading a request would end a watch.
		err = lines.control.SetReadDeadline(time.Time{})
	}
	if err != nil {
		s := status.Convert(statusOf(err))
		writeStatus(w, runtime.HTTPStatusFromCode(s.Code()), s)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	if q.Method == http.MethodHead {
		return
	}
	err = r.api.c.watch(q.Context(), r.closing, request, func(_ context.Context, r *meshv1.WatchResponse) error { return lines.write("result", r) })
	if q.Context().Err() == nil {
		lines.failure(err)
	}
}

// lineWriter writes a JSON object per line, each within a bound of time.
type lineWriter struct {
	w         http.ResponseWriter
	control   *http.ResponseController
	marshaler runtime.Marshaler
}

// write returns errSlow if the client does not read.
func (l *lineWriter) write(key string, message any) error {
	body, err := l.marshaler.Marshal(message)
	if err != nil {
		return err
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err = fmt.Fprintf(l.w, "{%q:%s}\n", key, body); err == nil {
		err = l.control.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow
	}
	return err
}

// failure writes the last line. If the client is gone, nobody reads it.
func (l *lineWriter) failure(err error) {
	s, _ := status.FromError(statusOf(err))
	_ = l.write("error", s.Proto())
}
