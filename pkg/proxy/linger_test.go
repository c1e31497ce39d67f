package proxy

import (
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// sender is a client that sends left bytes behind its answer, as fast as they are read.
type sender struct {
	net.Conn
	left, read int
	deadline   time.Time
}

func (s *sender) CloseWrite() error { return nil }
func (s *sender) Close() error      { return nil }

func (s *sender) SetReadDeadline(t time.Time) error {
	s.deadline = t
	return nil
}

func (s *sender) Read(p []byte) (int, error) {
	switch {
	case !time.Now().Before(s.deadline):
		return 0, os.ErrDeadlineExceeded
	case s.left == 0:
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	s.left, s.read = s.left-n, s.read+n
	return n, nil
}

// Many clients look for an answer only when they have nothing to write, or cannot: a reset
// would meet them writing, and the answer behind it be lost (RFC 9112 §9.6).
func TestAConnectionIsNotClosedUnderAClientThatIsStillSendingMuch(t *testing.T) {
	for name, tc := range map[string]struct {
		sends     int
		whole     bool
		mostBytes int
	}{
		"a body of 8 MiB":             {8 << 20, true, 8 << 20},
		"one that takes all too long": {1 << 40, false, 32 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nc := &sender{left: tc.sends}
				began := time.Now()
				linger(nc)
				if whole := nc.left == 0; whole != tc.whole || nc.read > tc.mostBytes {
					t.Errorf("%d bytes of %d read", nc.read, tc.sends)
				}
				if took := time.Since(began); !tc.whole && took != lingerTime || took > lingerTime {
					t.Errorf("closed after %v", took)
				}
			})
		})
	}
}
