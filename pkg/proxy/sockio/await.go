package sockio

import (
	"io"
	"syscall"
)

// Await blocks until bytes have come on a socket, and leaves them where they are. It fails
// at the end of the stream (io.EOF), when the connection breaks or is closed, and past its
// read deadline.
func Await(socket syscall.Conn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var one [1]byte
	var n int
	var failed syscall.Errno
	err = raw.Read(func(fd uintptr) bool {
		for {
			if n, failed = Peek(fd, one[:]); failed != syscall.EINTR {
				return failed != syscall.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return err
	case failed != 0:
		return failed
	case n == 0:
		return io.EOF
	}
	return nil
}

// Pending reports, without blocking, whether bytes have come on a socket that were not read. Of what
// is no socket it is false.
func Pending(socket syscall.Conn) bool {
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		var one [1]byte
		failed := syscall.EINTR
		for failed == syscall.EINTR {
			n, failed = Peek(fd, one[:])
		}
	})
	return err == nil && n > 0
}
