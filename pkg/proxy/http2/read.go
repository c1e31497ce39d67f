package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// Serve reads the connection until it ends, and closes it. It returns why: io.EOF if the
// peer closed it, ErrClosed if this side did, a *ConnError if the peer broke the protocol.
func (c *Conn) Serve() error {
	c.flush() // the greeting
	c.startPings()
	err := c.read()
	c.mu.Lock()
	c.handling = false
	c.failLocked(err)
	err = c.err
	if c.pings != nil {
		c.pings.Stop()
	}
	if c.lateTimer != nil {
		c.lateTimer.Stop()
	}
	c.mu.Unlock()
	c.close(err)
	return err
}

// read handles what comes, until an error.
func (c *Conn) read() error {
	for last := false; ; {
		err := c.handleAll()
		if err != nil || c.unsettled >= maxUnsettled {
			if err = c.settle(err); err != nil {
				return err
			}
		}
		if err := c.fill(); err != nil {
			_ = c.settle(nil) // who ends its side reads on
			c.mu.Lock()
			woken := errors.Is(err, os.ErrDeadlineExceeded)
			switch {
			case woken && c.err != nil:
				err = c.err
			case c.unsent == nil:
			case woken && !last:
				last = true
				c.mu.Unlock()
				_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime)) // fails only on a closed one
				continue
			default:
				err = c.unsent
			}
			c.mu.Unlock()
			return err
		}
	}
}

// settle lets what was written by all that came in go out at once: before the reader waits
// for more, or once that was much. It returns why the connection has ended, nil if it has not.
func (c *Conn) settle(err error) error {
	if !c.handling && err == nil { // which the reader alone writes
		return nil
	}
	c.unsettled = 0
	c.mu.Lock()
	c.handling = false
	if err != nil {
		c.failLocked(err)
	}
	if len(c.out) > 0 && c.err == nil {
		c.flushLocked()
	}
	err = c.err
	changed := c.changed
	c.changed = false
	c.mu.Unlock()
	c.batch.Flush()
	if err == nil && changed && c.role == Client {
		c.handler.Changed()
	}
	return err
}

// handleAll handles all that has been read.
func (c *Conn) handleAll() error {
	c.heard.Store(true)
	c.now = c.config.Clock()
	c.mu.Lock()
	c.handling = true
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if !c.began {
		if ok, err := c.preface(); !ok || err != nil {
			return err
		}
	}
	for c.w-c.r >= headerLen {
		f, length := parseHeader(c.in[c.r:])
		if length > maxFrame {
			return errFrameLong
		}
		if c.w-c.r < headerLen+length {
			break
		}
		f.payload = c.in[c.r+headerLen : c.r+headerLen+length]
		c.r += headerLen + length
		c.frames++
		if err := c.handle(&f); err != nil {
			return err
		}
	}
	// A body that is small came with its head; of others the beginning has.
	for i, s := range c.starting {
		c.starting[i] = nil
		c.start(s, nil)
	}
	c.starting = c.starting[:0]
	return nil
}

// preface takes the client's preface.
func (c *Conn) preface() (whole bool, err error) {
	n := min(c.w-c.r, len(Preface))
	if string(c.in[c.r:c.r+n]) != Preface[:n] {
		return false, errPreface
	}
	if n < len(Preface) {
		return false, nil
	}
	c.r += n
	c.began = true
	return true, nil
}

// fill reads more. A connection of which nothing is half read holds no buffer meanwhile.
func (c *Conn) fill() error {
	c.noteHalf()
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	if c.blocks {
		if err := c.settle(nil); err != nil {
			return err
		}
	}
	if c.above != nil {
		if err := c.above.Poll(c.tryFn); err != nil {
			return err // closed, or past the deadline
		}
		c.w += c.n
		c.unsettled += c.n
		if c.n > 0 {
			return nil
		}
		return c.fail
	}
	if c.raw == nil {
		if c.in == nil {
			c.in = sockio.Get(sockio.Large)
		}
		n, err := c.nc.Read(c.in[c.w:])
		c.w += n
		c.unsettled += n
		if n > 0 {
			return nil
		}
		return err
	}
	c.n, c.readErr = 0, 0
	if err := c.raw.Read(c.readFD); err != nil {
		return err // closed, or past the deadline
	}
	switch {
	case c.fail != nil:
		return c.fail
	case c.readErr != 0:
		return &net.OpError{Op: "read", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.readErr}
	case c.n <= 0:
		return io.EOF
	}
	c.w += c.n
	c.unsettled += c.n
	return nil
}

