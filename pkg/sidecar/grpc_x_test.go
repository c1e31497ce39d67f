package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// application is a gRPC server behind sidecars, by grpc-go.
type application struct {
	testgrpc.UnimplementedTestServiceServer
	server  *grpc.Server
	over    chan error  // why the contexts of calls ended that wait for that
	encoded chan string // how the messages of calls came
	left    chan time.Duration
}

// TagRPC, HandleRPC, TagConn and HandleConn implement [stats.Handler].
func (a *application) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (a *application) HandleRPC(_ context.Context, s stats.RPCStats) {
	if in, ok := s.(*stats.InHeader); ok && in.Compression != "" {
		a.encoded <- in.Compression
	}
}
func (a *application) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (a *application) HandleConn(context.Context, stats.ConnStats)                       {}

// wait waits until the call is over.
func (a *application) wait(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok {
		a.left <- time.Until(at)
	}
	<-ctx.Done()
	a.over <- ctx.Err()
	return status.FromContextError(ctx.Err()).Err()
}

func (a *application) EmptyCall(ctx context.Context, _ *testgrpc.Empty) (*testgrpc.Empty, error) {
	return nil, a.wait(ctx)
}

func (a *application) UnaryCall(ctx context.Context, q *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	in, _ := metadata.FromIncomingContext(ctx)
	md := metadata.MD{"saw": in["mine"], "saw-bin": in["mine-bin"]}
	if err := grpc.SetHeader(ctx, md); err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, md); err != nil {
		return nil, err
	}
	if s := q.GetResponseStatus(); s != nil {
		detailed, err := status.New(codes.Code(s.GetCode()), s.GetMessage()).WithDetails(&errdetails.ErrorInfo{Reason: "BECAUSE"}) //nolint:gosec // a status
		if err != nil {
			return nil, err
		}
		return nil, detailed.Err()
	}
	return &testgrpc.SimpleResponse{Payload: q.GetPayload()}, nil
}

// StreamingOutputCall sends as many messages as it is asked for.
func (a *application) StreamingOutputCall(q *testgrpc.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	for _, p := range q.GetResponseParameters() {
		if err := s.Send(&testgrpc.StreamingOutputCallResponse{Payload: payload(int(p.GetSize()))}); err != nil {
			return err
		}
	}
	return nil
}

// StreamingInputCall answers, once the client has ended, how much it has sent.
func (a *application) StreamingInputCall(s grpc.ClientStreamingServer[testgrpc.StreamingInputCallRequest, testgrpc.StreamingInputCallResponse]) error {
	n := 0
	for {
		q, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)}) //nolint:gosec // a few MB
		}
		if err != nil {
			return err
		}
		n += len(q.GetPayload().GetBody())
	}
}

// FullDuplexCall answers each message with as many bytes, "wait" by waiting, and the
// client's end with "the end".
func (a *application) FullDuplexCall(s grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	for {
		q, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.Send(&testgrpc.StreamingOutputCallResponse{Payload: &testgrpc.Payload{Body: []byte("the end")}})
		}
		if err != nil {
			return err
		}
		switch string(q.GetPayload().GetBody()) {
		case "wait":
			return a.wait(s.Context())
		case "fail":
			return status.Error(codes.ResourceExhausted, "as asked")
		}
		if err := s.Send(&testgrpc.StreamingOutputCallResponse{Payload: q.GetPayload()}); err != nil {
			return err
		}
	}
}

func payload(n int) *testgrpc.Payload { return &testgrpc.Payload{Body: bytes.Repeat([]byte{'x'}, n)} }

func message(body string) *testgrpc.StreamingOutputCallRequest {
	return &testgrpc.StreamingOutputCallRequest{Payload: &testgrpc.Payload{Body: []byte(body)}}
}

func serveApplication(t *testing.T) (*application, int) {
	t.Helper()
	a := &application{over: make(chan error, 10), encoded: make(chan string, 100), left: make(chan time.Duration, 10)}
	a.server = grpc.NewServer(grpc.StatsHandler(a), grpc.MaxRecvMsgSize(64<<20))
	testgrpc.RegisterTestServiceServer(a.server, a)
	return a, serveCalls(t, a.server)
}

// serveCalls serves until the test ends, and returns the port.
func serveCalls(t *testing.T, server *grpc.Server) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

const clusterOverHTTP2 = `
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`

// before puts a sidecar before a port and returns its own.
func before(t *testing.T, port int) int {
	t.Helper()
	text := strings.Replace(fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), port), "\n    connect_timeout: 1s", clusterOverHTTP2, 1)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return addresses.Listeners["web"].(*net.TCPAddr).Port
}

// eachChain runs a test with a client of grpc-go's that calls the application through one
// sidecar, and through two.
func eachChain(t *testing.T, test func(t *testing.T, c testgrpc.TestServiceClient, a *application)) {
	for n := 1; n <= 2; n++ {
		t.Run(fmt.Sprintf("through %d", n), func(t *testing.T) {
			a, port := serveApplication(t)
			for range n {
				port = before(t, port)
			}
			cc, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", port), grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cc.Close() })
			test(t, testgrpc.NewTestServiceClient(cc), a)
		})
	}
}

