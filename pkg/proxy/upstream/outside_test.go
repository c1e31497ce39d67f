package upstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// newSet makes one that lives until the test ends.
func newSet(t *testing.T) *Set {
	t.Helper()
	s := NewSet(func() int64 { return 1 }, slog.New(slog.DiscardHandler))
	t.Cleanup(s.Close)
	return s
}

func TestOutsideIsNotThisMachine(t *testing.T) {
	set := newSet(t)
	o := set.Outside()
	for _, authority := range []string{"127.0.0.1:80", "127.8.9.10:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "0.0.0.0:80", "[::]:80", "localhost:80", "224.0.0.1:80"} {
		if s, _, err := o.Dial(t.Context(), authority); !errors.Is(err, ErrLoop) {
			t.Errorf("%s: %v, %v", authority, s, err)
		}
	}
	if n := set.open.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

func TestANameWithoutAnAddressIsToldFromAnAddressThatDoesNotAnswer(t *testing.T) {
	o := newSet(t).Outside()
	o.refused = func(netip.Addr) bool { return false }
	var dns *net.DNSError
	if _, _, err := o.Dial(t.Context(), "no-such-name.invalid:443"); !errors.As(err, &dns) {
		t.Errorf("%v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, _, err := o.Dial(t.Context(), l.Addr().String()); err == nil || errors.As(err, &dns) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := o.Dial(ended, l.Addr().String()); err == nil {
		t.Error("it connects for nobody")
	}
}

func TestAConnectionToTheOutsideIsATunnelThatCountsAmongTheOthers(t *testing.T) {
	set := newSet(t)
	o := set.Outside()
	o.refused = func(netip.Addr) bool { return false }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s, at, err := o.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if at.String() != l.Addr().String() || set.open.Load() != 1 {
		t.Errorf("at %s, %d connections are counted", at, set.open.Load())
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close() }()
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	s.(interface{ Tunnel() }).Tunnel()
	if err := errors.Join(s.WriteBody([]byte("hello")), s.EndBody(nil)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(far); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	_, _ = io.WriteString(far, "world")
	if p, err := s.Next(); string(p) != "world" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
	s.Abort()
	if _, err := s.Next(); err == nil {
		t.Error("it can be read behind its end")
	}
	s.Release(true, 0)
	s.Abort() // does nothing
	if n := set.open.Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}
