//go:build linux && (amd64 || arm64)

package sockio

import (
	"syscall"
	"unsafe"
)

// The system calls of the data path go past the Go scheduler. A call on a socket
// that does not block is over within microseconds; announced as one that may block,
// it lets the runtime's monitor take the processor away and hand it to another
// thread, which costs more than the call. They are the socket calls, not read and
// write, because these do less on their way.

// Recv is recv(2). Its error is 0 at the end of the stream, with n 0.
func Recv(fd uintptr, p []byte) (n int, err syscall.Errno) {
	r, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return int(r), err
}

// Peek is Recv that leaves the bytes where they are. It does not wait, whatever the socket.
func Peek(fd uintptr, p []byte) (n int, err syscall.Errno) {
	r, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return int(r), err
}

// Send is send(2) of a, or of a and b behind each other.
func Send(fd uintptr, a, b []byte) (n int, err syscall.Errno) {
	if len(b) == 0 {
		r, _, err := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(len(a)), syscall.MSG_NOSIGNAL, 0, 0)
		return int(r), err
	}
	iov := [2]syscall.Iovec{
		{Base: unsafe.SliceData(a), Len: uint64(len(a))},
		{Base: unsafe.SliceData(b), Len: uint64(len(b))},
	}
	m := syscall.Msghdr{Iov: &iov[0], Iovlen: 2}
	r, _, err := syscall.RawSyscall(syscall.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&m)), syscall.MSG_NOSIGNAL)
	return int(r), err
}
