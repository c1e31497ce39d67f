// Package knock is what two sidecars say to each other before the first byte of a connection
// that both relay. Whoever connects to a sidecar is connected to that, and does not learn
// whether there is an application behind it. The caller's sidecar knocks, and the one beside
// the application answers once that has taken the connection; until then nothing of the
// client's is sent, so that another instance may have it instead.
//
//	caller's                       callee's
//	   ├── knock ───────────────────▶ │   connects to the application, whoever calls
//	   │ ◀─────────────────── answer ─┤   or a reset, where it cannot
//	   ├── the client's bytes ──────▶ │
//
// Who does not knock, as other proxies and clients without one, is relayed as ever. So an
// application that speaks first is not waited for either: what it says is an answer as
// good, and takes its place.
//
// Both begin with a byte that no protocol in use does: it is in no UTF-8, is no type of a
// TLS record, and no command of Telnet.
package knock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

const (
	knock  = "\xf8fairlead knock 1\r\n\x00"
	answer = "\xf8fairlead answer 1\r\n\x00"
)

// Size is the length of a knock in bytes.
const Size = len(knock)

// ErrRefused says that a sidecar was connected to, and ended the connection without an
// answer: it has not reached its application.
var ErrRefused = errors.New("the sidecar ended the connection before it answered")

// Heard is what the first bytes of a connection are.
type Heard uint8

// What they can be.
const (
	TooLittle Heard = iota // may become a knock
	Nothing                // are none
	Whole                  // are one, of Size bytes
)

// Hear tells what begins with data.
func Hear(data []byte) Heard { return hear(data, knock) }

func hear(data []byte, want string) Heard {
	switch n := min(len(data), len(want)); {
	case string(data[:n]) != want[:n]:
		return Nothing
	case n < len(want):
		return TooLittle
	}
	return Whole
}

// Take reads a knock that was heard.
func Take(r io.Reader) error {
	var b [Size]byte
	_, err := io.ReadFull(r, b[:])
	return err
}

// Answer answers one.
func Answer(w io.Writer) error {
	_, err := io.WriteString(w, answer)
	return err
}

// Ask knocks at a connection that nothing was sent on, and waits until the application behind
// it has taken it, or ctx ends. Of what that has said nothing is read. It fails with ErrRefused if the
// connection ends before, and as ctx does; the connection is of no use then.
func Ask(ctx context.Context, nc *net.TCPConn) error {
	over := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := ask(nc)
	if !over() {
		return ctx.Err()
	}
	return err
}

func ask(nc *net.TCPConn) error {
	raw, err := nc.SyscallConn()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(nc, knock); err != nil {
		return refused(err)
	}
	var heard Heard
	var ended error
	err = raw.Read(func(fd uintptr) bool {
		heard, ended = await(fd)
		return heard != TooLittle || ended != nil
	})
	switch {
	case err != nil:
		return refused(err)
	case ended != nil:
		return refused(ended)
	case heard == Nothing: // it is the application that speaks
		return nil
	}
	_, err = io.CopyN(io.Discard, nc, int64(len(answer)))
	return err
}

// await looks at what has come of the answer.
func await(fd uintptr) (Heard, error) {
	var b [len(answer)]byte
	n, errno := sockio.Peek(fd, b[:])
	for errno == syscall.EINTR {
		n, errno = sockio.Peek(fd, b[:])
	}
	switch {
	case errno == syscall.EAGAIN:
		return TooLittle, nil
	case errno != 0:
		return TooLittle, errno
	case n == 0:
		return TooLittle, io.EOF
	}
	heard := hear(b[:n], answer)
	if heard == TooLittle && sockio.HasEnded(fd) { // it will not become one
		return Nothing, nil
	}
	return heard, nil
}

func refused(err error) error { return fmt.Errorf("%w: %w", ErrRefused, err) }
