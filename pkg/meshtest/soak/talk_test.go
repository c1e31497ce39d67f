package main

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An application is spoken to as if it were the sidecar.
func TestEveryTalkGoesOnUntilItIsEnded(t *testing.T) {
	var addresses [3]string
	for n := range addresses {
		var err error
		if addresses[n], err = play.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- app{"a1"}.serve(ctx, addresses[0], addresses[1], addresses[2]) }()
	for _, address := range addresses {
		await(t, address)
	}
	h1 := httpClient(false, nil)
	conn, err := dialGRPC(addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]opener{
		"gRPC":              grpcTalk(conn, "a"),
		"WebSocket":         webSocket(addresses[0], "a"),
		"TCP":               relayed(addresses[2], "a"),
		"HTTP/1.1 response": ticking(h1, addresses[0], "a"),
	} {
		f := failure{}
		ctx, done := context.WithTimeout(t.Context(), clientPatience)
		if err := converse(ctx, &f, 2, open); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		done()
		if f.instance != "a1" || !f.begun {
			t.Errorf("%s: %+v", name, f)
		}
	}
	h1.CloseIdleConnections()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// await waits until something listens.
func await(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s", address)
}

// What breaks off is no end of a tunnel.
func TestBytesBehindTheEndAreNoEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "more")
		_ = c.Close()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := endOfSending(t.Context(), c, c); err == nil {
		t.Error("bytes behind the end are taken for the end")
	}
}

func TestPatternsOfAnyPiecesAreTheSame(t *testing.T) {
	whole := make([]byte, 1000)
	_, _ = new(pattern).Read(whole)
	pieces := new(pattern)
	for at := 0; at < len(whole); {
		piece := make([]byte, min(1+at%7, len(whole)-at))
		if _, err := io.ReadFull(pieces, piece); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if string(piece) != string(whole[at:at+len(piece)]) {
			t.Fatalf("it is another one at %d", at)
		}
		at += len(piece)
	}
}