// noteHalf tells Check what has come in part.
func (c *Conn) noteHalf() {
	half := uint64(0)
	switch {
	case c.continuing.stream != 0:
		half = 2 * c.blockAt
	case c.w-c.r > 3 && frameType(c.in[c.r+3]) == frameData:
		half = 2*c.frames + 3
	case c.w > c.r:
		half = 2*c.frames + 2
	}
	if half != c.half.Load() {
		c.half.Store(half)
	}
}

func (c *Conn) readOnce(fd uintptr) bool {
	if c.in == nil {
		c.in = sockio.Get(sockio.Large)
	}
	for {
		if c.n, c.readErr = sockio.Recv(fd, c.in[c.w:]); c.readErr != syscall.EINTR {
			break
		}
	}
	if c.readErr != syscall.EAGAIN {
		return true
	}
	// The runtime tells of what comes from now on, be it while this is sent.
	if c.fail = c.settle(nil); c.fail != nil {
		return true
	}
	c.rest()
	return false
}

// tryOnce is readOnce above a socket.
func (c *Conn) tryOnce() bool {
	if c.in == nil {
		c.in = sockio.Get(sockio.Large)
	}
	var wait bool
	c.n, wait, c.fail = c.above.TryRead(c.in[c.w:])
	if !wait {
		return true
	}
	if c.fail = c.settle(nil); c.fail != nil {
		return true
	}
	c.rest()
	return false
}

// rest gives the buffer back if nothing is half read.
func (c *Conn) rest() {
	if c.w == 0 {
		sockio.Put(c.in)
		c.in = nil
	}
}

// lingerTime is how long a connection that has ended waits for what the peer is still sending, so
// that the kernel does not throw away with a reset what was sent to it, such as GOAWAY; lingerBytes is
// how much of it is read. A client that takes the end of a long answer tells so by WINDOW_UPDATE: it is
// waited for as long as it does, for StallTimeout at most.
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
	// hasteTime is how long it takes at most to tell a peer of the end that is not waited for.
	hasteTime = 10 * time.Millisecond
)

// linger reads what the peer is still sending.
func (c *Conn) linger(most time.Duration) {
	buf := sockio.Get(sockio.Small)
	defer sockio.Put(buf)
	for n, end := 0, time.Now().Add(most); n < lingerBytes && time.Now().Before(end); {
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime)) // fails only on a closed one
		m, err := c.nc.Read(buf)
		if err != nil {
			return
		}
		n += m
	}
}

// close ends the connection for good: whoever waits on a stream learns of it.
func (c *Conn) close(err error) {
	var fault *ConnError
	told := errors.As(err, &fault) || errors.Is(err, ErrClosed)
	c.mu.Lock()
	hasty := c.hasty
	c.mu.Unlock()
	if told {
		most := lingerTime
		if hasty {
			most = hasteTime
		}
		_ = c.nc.SetWriteDeadline(time.Now().Add(most))
		c.writers.Wait()
	}
	c.mu.Lock()
	for c.flushing && told { // by somebody who does not wait for the socket
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	rest := c.out
	whole := !c.cut
	// A client that was told of the end, or has told of it, may still be saying what it has taken.
	late := c.role == Server && (c.peerGone || c.goingAway)
	c.mu.Unlock()
	if told && whole && (len(rest) > 0 || late) {
		if _, err := c.nc.Write(rest); err == nil && !hasty {
			if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
				most := lingerTime
				if late && fault == nil {
					most = c.config.StallTimeout
				}
				c.linger(most)
			}
		}
	}
	_ = c.nc.Close() // nothing is left to be lost on it
	c.writers.Wait()
	c.mu.Lock()
	var parked []Waker
	users := map[uint32]any{}
	for id, s := range c.streams {
		if s.held && s.User != nil {
			users[id] = s.User
		}
		if s.waker != nil {
			parked = append(parked, s.waker)
			s.waker = nil
		}
	}
	sockio.Put(c.out[:0])
	c.out = nil
	c.mu.Unlock()
	for _, w := range parked {
		w.Wake(&c.batch)
	}
	for id, user := range users {
		c.handler.Cancelled(user, id)
	}
	c.batch.Flush()
	c.handler.Changed()
	sockio.Put(c.in)
	c.in = nil
	sockio.Put(c.continued[:0])
	c.continued = nil
}