func TestUnaryCallsPassWithMetadataStatusAndCompression(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, a *application) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "mine", "1", "mine", "2", "mine-bin", "\x00\xff\x01", "mine-bin", "")
		for _, size := range []int{0, 1, 16_384, 100_000, 5 << 20} {
			for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
				var head, trail metadata.MD
				options = append(options, grpc.Header(&head), grpc.Trailer(&trail))
				got, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{Payload: payload(size)}, options...)
				if err != nil || len(got.GetPayload().GetBody()) != size {
					t.Fatalf("%d bytes: %d, %v", size, len(got.GetPayload().GetBody()), err)
				}
				for _, md := range []metadata.MD{head, trail} {
					if fmt.Sprintf("%q %q", md["saw"], md["saw-bin"]) != `["1" "2"] ["\x00\xff\x01" ""]` {
						t.Errorf("metadata %q", md)
					}
				}
				if len(options) == 3 {
					if how := <-a.encoded; how != "gzip" {
						t.Errorf("the message came %q", how)
					}
				}
			}
		}
		var trail metadata.MD
		_, err := c.UnaryCall(ctx, &testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 9, Message: "100% not\r\nnow é"}}, grpc.Trailer(&trail))
		s := status.Convert(err)
		if s.Code() != codes.FailedPrecondition || s.Message() != "100% not\r\nnow é" || len(s.Details()) != 1 || fmt.Sprint(trail["saw"]) != "[1 2]" {
			t.Errorf("status %v, details %v, trailers %v", s, s.Details(), trail)
		}
	})
}

// A response that is only a status comes in one head, whose fields are all the metadata of its
// trailers: nothing that is added on the way may be among them.
func TestAStatusAloneComesWithTheServersMetadataAndNoOther(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, _ *application) {
		var trail metadata.MD
		if _, err := c.UnimplementedCall(t.Context(), &testgrpc.Empty{}, grpc.Trailer(&trail)); status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		delete(trail, "content-type")
		if len(trail) > 0 {
			t.Errorf("trailers %q", map[string][]string(trail))
		}
	})
}

func TestStreamsOfAllKindsPass(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, _ *application) {
		var all sync.WaitGroup
		for range 25 { // at once, on one connection
			all.Go(func() { fromServer(t, c) })
			all.Go(func() { fromClient(t, c) })
			all.Go(func() { bothWays(t, c) })
		}
		all.Wait()
	})
}

func fromServer(t *testing.T, c testgrpc.TestServiceClient) {
	q := &testgrpc.StreamingOutputCallRequest{}
	for n := range 30 {
		q.ResponseParameters = append(q.ResponseParameters, &testgrpc.ResponseParameters{Size: int32(n * 500)}) //nolint:gosec // small
	}
	s, err := c.StreamingOutputCall(t.Context(), q)
	if err != nil {
		t.Error(err)
		return
	}
	for n := 0; ; n++ {
		got, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF) && n == 30:
			return
		case err != nil || len(got.GetPayload().GetBody()) != n*500:
			t.Errorf("message %d: %d bytes, %v", n, len(got.GetPayload().GetBody()), err)
			return
		}
	}
}

