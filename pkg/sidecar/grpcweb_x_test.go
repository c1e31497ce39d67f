package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

// TestClientOfGRPCWebIsAnsweredByAServerOfGRPC has Connect's client for gRPC-Web on one end,
// and grpc-go's server, which knows nothing of gRPC-Web, on the other.
func TestClientOfGRPCWebIsAnsweredByAServerOfGRPC(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(version, func(t *testing.T) {
			a, port := serveApplication(t)
			port = before(t, before(t, port))
			protocols := new(http.Protocols)
			protocols.SetHTTP1(version == "HTTP/1.1")
			protocols.SetUnencryptedHTTP2(version == "HTTP/2")
			transport := &http.Transport{Protocols: protocols}
			t.Cleanup(transport.CloseIdleConnections)
			url := fmt.Sprintf("http://127.0.0.1:%d/grpc.testing.TestService/", port)
			c := &http.Client{Transport: transport}

			unary := connect.NewClient[testgrpc.SimpleRequest, testgrpc.SimpleResponse](c, url+"UnaryCall", connect.WithGRPCWeb(), connect.WithSendGzip())
			for _, size := range []int{0, 1, 100_000, 2 << 20} {
				q := connect.NewRequest(&testgrpc.SimpleRequest{Payload: payload(size)})
				q.Header().Add("Mine", "1")
				q.Header().Add("Mine-Bin", connect.EncodeBinaryHeader([]byte{0, 255}))
				got, err := unary.CallUnary(t.Context(), q)
				if err != nil || len(got.Msg.GetPayload().GetBody()) != size {
					t.Fatalf("%d bytes: %v", size, err)
				}
				for where, h := range map[string]http.Header{"header": got.Header(), "trailer": got.Trailer()} {
					if b, err := connect.DecodeBinaryHeader(h.Get("Saw-Bin")); err != nil || h.Get("Saw") != "1" || string(b) != "\x00\xff" {
						t.Errorf("%s %v", where, h)
					}
				}
			}
			_, err := unary.CallUnary(t.Context(), connect.NewRequest(&testgrpc.SimpleRequest{ResponseStatus: &testgrpc.EchoStatus{Code: 9, Message: "100% not\r\nnow é"}}))
			var fault *connect.Error
			if !errors.As(err, &fault) || fault.Code() != connect.CodeFailedPrecondition || fault.Message() != "100% not\r\nnow é" || len(fault.Details()) != 1 {
				t.Errorf("an error with details: %v", err)
			}

			stream := connect.NewClient[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse](c, url+"StreamingOutputCall", connect.WithGRPCWeb())
			many := &testgrpc.StreamingOutputCallRequest{}
			for n := range 50 {
				many.ResponseParameters = append(many.ResponseParameters, &testgrpc.ResponseParameters{Size: int32(n * 1000)}) //nolint:gosec // small
			}
			answers, err := stream.CallServerStream(t.Context(), connect.NewRequest(many))
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; answers.Receive(); n++ {
				if got := len(answers.Msg().GetPayload().GetBody()); got != n*1000 {
					t.Errorf("message %d: %d bytes", n, got)
				}
			}
			if err := errors.Join(answers.Err(), answers.Close()); n != 50 || err != nil {
				t.Errorf("%d messages, %v", n, err)
			}

			waits := connect.NewClient[testgrpc.Empty, testgrpc.Empty](c, url+"EmptyCall", connect.WithGRPCWeb())
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			defer cancel()
			if _, err := waits.CallUnary(ctx, connect.NewRequest(&testgrpc.Empty{})); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Errorf("past the deadline: %v", err)
			}
			<-a.left
			if err := <-a.over; err == nil {
				t.Error("the call at the server is not over")
			}

			unknown := connect.NewClient[testgrpc.Empty, testgrpc.Empty](c, url+"NoSuchCall", connect.WithGRPCWeb())
			if _, err := unknown.CallUnary(t.Context(), connect.NewRequest(&testgrpc.Empty{})); connect.CodeOf(err) != connect.CodeUnimplemented {
				t.Errorf("a method that is not there: %v", err)
			}
		})
	}
}
