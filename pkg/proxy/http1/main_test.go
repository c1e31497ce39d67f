package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a connection that hands out what it was given, a piece per read, and
// keeps what is written. An empty piece is a time-out. After the last one it ends.
type script struct {
	net.Conn // panics for what is not scripted
	pieces   [][]byte
	sent     []byte
	failAt   int // bytes after which writing fails; 0: never
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	if len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	if s.failAt > 0 && len(s.sent)+len(p) > s.failAt {
		return 0, io.ErrClosedPipe
	}
	s.sent = append(s.sent, p...)
	return len(p), nil
}

func (s *script) SetReadDeadline(time.Time) error { return nil }

// whole is the server's side of a connection on which all of raw comes at once.
func whole(raw string) *Conn { return NewConn(&script{pieces: split(raw)}, Server, nil) }

// answers is the client's side of one.
func answers(raw string) *Conn { return NewConn(&script{pieces: split(raw)}, Client, nil) }

// split cuts raw at the offsets; without any it stays whole.
func split(raw string, at ...int) [][]byte {
	var pieces [][]byte
	from := 0
	for _, to := range append(at, len(raw)) {
		if to > from {
			pieces = append(pieces, []byte(raw[from:to]))
			from = to
		}
	}
	return pieces
}

// dripped cuts raw into single bytes.
func dripped(raw string) [][]byte {
	pieces := make([][]byte, len(raw))
	for i := range len(raw) {
		pieces[i] = []byte{raw[i]}
	}
	return pieces
}

// readAll reads the body to its end, time-outs included.
func readAll(c *Conn) (string, error) {
	var all []byte
	for {
		p, err := c.Next()
		switch {
		case err == nil:
			all = append(all, p...)
		case errors.Is(err, io.EOF):
			return string(all), nil
		case os.IsTimeout(err):
		default:
			return string(all), err
		}
	}
}

// textOf is a head in one string, for comparing.
func textOf(h *wire.Head) string {
	text := string(h.Method) + "|" + string(h.Authority) + "|" + string(h.Path)
	for _, f := range h.Fields {
		text += "|" + string(f.Name) + ":" + string(f.Value)
	}
	return text
}
