//go:build unix && !(linux && (amd64 || arm64))

package sockio

import (
	"errors"
	"syscall"
)

func Recv(fd uintptr, p []byte) (int, syscall.Errno) { return result(syscall.Read(int(fd), p)) }

// Peek is Recv that leaves the bytes where they are.
func Peek(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return result(n, err)
}

// Send may take less than all: the rest comes with the next call.
func Send(fd uintptr, a, _ []byte) (int, syscall.Errno) { return result(syscall.Write(int(fd), a)) }

func result(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	_ = errors.As(err, &errno) // the package returns no others
	return n, errno
}
