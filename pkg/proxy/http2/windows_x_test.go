package http2_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// What a side promises its peer, and when (RFC 9113 §6.9). The window of the connection is
// given back when bytes come, that of a stream when they are passed on: so streams that
// nobody reads hold up no others, as long as all that lies unread is not too much.

// sender is a server that responds with DATA, and counts what it is allowed.
type sender struct {
	t      *testing.T
	peer   *specPeer
	conn   int64
	stream map[uint32]int64
}

// newSender asks for n responses, whose heads it sends.
func newSender(t *testing.T, n int) (*sender, []*http2.Stream) {
	c, far := connected(t, http2.Config{})
	p := frames(t, far)
	_, _ = far.Write(buildFrame(t, "SETTINGS 0 MAX_CONCURRENT_STREAMS=10000"))
	p.until("settings")
	s := &sender{t: t, peer: p, conn: 1 << 20, stream: map[uint32]int64{}}
	var all []*http2.Stream
	for i := range n {
		stream := open(t, c)
		ask(t, stream, "GET", "/")
		all = append(all, stream)
		id := uint32(2*i + 1)
		s.stream[id] = 65_535
		_, _ = far.Write(buildFrame(t, fmt.Sprintf("HEADERS %d response", id)))
	}
	for _, stream := range all {
		var a wire.Head
		if err := stream.ReadHead(&a); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		c.Cut()
		for _, stream := range all {
			stream.Release()
		}
	})
	return s, all
}

// send sends n bytes on a stream, as far as both windows allow, and returns how many.
func (s *sender) send(id uint32, n int64) int64 {
	n = min(n, s.conn, s.stream[id])
	for left := n; left > 0; {
		size := min(left, 16_384)
		frame := []byte{byte(size >> 16), byte(size >> 8), byte(size), 0, 0}
		frame = append(binary.BigEndian.AppendUint32(frame, id), bytes.Repeat([]byte("x"), int(size))...)
		if _, err := s.peer.nc.Write(frame); err != nil {
			s.t.Fatal(err)
		}
		left -= size
	}
	s.conn -= n
	s.stream[id] -= n
	return n
}

// settle waits until all that was sent was seen, and counts what is given back.
func (s *sender) settle() {
	_, _ = s.peer.nc.Write(append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, "settling"...))
	for {
		f, err := s.peer.framer.ReadFrame()
		if err != nil {
			s.t.Fatal(err)
		}
		switch f := f.(type) {
		case *h2.PingFrame:
			return
		case *h2.WindowUpdateFrame:
			if f.StreamID == 0 {
				s.conn += int64(f.Increment)
			} else {
				s.stream[f.StreamID] += int64(f.Increment)
			}
		case *h2.GoAwayFrame:
			s.t.Fatalf("%v", f)
		}
	}
}

// read reads n bytes of a stream.
func read(t *testing.T, s *http2.Stream, n int64) {
	t.Helper()
	for n > 0 {
		p, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		n -= int64(len(p))
	}
}

func TestTheWindowOfAConnectionIsGivenBackWhenBytesCome(t *testing.T) {
	s, _ := newSender(t, 20)
	for id := uint32(1); id < 40; id += 2 {
		if n := s.send(id, 65_535); n != 65_535 {
			t.Fatalf("stream %d is allowed %d bytes of its window", id, n)
		}
		s.settle()
	}
	if s.conn < 512<<10 {
		t.Errorf("%d bytes are left of the connection's window, although all have come", s.conn)
	}
}

func TestTheWindowOfAStreamIsGivenBackWhenBytesArePassedOn(t *testing.T) {
	s, streams := newSender(t, 1)
	s.send(1, 65_535)
	s.settle()
	if s.stream[1] != 0 {
		t.Errorf("%d bytes are given back that nobody has read", s.stream[1])
	}
	read(t, streams[0], 32_000) // as much as comes at once, but less than half the window
	s.settle()
	if s.stream[1] != 0 && s.stream[1] < 32_000 {
		t.Errorf("%d bytes are given back by drops", s.stream[1])
	}
	read(t, streams[0], 65_535-32_000-16_384)
	s.settle()
	if s.stream[1] < 32_767 {
		t.Errorf("%d bytes are given back, of which most were read", s.stream[1])
	}
}

func TestTheWindowOfAStreamThatIsReadGrows(t *testing.T) {
	s, streams := newSender(t, 30)
	grown := 0
	for i, stream := range streams {
		id := uint32(2*i + 1)
		read(t, stream, s.send(id, 65_535))
		s.settle()
		switch n := s.stream[id]; {
		case n > 256<<10:
			t.Errorf("stream %d may send %d bytes", id, n)
		case n > 65_535:
			grown++
		}
	}
	if grown < 8 || grown > 12 {
		t.Errorf("%d of 30 windows have grown", grown) // 2 MB between them
	}
}

func TestStreamsThatAreNotReadHoldUpNoOthers(t *testing.T) {
	s, streams := newSender(t, 250)
	for id := uint32(3); id <= 499; id += 2 {
		if n := s.send(id, 65_535); n != 65_535 {
			t.Fatalf("stream %d is allowed %d bytes of its window", id, n)
		}
		s.settle()
	}
	for range 100 {
		n := s.send(1, 30_000)
		if n != 30_000 {
			t.Fatalf("a stream that is read is allowed %d bytes", n)
		}
		read(t, streams[0], n)
		s.settle()
	}
}

func TestWhatLiesUnreadHasAnEnd(t *testing.T) {
	const most = 256*65_535 + 2<<20 // and the window of the connection
	s, streams := newSender(t, 400)
	total := int64(0)
	for id := uint32(1); id <= 799; id += 2 {
		total += s.send(id, 65_535)
		s.settle()
	}
	if total > most+1<<20 || total < most {
		t.Errorf("%d bytes were taken, not %d", total, most)
	}
	if s.conn > 256<<10 {
		t.Errorf("%d more are allowed", s.conn)
	}
	for i, stream := range streams {
		id := uint32(2*i + 1)
		read(t, stream, 65_535-s.stream[id])
	}
	s.settle()
	if s.conn < 512<<10 {
		t.Errorf("%d are allowed when all have been read", s.conn)
	}
}

func TestPaddingIsGivenBackByItself(t *testing.T) {
	s, streams := newSender(t, 1)
	for range 2000 { // more than any window
		_, _ = s.peer.nc.Write(buildFrame(t, "DATA 1 pad=255 x"))
		s.conn -= 257
		s.stream[1] -= 257
		read(t, streams[0], 1)
		s.settle()
		if s.conn < 0 || s.stream[1] < 0 {
			t.Fatalf("%d and %d bytes are allowed", s.conn, s.stream[1])
		}
	}
}
