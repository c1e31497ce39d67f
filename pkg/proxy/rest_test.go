package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

func TestAnIdleConnectionKeepsNoExchangeAndSoonNoCodec(t *testing.T) {
	began := time.Now()
	s := NewServer(Config{
		Clock:     func() int64 { return int64(time.Since(began)) },
		Log:       slog.New(slog.DiscardHandler),
		RestAfter: time.Nanosecond,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Drain(t.Context())
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resting := 0
		s.mu.Lock()
		for one := range s.conns {
			if _, ok := one.(*rested); ok {
				resting++
			}
			if idle, ok := one.(*conn); ok && idle.x != nil {
				t.Error("it has an exchange")
			}
		}
		s.mu.Unlock()
		if resting == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not rest")
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Error(err)
	}
}

func TestWhatRestedConnectionsHeldIsGivenBackBehindAWaveOfThem(t *testing.T) {
	var given int
	tidy := tidier{free: func() { given++ }}
	for _, look := range []struct {
		rests uint32 // so far
		want  int
	}{
		{0, 0},
		{tidyAfter, 0},       // in the wave
		{3 * tidyAfter, 0},   // still
		{3 * tidyAfter, 1},   // behind it
		{3 * tidyAfter, 1},   // nothing new
		{4*tidyAfter - 1, 1}, // few
		{4*tidyAfter - 1, 1},
		{4 * tidyAfter, 1}, // enough of them
		{4 * tidyAfter, 2},
	} {
		if tidy.check(look.rests); given != look.want {
			t.Fatalf("with %d: %d times, want %d", look.rests, given, look.want)
		}
	}
}
