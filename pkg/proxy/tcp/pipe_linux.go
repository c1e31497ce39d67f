//go:build linux && (amd64 || arm64)

package tcp

import (
	"sync"
	"syscall"
)

// pipeful is how much a pipe takes, and is asked for at once. The kernel may hold on to as much
// for each pipe whose receiver takes nothing.
const pipeful = 512 << 10

// setPipeSize is F_SETPIPE_SZ of fcntl(2).
const setPipeSize = 1031

const (
	spliceMove     = 1 // SPLICE_F_MOVE
	spliceNonblock = 2 // SPLICE_F_NONBLOCK
)

// pipe is a way from socket to socket within the kernel.
type pipe struct{ in, out int }

// fill moves bytes from a socket into the pipe, which is empty: so EAGAIN is the socket's.
// Like the calls of sockio it goes past the scheduler: it does not block.
func (p *pipe) fill(fd uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, fd, 0, uintptr(p.in), 0, pipeful, spliceMove|spliceNonblock)
	return int(n), errno
}

// drain moves up to n bytes, which are in the pipe, into a socket: so EAGAIN is the socket's.
func (p *pipe) drain(fd uintptr, n int) (int, syscall.Errno) {
	moved, _, errno := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(p.out), 0, fd, 0, uintptr(n), spliceMove|spliceNonblock)
	return int(moved), errno
}

func (p *pipe) close() {
	_ = syscall.Close(p.in)
	_ = syscall.Close(p.out)
}

// pipes holds a bounded number of pipes. It is safe for concurrent use.
type pipes struct {
	limit int

	mu     sync.Mutex
	free   []*pipe // guarded by mu
	made   int     // guarded by mu; that are not closed
	closed bool    // guarded by mu
}

// get returns an empty pipe, nil if there is none to be had.
func (ps *pipes) get() *pipe {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if n := len(ps.free); n > 0 {
		p := ps.free[n-1]
		ps.free = ps.free[:n-1]
		return p
	}
	if ps.made >= ps.limit || ps.closed {
		return nil
	}
	var ends [2]int
	if syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK) != nil {
		return nil // no descriptors are left: a buffer does as well
	}
	// Where the user's pipes have enough memory already, it stays at 64 kB.
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(ends[1]), setPipeSize, pipeful)
	ps.made++
	return &pipe{in: ends[1], out: ends[0]}
}

// put gives an empty pipe back.
func (ps *pipes) put(p *pipe) {
	ps.mu.Lock()
	if !ps.closed {
		ps.free = append(ps.free, p)
		ps.mu.Unlock()
		return
	}
	ps.mu.Unlock()
	ps.drop(p)
}

// drop closes a pipe that is not empty, or not needed.
func (ps *pipes) drop(p *pipe) {
	p.close()
	ps.mu.Lock()
	ps.made--
	ps.mu.Unlock()
}

// close closes the pipes that are free, and lets others be closed when they are put back.
func (ps *pipes) close() {
	ps.mu.Lock()
	free := ps.free
	ps.free, ps.closed = nil, true
	ps.mu.Unlock()
	for _, p := range free {
		ps.drop(p)
	}
}
