// Package grpcecho is a gRPC service that says again what it hears, and a closed loop of calls
// to it: grpc-go on both sides, messages of one field of bytes.
package grpcecho

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// PerStream is how many messages the service sends on a stream.
const PerStream = 1000

const (
	service   = "bench.Echo"
	callPath  = "/" + service + "/Call"
	manyPath  = "/" + service + "/Many"
	tracePath = "/" + service + "/Trace"
)

// Serve serves on the addresses until ctx ends or one of them cannot be listened on.
func Serve(ctx context.Context, addresses ...string) error {
	server := grpc.NewServer()
	server.RegisterService(description(), nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer server.Stop()
	for _, address := range addresses {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return err
		}
		serving.Go(func() {
			if err := server.Serve(l); err != nil {
				cancel(fmt.Errorf("%s: %w", address, err))
			}
		})
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, ctx.Err()) {
		return err
	}
	return nil
}

func description() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Call", Handler: call},
			{StreamName: "Trace", Handler: trace},
			{StreamName: "Many", Handler: many, ServerStreams: true},
		},
	}
}

// call answers with what it was sent.
func call(_ any, stream grpc.ServerStream) error {
	message := new(wrapperspb.BytesValue)
	if err := stream.RecvMsg(message); err != nil {
		return err
	}
	return stream.SendMsg(message)
}

// trace answers with the trace context that it was called with.
func trace(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		return err
	}
	for _, value := range metadata.ValueFromIncomingContext(stream.Context(), "traceparent") {
		return stream.SendMsg(wrapperspb.Bytes([]byte(value)))
	}
	return status.Error(codes.NotFound, "the call came without a traceparent")
}

// many answers with what it was sent, PerStream times.
func many(_ any, stream grpc.ServerStream) error {
	message := new(wrapperspb.BytesValue)
	if err := stream.RecvMsg(message); err != nil {
		return err
	}
	for range PerStream {
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
	return nil
}

// Trace returns the trace context with which a call to the target arrives.
func Trace(ctx context.Context, target string) ([]byte, error) {
	conn, err := dial(target)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	answer := new(wrapperspb.BytesValue)
	err = conn.Invoke(ctx, tracePath, new(wrapperspb.BytesValue), answer)
	return answer.GetValue(), err
}

// bytesOf is a message of n bytes.
func bytesOf(n int) *wrapperspb.BytesValue {
	return wrapperspb.Bytes(bytes.Repeat([]byte{'x'}, n))
}

func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Work is a closed loop of calls.
type Work struct {
	Target      string
	Connections int  // at least 1
	Calls       int  // under way on each connection, at least 1
	Message     int  // bytes in a message
	Streamed    bool // each call brings PerStream messages; else one
}

// Count is what came back.
type Count struct {
	Messages int64
	Bytes    int64 // of their content
}

// Load calls until d is over, and waits for the calls that are under way then; 0 is one call
// each. It ends early, and fails, if a call did not end with OK or brought other messages than it
// was to bring.
func Load(ctx context.Context, w Work, d time.Duration) (Count, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	timer := time.AfterFunc(d, func() { close(over) })
	defer timer.Stop()
	message := bytesOf(w.Message)
	counts := make([]Count, w.Connections*w.Calls)
	var calling sync.WaitGroup
	for c := range w.Connections {
		conn, err := dial(w.Target)
		if err != nil {
			cancel(err)
			break
		}
		defer func() { _ = conn.Close() }()
		for i := range w.Calls {
			calling.Go(func() {
				if err := w.loop(ctx, conn, message, over, &counts[c*w.Calls+i]); err != nil {
					cancel(err)
				}
			})
		}
	}
	calling.Wait()
	var sum Count
	for _, c := range counts {
		sum.Messages += c.Messages
		sum.Bytes += c.Bytes
	}
	return sum, context.Cause(ctx)
}

// loop makes one call after the other.
func (w Work) loop(ctx context.Context, conn *grpc.ClientConn, message *wrapperspb.BytesValue, over <-chan struct{}, n *Count) error {
	var answer wrapperspb.BytesValue
	for {
		var err error
		if w.Streamed {
			err = w.stream(ctx, conn, message, &answer, n)
		} else if err = conn.Invoke(ctx, callPath, message, &answer); err == nil {
			err = n.add(&answer, w.Message)
		}
		if err != nil {
			return err
		}
		select {
		case <-over:
			return nil
		default:
		}
	}
}

func (w Work) stream(ctx context.Context, conn *grpc.ClientConn, message, answer *wrapperspb.BytesValue, n *Count) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, manyPath)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(message), stream.CloseSend()); err != nil {
		return err
	}
	for i := 0; ; i++ {
		err := stream.RecvMsg(answer)
		if errors.Is(err, io.EOF) && i == PerStream {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d messages of a stream: %w", i, err)
		}
		if err := n.add(answer, w.Message); err != nil {
			return err
		}
	}
}

func (n *Count) add(answer *wrapperspb.BytesValue, size int) error {
	if len(answer.GetValue()) != size {
		return fmt.Errorf("a message has %d bytes, not %d", len(answer.GetValue()), size)
	}
	n.Messages++
	n.Bytes += int64(size)
	return nil
}