func fromClient(t *testing.T, c testgrpc.TestServiceClient) {
	s, err := c.StreamingInputCall(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	for n := range 30 {
		if err := s.Send(&testgrpc.StreamingInputCallRequest{Payload: payload(n * 500)}); err != nil {
			t.Error(err)
			return
		}
	}
	if got, err := s.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != 500*30*29/2 {
		t.Errorf("%d bytes, %v", got.GetAggregatedPayloadSize(), err)
	}
}

func bothWays(t *testing.T, c testgrpc.TestServiceClient) {
	s, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	for n := range 30 {
		body := strings.Repeat("y", n*500+1)
		if err := s.Send(message(body)); err != nil {
			t.Error(err)
			return
		}
		if got, err := s.Recv(); err != nil || string(got.GetPayload().GetBody()) != body {
			t.Errorf("message %d: %d bytes, %v", n, len(got.GetPayload().GetBody()), err)
			return
		}
	}
	// The client's half ends, the server's goes on.
	if err := s.CloseSend(); err != nil {
		t.Error(err)
	}
	if got, err := s.Recv(); err != nil || string(got.GetPayload().GetBody()) != "the end" {
		t.Errorf("behind the client's end: %q, %v", got.GetPayload().GetBody(), err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestStreamThatTheServerEndsEarlyTellsTheClientAtOnce(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, _ *application) {
		s, err := c.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(message("fail")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "as asked" {
			t.Errorf("the client's half is open: %v", err)
		}
	})
}

func TestSlowReaderHoldsTheServerBack(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, _ *application) {
		const messages, size = 60, 200_000
		q := &testgrpc.StreamingOutputCallRequest{}
		for range messages {
			q.ResponseParameters = append(q.ResponseParameters, &testgrpc.ResponseParameters{Size: size})
		}
		s, err := c.StreamingOutputCall(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // all windows fill
		if _, err := c.UnaryCall(t.Context(), &testgrpc.SimpleRequest{Payload: payload(10)}); err != nil {
			t.Errorf("another call meanwhile: %v", err)
		}
		for n := 1; n < messages; n++ {
			if got, err := s.Recv(); err != nil || len(got.GetPayload().GetBody()) != size {
				t.Fatalf("message %d: %d bytes, %v", n, len(got.GetPayload().GetBody()), err)
			}
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
	})
}

func TestCallThatIsCancelledIsCancelledAtTheServer(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, a *application) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{"a", "wait"} {
			if err := s.Send(message(body)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := s.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("the client sees %v", err)
		}
		if err := <-a.over; !errors.Is(err, context.Canceled) {
			t.Errorf("the server sees %v", err)
		}
	})
}

func TestDeadlineIsTheServersToo(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, a *application) {
		const allowed = 400 * time.Millisecond
		for _, call := range []func(context.Context) error{
			func(ctx context.Context) error { _, err := c.EmptyCall(ctx, &testgrpc.Empty{}); return err },
			func(ctx context.Context) error {
				s, err := c.FullDuplexCall(ctx)
				if err != nil {
					return err
				}
				if err := s.Send(message("wait")); err != nil {
					return err
				}
				_, err = s.Recv()
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), allowed)
			err := call(ctx)
			cancel()
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the client sees %v", err)
			}
			if left := <-a.left; left <= 0 || left > allowed {
				t.Errorf("the server had %s", left)
			}
			if err := <-a.over; err == nil {
				t.Error("the call at the server is not over")
			}
		}
	})
}

func TestServerThatIsKilledInAStreamIsUnavailable(t *testing.T) {
	eachChain(t, func(t *testing.T, c testgrpc.TestServiceClient, a *application) {
		s, err := c.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(message("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		a.server.Stop()
		if _, err := s.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), "(response_broken)") {
			t.Errorf("the client sees %v", err)
		}
		_, err = c.UnaryCall(t.Context(), &testgrpc.SimpleRequest{})
		if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), "(connect_failed)") {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestProxysOwnAnswerIsAStatusToAGRPCClient(t *testing.T) {
	port := before(t, freeport.For(t))
	cc, err := grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", port), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	var head metadata.MD
	err = cc.Invoke(t.Context(), "/a.B/C", &emptypb.Empty{}, &emptypb.Empty{}, grpc.Trailer(&head))
	s := status.Convert(err)
	if s.Code() != codes.Unavailable || s.Message() != "fairlead: the instance could not be connected to (connect_failed)" || fmt.Sprint(head["fairlead-reason"]) != "[connect_failed]" {
		t.Errorf("%v, with %v", err, head)
	}
}

// The trailer decides: each of these calls has a response with a head of 200 and a message before it fails.
func TestAnInstanceWhoseCallsFailInTheirTrailersIsLeftOut(t *testing.T) {
	serve := func(name string, end error) int {
		return serveCalls(t, grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			if err := s.SendMsg(&testgrpc.SimpleResponse{Hostname: name}); err != nil {
				return err
			}
			return end
		})))
	}
	text := fmt.Sprintf(bootstrap, freeport.For(t), freeport.For(t), serve("works", nil))
	text = strings.Replace(text, "\n    connect_timeout: 1s", clusterOverHTTP2+`
    outlier_detection: {consecutive_5xx: 5, base_ejection_time: 300s, max_ejection_percent: 50}`, 1)
	text = strings.Replace(text, "}}}}]}]", fmt.Sprintf("}}}}, {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]",
		serve("fails", status.Error(codes.Unavailable, "as always"))), 1)
	addresses, stop, ended := start(t, sidecar.Config{Bootstrap: write(t, text)})
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	cc, err := grpc.NewClient(addresses.Listeners["web"].String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	failed := 0
	for range 100 {
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/a.B/C")
		if err != nil {
			t.Fatal(err)
		}
		var answer testgrpc.SimpleResponse
		if err := errors.Join(s.SendMsg(&testgrpc.Empty{}), s.CloseSend(), s.RecvMsg(&answer)); err != nil {
			t.Fatal(err)
		}
		end := s.RecvMsg(&testgrpc.SimpleResponse{})
		switch fails := answer.GetHostname() == "fails"; {
		case fails && status.Code(end) == codes.Unavailable:
			failed++
		case fails || !errors.Is(end, io.EOF):
			t.Fatalf("%s ends with %v", answer.GetHostname(), end)
		}
	}
	if failed != 5 { // as many as the file says
		t.Errorf("%d of 100 calls one after the other went to the instance that fails", failed)
	}
}
