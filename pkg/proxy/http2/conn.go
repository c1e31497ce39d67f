package http2

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2/hpack"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Handler is told of what happens on a connection. All its methods are called by the
// goroutine that reads the connection, and must not wait for anything.
type Handler interface {
	// Request hands over the stream of a request whose head is whole; its body may still
	// be coming in. bad is not nil if it is not taken: a request with another status than
	// 400 can be answered with that; one with 400 is malformed, and its stream ends with
	// PROTOCOL_ERROR in place of an answer (RFC 9113 §8.1.1). What is written is to be
	// flushed through b. The handler calls Release once.
	Request(s *Stream, bad *wire.Error, b *Batch)
	// Cancelled tells whose User it was that a stream which was not released has ended: the
	// peer gave it up, or broke the protocol, or the connection has ended. stream is its
	// number. The holder may have released it by now.
	Cancelled(user any, stream uint32)
	// Changed tells that there may be room for more streams than before, or for none any
	// more. It is called by other goroutines too.
	Changed()
}

// Conn is a connection that speaks HTTP/2. But for what belongs to the goroutine that
// reads it, it is safe for concurrent use.
type Conn struct {
	nc      net.Conn
	role    Role
	config  Config
	handler Handler

	// Of the reader alone.
	raw        syscall.RawConn // nil: not a socket of ours to read from directly
	above      layered         // nil: not TLS
	blocks     bool            // reading waits in place
	tryFn      func() bool
	fail       error // of the last read from above, or of what was sent before waiting for it
	readFD     func(fd uintptr) bool
	sendFD     func(fd uintptr)
	in         []byte
	r, w       int // in[r:w] is unread
	n          int // of the last raw read
	unsettled  int // bytes that came since what they brought about was sent
	readErr    syscall.Errno
	began      bool // the preface was seen
	settled    bool // the peer's first SETTINGS were
	decoder    *hpack.Decoder
	text       block
	field      hpack.Field
	decoded    wire.Head
	continued  []byte // a header block whose end has not come
	continuing frame  // its HEADERS; stream 0: none
	pieces     int    // of it
	frames     uint64 // that have come
	blockAt    uint64 // of them, the HEADERS of continued
	starting   []*Stream
	noise      budget
	batch      Batch
	now        int64 // when what is handled has come

	mu       sync.Mutex
	handling bool // guarded by mu; the reader is at work, and will flush
	err      error
	streams  map[uint32]*Stream
	active   int  // streams that are open or held
	changed  bool // the handler is to be told that there may be room for more
	reserved int  // of a client: streams that have no number yet
	free     []*Stream
	blocked  []*Stream // who wait for a window or for the socket
	over     closed    // which streams have ended of late
	resets   budget

	out      []byte // frames that wait
	gen      uint64 // of out: how often it was taken to be written
	answers  int    // bytes in out that no stream is held back for
	flushing bool   // somebody writes
	cut      bool   // what was being sent was not sent whole
	unsent   error  // of a client: why nothing can be sent any more; what has come is still read
	spare    []byte
	sent     []byte // being written
	sentN    int
	sendErr  syscall.Errno
	encoder  *hpack.Encoder
	writers  sync.WaitGroup

	sendWindow int64 // of the connection
	recvWindow int64
	credit     int64 // received and not yet given back
	withheld   int64 // received and to be given back when it is passed on
	grown      int64 // of the windows of streams, beyond what they begin with
	queued     int64 // bytes of bodies that lie here

	peer       settings
	told       chan struct{} // closed when the peer's first settings are in peer, or err is set
	isTold     bool
	nextID     uint32       // of a client: of the next stream
	lastPeerID uint32       // the highest stream that the peer has opened
	lastID     uint32       // of a server: the last one that is served, told in GOAWAY
	goingAway  bool         // this side lets no further stream begin
	peerGone   bool         // the peer does not
	closing    bool         // the connection ends when no stream is left
	hasty      bool         // it ends without waiting for the peer
	settingsAt int64        // when SETTINGS were sent that are not acknowledged; 0: all are
	drainAt    int64        // when a drain began
	pingAt     int64        // when a PING was sent behind which nothing has come; 0: something has
	askedAt    int64        // when Lives has asked last
	pingNext   int64        // when the next one is due, of those that are sent whatever goes on
	pings      *time.Timer  // sends them; nil: there are none
	unanswered int          // PINGs of this side
	forgiven   atomic.Int32 // frames that say nothing of streams that this side has reset
	late       []lateReset  // in the order of their times
	lateTimer  *time.Timer  // for the first of them; nil: there was none yet
	heardAt    int64        // when something had come, as far as Check has seen
	heard      atomic.Bool
	// half says what has come in part, as it was when the reader began to wait for the rest:
	// twice the number of its first frame, and 1 more if that is of DATA; 0: nothing has.
	half   atomic.Uint64
	halfIs uint64 // what Check has seen of it
	halfAt int64  // and when first
}

