package grpcecho

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serving returns the address of a server with the methods.
func serving(t *testing.T, methods *grpc.ServiceDesc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(methods, nil)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestEveryCallBringsItsMessages(t *testing.T) {
	target := serving(t, description())
	for _, c := range []struct {
		streamed bool
		want     int64
	}{{false, 6}, {true, 6 * PerStream}} {
		w := Work{Target: target, Connections: 2, Calls: 3, Message: 100, Streamed: c.streamed}
		over := make(chan struct{})
		close(over)
		var sum Count
		for range w.Connections * w.Calls {
			conn, err := dial(target)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.loop(t.Context(), conn, bytesOf(w.Message), over, &sum); err != nil {
				t.Error(err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
		if sum.Messages != c.want || sum.Bytes != c.want*100 {
			t.Errorf("streamed %t: %+v, want %d messages", c.streamed, sum, c.want)
		}
		n, err := Load(t.Context(), w, 0)
		if err != nil || n.Messages < c.want || n.Bytes != n.Messages*100 {
			t.Errorf("streamed %t: %+v, %v", c.streamed, n, err)
		}
	}
}

func TestACallThatFailsEndsTheLoad(t *testing.T) {
	short := description()
	short.Streams[0].Handler = func(_ any, stream grpc.ServerStream) error { return stream.SendMsg(bytesOf(7)) }
	short.Streams[2].Handler = func(_ any, stream grpc.ServerStream) error { return stream.SendMsg(bytesOf(100)) }
	target := serving(t, short)
	for want, w := range map[string]Work{
		"after 1 messages of a stream": {Target: target, Streamed: true},
		"a message has 7 bytes, not":   {Target: target},
		"Unavailable":                  {Target: "127.0.0.1:1"},
	} {
		w.Connections, w.Calls, w.Message = 1, 2, 100
		if n, err := Load(t.Context(), w, time.Hour); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v, %v; want %q", n, err, want)
		}
	}
}

func TestACallWithoutATraceContextIsTold(t *testing.T) {
	if got, err := Trace(t.Context(), serving(t, description())); err == nil || !strings.Contains(err.Error(), "without a traceparent") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestServeEndsWithItsContextAndTellsAnAddressThatIsTaken(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, "127.0.0.1:0") }()
	cancel()
	if err := <-done; err != nil && !strings.Contains(err.Error(), "canceled") {
		t.Error(err)
	}
	if err := Serve(t.Context(), "127.0.0.1:0", serving(t, description())); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Error(err)
	}
}
