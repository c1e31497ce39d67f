package knock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func TestAKnockIsHeardAsSoonAsItsBytesAllow(t *testing.T) {
	for n := range Size {
		if got := Hear([]byte(knock[:n])); got != TooLittle {
			t.Errorf("%d bytes: %v", n, got)
		}
		changed := []byte(knock[:n+1])
		changed[n] ^= 1
		if got := Hear(changed); got != Nothing {
			t.Errorf("byte %d is another: %v", n, got)
		}
	}
	for text, want := range map[string]Heard{
		knock: Whole, knock + "more": Whole, "": TooLittle, "GET / HTTP/1.1\r\n": Nothing, "\x16\x03\x01": Nothing, answer: Nothing,
	} {
		if got := Hear([]byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func FuzzHear(f *testing.F) {
	f.Add([]byte(knock), 3)
	f.Add([]byte(knock[:Size-1]+"x"), 0)
	f.Add([]byte("\xf8"), 1)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		is := Hear(data)
		if (is == Whole) != strings.HasPrefix(string(data), knock) {
			t.Fatalf("%q: %v", data, is)
		}
		if n < 0 || n > len(data) {
			return
		}
		if before := Hear(data[:n]); before != TooLittle && before != is {
			t.Fatalf("%q: %v, and of all of it %v", data[:n], before, is)
		}
	})
}

// callee serves one connection, after it has read what Ask sends, by a function.
func callee(t *testing.T, serve func(*net.TCPConn)) *net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(patience))
		if err := Take(nc); err != nil {
			t.Error(err)
		}
		serve(nc.(*net.TCPConn))
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc.(*net.TCPConn)
}

func TestAskWaitsForTheAnswerAndReadsNothingBehindIt(t *testing.T) {
	for name, says := range map[string][]string{
		"the answer":                          {answer},
		"the answer, and the application":     {answer + "hello"},
		"the answer in pieces":                {answer[:1], answer[1:5], answer[5:], "hello"},
		"the application, which speaks first": {"hello"},
		"what begins like an answer":          {answer[:5], "hello"},
		"what ends like one that is cut off":  {answer[:5]},
	} {
		t.Run(name, func(t *testing.T) {
			nc := callee(t, func(nc *net.TCPConn) {
				_ = nc.SetNoDelay(true)
				for _, text := range says {
					_, _ = io.WriteString(nc, text)
					time.Sleep(time.Millisecond) // so that they come one by one; nothing depends on it
				}
			})
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := Ask(ctx, nc); err != nil {
				t.Fatal(err)
			}
			_ = nc.CloseWrite()
			want := strings.TrimPrefix(strings.Join(says, ""), answer)
			if rest, err := io.ReadAll(nc); string(rest) != want || err != nil {
				t.Errorf("%q, %v, want %q", rest, err, want)
			}
		})
	}
}

func TestASidecarThatEndsTheConnectionHasNoApplication(t *testing.T) {
	for name, serve := range map[string]func(*net.TCPConn){
		"with a reset": func(nc *net.TCPConn) { _ = nc.SetLinger(0) },
		"with an end":  func(*net.TCPConn) {},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Ask(context.Background(), callee(t, serve)); !errors.Is(err, ErrRefused) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	silent := func(nc *net.TCPConn) { _, _ = io.Copy(io.Discard, nc) }
	ctx, cancel := context.WithCancel(context.Background())
	nc := callee(t, silent)
	time.AfterFunc(time.Millisecond, cancel)
	if err := Ask(ctx, nc); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_ = nc.Close()
	ctx, cancel = context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	nc = callee(t, silent)
	defer func() { _ = nc.Close() }()
	var timeout net.Error
	if err := Ask(ctx, nc); !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}