// settings are the peer's.
type settings struct {
	maxStreams int64
	window     int64
	connect    bool // SETTINGS_ENABLE_CONNECT_PROTOCOL
}

// layered is a connection above a socket, such as one of TLS, that can be waited for, and
// written to as far as there is room, as a socket can.
type layered interface {
	// HasSocket reports whether there is one; else TryRead waits in place.
	HasSocket() bool
	// Poll calls f now and whenever bytes may have come, until it returns true.
	Poll(f func() bool) error
	// TryRead is Read that says to wait instead of waiting.
	TryRead(p []byte) (n int, wait bool, err error)
	// TryWrite is Write that takes as much as there is room for. wait says that Write has
	// to be called with the rest, be it nothing.
	TryWrite(p []byte) (n int, wait bool, err error)
}

// NewConn starts HTTP/2 on a connection. already are bytes that were read from it. The
// caller runs Serve, which closes nc.
func NewConn(nc net.Conn, role Role, already []byte, handler Handler, config Config) *Conn {
	config = config.withDefaults(role)
	now := config.Clock()
	c := &Conn{
		nc: nc, role: role, config: config, handler: handler,
		began:   role == Client,
		decoder: hpack.NewDecoder(hpack.DefaultTable), encoder: hpack.NewEncoder(),
		noise: newBudget(noiseBurst, noiseRate, now), resets: newBudget(resetBurst, resetRate, now),
		streams:    map[uint32]*Stream{},
		sendWindow: defaultWindow, recvWindow: int64(config.ConnWindow),
		peer:   settings{maxStreams: 100, window: defaultWindow},
		nextID: 1, lastID: maxStreamID,
		settingsAt: now, heardAt: now,
		told: make(chan struct{}),
	}
	if role == Server {
		c.peer.maxStreams = 0 // it is never sent a request
	} else {
		c.resets = newBudget(lateBurst, lateRate, now)
	}
	if sc, ok := nc.(*net.TCPConn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw, c.readFD, c.sendFD = raw, c.readOnce, c.sendOnce
		}
	}
	c.blocks = c.raw == nil
	if above, ok := nc.(layered); ok {
		c.above, c.tryFn, c.blocks = above, c.tryOnce, !above.HasSocket()
	}
	if len(already) > 0 {
		c.in = sockio.Get(max(len(already), sockio.Large))
		c.w = copy(c.in, already)
	}
	c.greet()
	return c
}

// greet writes the preface and the settings of this side. Nobody else knows c yet.
func (c *Conn) greet() {
	var s []byte
	setting := func(id uint16, value uint32) {
		s = append(s, byte(id>>8), byte(id), byte(value>>24), byte(value>>16), byte(value>>8), byte(value))
	}
	if c.role == Client {
		setting(settingEnablePush, 0)
	} else {
		setting(settingMaxStreams, uint32(c.config.MaxStreams))
		setting(settingConnectProtocol, 1)
	}
	setting(settingMaxHeaderListSize, uint32(c.config.HeadBytes))
	c.out = sockio.Get(sockio.Small)[:0]
	if c.role == Client {
		c.out = append(c.out, Preface...)
	}
	c.out = append(appendHeader(c.out, len(s), frameSettings, 0, 0), s...)
	if more := c.config.ConnWindow - defaultWindow; more > 0 {
		c.appendWindow(0, int64(more))
	}
}

// room makes room for n bytes behind out. It needs mu, as all that write to out do.
func (c *Conn) room(n int) { c.out = sockio.Reserve(c.out, n) }

// answer counts bytes that a peer can make this side send without end, and ends the
// connection of one that does not read them.
func (c *Conn) answer(n int) {
	c.room(n)
	if c.answers += n; c.answers > maxAnswers {
		c.failLocked(errUnread)
	}
}

