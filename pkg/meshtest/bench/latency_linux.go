package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// latencyConn is a socket of the open loop.
type latencyConn struct {
	fd  int
	due time.Duration // of the request under way
	got int64         // bytes of its response; -1 while there is none
}

// run is one thread that waits for what comes first, a response or the next request's time, to the microsecond: the runtime's
// timers are up to a millisecond late. There is at least one request. It fails if a response is not 200 or of another size, or none comes for
// ten seconds.
func (w latencyWork) run() ([]time.Duration, error) {
	runtime.LockOSThread() // for its timer slack
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	conns, fds := make([]latencyConn, w.connections), make([]unix.PollFd, w.connections)
	for i := range conns {
		fd, err := connect(w.port)
		if err != nil {
			return nil, err
		}
		defer func() { _ = unix.Close(fd) }()
		conns[i], fds[i] = latencyConn{fd: fd, got: -1}, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", w.path, w.port)
	buffer := make([]byte, 64<<10)
	n := max(1, int(w.duration*time.Duration(w.rate)/time.Second))
	all := make([]time.Duration, 0, n)
	began, turn := time.Now(), 0
	for next := 0; len(all) < n; {
		wait := 10 * time.Second
		for next < n {
			free := w.free(conns, turn)
			if free < 0 {
				break // until a response comes
			}
			if early := w.due(next) - time.Since(began); early > 0 {
				wait = early
				break
			}
			c := &conns[free]
			c.due, c.got = w.due(next), 0
			if sent, err := unix.Write(c.fd, request); err != nil || sent < len(request) {
				return nil, fmt.Errorf("request %d: %d bytes sent: %w", next, sent, err)
			}
			next, turn = next+1, free+1
		}
		timeout := unix.NsecToTimespec(wait.Nanoseconds())
		ready, err := unix.Ppoll(fds, &timeout, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if ready == 0 && wait == 10*time.Second {
			return nil, fmt.Errorf("no response for ten seconds, after %d", len(all))
		}
		for i := range fds {
			if fds[i].Revents == 0 {
				continue
			}
			whole, err := conns[i].receive(buffer, w.response)
			if err != nil {
				return nil, fmt.Errorf("after %d responses: %w", len(all), err)
			}
			if whole {
				all = append(all, time.Since(began)-conns[i].due)
			}
		}
	}
	return all, nil
}

// free is a connection without a request, looked for from one on, so that they take turns; -1 if there is none.
func (latencyWork) free(conns []latencyConn, from int) int {
	for i := range conns {
		if at := (from + i) % len(conns); conns[at].got < 0 {
			return at
		}
	}
	return -1
}

// receive reads what is there, and says whether the response of so many bytes is whole now.
func (c *latencyConn) receive(buffer []byte, size int64) (whole bool, err error) {
	n, err := unix.Read(c.fd, buffer)
	switch {
	case err != nil:
		return false, err
	case n == 0:
		return false, errors.New("a connection was closed")
	case c.got < 0:
		return false, errors.New("a response came that nobody asked for")
	case c.got == 0 && !bytes.HasPrefix(buffer[:n], []byte("HTTP/1.1 200 ")):
		return false, fmt.Errorf("a response is %q", buffer[:min(n, 100)])
	}
	c.got += int64(n)
	if c.got > size {
		return false, fmt.Errorf("a response has more than %d bytes", size)
	}
	if c.got == size {
		c.got = -1
		return true, nil
	}
	return false, nil
}

// connect returns a socket, which the caller must close.
func connect(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