func (c *Conn) appendWindow(stream uint32, n int64) {
	c.answer(headerLen + 4)
	c.out = appendHeader(c.out, 4, frameWindowUpdate, 0, stream)
	c.out = append(c.out, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func (c *Conn) appendReset(stream uint32, code Code) {
	c.answer(headerLen + 4)
	c.out = appendHeader(c.out, 4, frameRSTStream, 0, stream)
	c.out = append(c.out, byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
}

func (c *Conn) appendGoAway(last uint32, code Code, text string) {
	c.room(headerLen + 8 + len(text))
	c.out = appendHeader(c.out, 8+len(text), frameGoAway, 0, 0)
	c.out = append(c.out, byte(last>>24), byte(last>>16), byte(last>>8), byte(last),
		byte(code>>24), byte(code>>16), byte(code>>8), byte(code))
	c.out = append(c.out, text...)
}

func (c *Conn) appendPing(flags byte, payload []byte) {
	c.answer(headerLen + 8)
	c.out = appendHeader(c.out, 8, framePing, flags, 0)
	c.out = append(c.out, payload...)
}

// flush writes what waits, unless somebody does already or the reader is about to. It
// does not block.
func (c *Conn) flush() {
	c.mu.Lock()
	if !c.handling {
		c.flushLocked()
	}
	c.mu.Unlock()
}

// flushLocked is flush, whether or not the reader is at work. mu is let go while it
// writes.
func (c *Conn) flushLocked() {
	if c.flushing || c.unsent != nil {
		return
	}
	c.flushing = true
	for len(c.out) > 0 && c.err == nil {
		buf := c.take()
		c.mu.Unlock()
		n, full, err := c.send()
		c.mu.Lock()
		if c.cut = full || err != nil; err != nil || full && c.err != nil {
			c.failSending(err)
			break
		}
		if full {
			// The socket is full: a goroutine waits for it.
			c.writers.Add(1)
			go c.write(buf[n:])
			return
		}
		c.written()
	}
	c.flushing = false
	c.giveBack()
}

// take takes out what is to be written.
func (c *Conn) take() []byte {
	buf := c.out
	c.sent = buf
	c.out, c.spare = c.spare, nil
	c.gen++
	c.answers = 0
	return buf
}

// written goes on after what take returned has been written.
func (c *Conn) written() {
	c.spare, c.sent = c.sent[:0], nil
	c.resume()
}

// giveBack lets an idle connection hold no buffer to write.
func (c *Conn) giveBack() {
	if len(c.out) == 0 {
		sockio.Put(c.out[:0])
		c.out = nil
	}
	sockio.Put(c.spare[:0])
	c.spare = nil
}

// write waits for the socket to take the rest of what is being sent, and all that comes
// behind.
func (c *Conn) write(rest []byte) {
	defer c.writers.Done()
	_, err := c.nc.Write(rest)
	c.mu.Lock()
	defer c.mu.Unlock()
	for err == nil {
		c.cut = false
		c.written()
		if len(c.out) == 0 || c.err != nil {
			break
		}
		buf := c.take()
		c.mu.Unlock()
		_, err = c.nc.Write(buf)
		c.mu.Lock()
	}
	if err != nil {
		c.cut = true
		c.failSending(err)
	}
	c.flushing = false
	c.giveBack()
}

// send sends as much of what is being sent as the socket takes without waiting. full says
// that somebody has to wait for it to take the rest.
func (c *Conn) send() (n int, full bool, err error) {
	if c.above != nil {
		return c.above.TryWrite(c.sent)
	}
	if c.raw == nil {
		return 0, true, nil // the writer's goroutine does it
	}
	c.sentN, c.sendErr = 0, 0
	err = c.raw.Control(c.sendFD)
	if err == nil && c.sendErr != 0 {
		err = &net.OpError{Op: "write", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.sendErr}
	}
	return c.sentN, c.sentN < len(c.sent), err
}

func (c *Conn) sendOnce(fd uintptr) {
	for c.sentN < len(c.sent) {
		n, err := sockio.Send(fd, c.sent[c.sentN:], nil)
		switch err {
		case 0:
			c.sentN += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return
		default:
			c.sendErr = err
			return
		}
	}
}

// failSending ends a connection on which nothing can be sent any more. A server that has had enough of a
// request may answer it, and close without having read the rest: a client reads what has come before it
// tells its streams (RFC 9113 §8.1: "A server can send a complete response prior to the client sending an
// entire request"). It needs mu.
func (c *Conn) failSending(err error) {
	if c.role != Client || c.err != nil {
		c.failLocked(err)
		return
	}
	c.unsent, c.peerGone = err, true
	// Wakes the reader, which goes on to the end.
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// failLocked ends the connection: every stream, and whoever waits on one. The first
// error counts; one that is a *ConnError is told in a GOAWAY ("An endpoint that encounters a
// connection error SHOULD first send a GOAWAY frame", RFC 9113 §5.4.1). It needs mu.
func (c *Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.tellSettings()
	closed := ErrClosed
	var fault *ConnError
	if errors.As(err, &fault) {
		// The reader sends it, if it still can be sent.
		c.appendGoAway(min(c.lastID, c.lastPeerID), fault.Code, fault.Text)
		closed = fmt.Errorf("%w: %w", ErrClosed, fault)
	}
	for _, s := range c.streams {
		ended := closed
		if c.role == Client && s.headGen == c.gen {
			ended = ErrRefused // its head is still here, and so nothing was acted upon
		}
		s.failLocked(ended)
	}
	for _, s := range c.free {
		s.disarm()
	}
	c.free = nil
	// Wakes the reader, which closes the connection.
	_ = c.nc.SetReadDeadline(time.Unix(1, 0))
}

// Drain lets no further stream begin, and the connection end with its last one
// (RFC 9113 §6.8). It does not block.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goingAway || c.err != nil {
		return
	}
	c.goingAway = true
	c.drainAt = c.config.Clock()
	if c.role == Server {
		// RFC 9113 §6.8: "A server that is attempting to gracefully shut down a connection SHOULD
		// send an initial GOAWAY frame with the last stream identifier set to" 2^31-1 "and a
		// NO_ERROR code". The answer to the PING tells that the client knows.
		c.appendGoAway(maxStreamID, NoError, "")
		c.ask(drainPing)
	} else {
		c.closing = true
	}
	c.endIfDone()
	go c.flush()
}

// drainPing is the payload of the PING that follows the first GOAWAY.
const drainPing = "fairlead"

// finalGoAway ends the first half of a drain: from here on new streams are refused. It needs mu.
func (c *Conn) finalGoAway() {
	if c.goingAway && !c.closing {
		c.closing = true
		c.lastID = c.lastPeerID
		c.appendGoAway(c.lastID, NoError, "")
		c.endIfDone()
	}
}

// endIfDone ends a connection that is to be closed and has no stream left. It needs mu.
func (c *Conn) endIfDone() {
	if (c.closing || c.peerGone) && c.active == 0 && c.reserved == 0 && c.err == nil {
		c.err = ErrClosed
		c.tellSettings()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// Finish is Drain of a client, whose streams that were opened may still begin: no other is
// opened, and the connection ends with the last of them. It does not block.
func (c *Conn) Finish() {
	c.mu.Lock()
	c.closing = true
	c.endIfDone()
	c.mu.Unlock()
}

// End ends the connection at once. The peer is told which requests were taken (RFC 9113 §6.8), but is not
// waited for. It does not block.
func (c *Conn) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hasty = true; c.err != nil { // it is about to end, and may be waiting for the peer
		_ = c.nc.Close()
		return
	}
	c.failLocked(errRoom)
}

// Cut ends the connection at once, and all its streams with ErrClosed. It does not block.
func (c *Conn) Cut() {
	c.mu.Lock()
	c.failLocked(ErrClosed)
	c.mu.Unlock()
	_ = c.nc.Close()
}

// Active returns how many streams are under way.
func (c *Conn) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// closed remembers the 64 streams that ended last, and how: what a peer sends for them may
// have been under way (RFC 9113 §5.1, closed).
type closed struct {
	ids   [64]uint32
	reset [64]bool // by this side
	next  int
}

func (o *closed) add(id uint32, reset bool) {
	o.ids[o.next], o.reset[o.next] = id, reset
	o.next = (o.next + 1) % len(o.ids)
}

func (o *closed) find(id uint32) (known, reset bool) {
	for i, have := range o.ids {
		if have == id {
			return true, o.reset[i]
		}
	}
	return false, false
}
