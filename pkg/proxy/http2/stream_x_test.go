package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// handed hands the streams of requests to the test.
type handed struct {
	streams   chan *http2.Stream
	cancelled chan uint32
}

func newHanded() *handed {
	return &handed{streams: make(chan *http2.Stream, 1000), cancelled: make(chan uint32, 1000)}
}

func (h *handed) Request(s *http2.Stream, _ *wire.Error, _ *http2.Batch) {
	s.User = h
	h.streams <- s
}
func (h *handed) Cancelled(_ any, id uint32) { h.cancelled <- id }
func (h *handed) Changed()                   {}

// next is the stream of the next request, whose head has been read.
func (h *handed) next(t testing.TB) *http2.Stream {
	t.Helper()
	select {
	case s := <-h.streams:
		var q wire.Head
		if err := s.ReadHead(&q); err != nil {
			t.Fatal(err)
		}
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("no request came")
		return nil
	}
}

// hands is a clock that is moved by hand.
type hands struct{ atomic.Int64 }

func (h *hands) now() int64              { return h.Load() }
func (h *hands) advance(d time.Duration) { h.Add(int64(d)) }

// sockets returns both ends of a connection.
func sockets(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// run runs a half until the test ends.
func run(t testing.TB, nc net.Conn, role http2.Role, h http2.Handler, config http2.Config) *http2.Conn {
	t.Helper()
	if config.Clock == nil {
		config.Clock = clock()
	}
	c := http2.NewConn(nc, role, nil, h, config)
	var serving sync.WaitGroup
	serving.Go(func() { _ = c.Serve() })
	t.Cleanup(func() { c.Cut(); serving.Wait() })
	return c
}

// halves returns both halves of a connection.
func halves(t testing.TB, h http2.Handler) (client, server *http2.Conn) {
	t.Helper()
	near, far := sockets(t)
	return run(t, near, http2.Client, specClient{}, http2.Config{}), run(t, far, http2.Server, h, http2.Config{})
}

func open(t testing.TB, c *http2.Conn) *http2.Stream {
	t.Helper()
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// await waits until something is so.
func await(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not come to be that %s", what)
		}
	}
}

func answer(t testing.TB, s *http2.Stream, fields ...string) {
	t.Helper()
	var a wire.Head
	a.Reset()
	a.Status = 200
	for i := 0; i < len(fields); i += 2 {
		a.Add(wire.Other, fields[i], []byte(fields[i+1]))
	}
	if err := s.WriteHead(&a); err != nil {
		t.Fatal(err)
	}
}

// waker counts how often it was called, and with a batch or without.
type waker struct{ woken chan bool }

func newWaker() *waker               { return &waker{make(chan bool, 10)} }
func (w *waker) Wake(b *http2.Batch) { w.woken <- b != nil }

func TestWhoIsParkedIsWokenOnceByWhateverComes(t *testing.T) {
	for _, test := range []struct {
		name     string
		do       func(t *testing.T, near, far *http2.Stream, client, server *http2.Conn)
		byABatch bool
		err      error // of what is read then; nil: a head
	}{
		{"a head", func(t *testing.T, _, far *http2.Stream, _, _ *http2.Conn) { answer(t, far); _ = far.Flush() }, true, nil},
		{"an interim head", func(t *testing.T, _, far *http2.Stream, _, _ *http2.Conn) {
			var a wire.Head
			a.Reset()
			a.Status = 103
			_ = far.WriteHead(&a)
			_ = far.Flush()
		}, true, nil},
		{"a reset", func(_ *testing.T, _, far *http2.Stream, _, _ *http2.Conn) { far.Reset(http2.RefusedStream) }, true, http2.ErrRefused},
		{"an abort", func(_ *testing.T, near, _ *http2.Stream, _, _ *http2.Conn) { near.Abort() }, false, http2.ErrReleased},
		{"its deadline", func(_ *testing.T, near, _ *http2.Stream, _, _ *http2.Conn) { near.SetDeadline(1) }, false, os.ErrDeadlineExceeded},
		{"the loss of the connection", func(_ *testing.T, _, _ *http2.Stream, _, server *http2.Conn) { server.Cut() }, true, http2.ErrClosed},
		{"its end by this side", func(_ *testing.T, _, _ *http2.Stream, client, _ *http2.Conn) { client.Cut() }, true, http2.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHanded()
			client, server := halves(t, h)
			near := open(t, client)
			ask(t, near, "GET", "/")
			far := h.next(t)
			w := newWaker()
			if near.Ready() || !near.Park(w) {
				t.Fatal("there is something to read, although nothing was sent")
			}
			test.do(t, near, far, client, server)
			select {
			case got := <-w.woken:
				if got != test.byABatch {
					t.Errorf("with a batch: %t", got)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("it is not woken")
			}
			if !near.Ready() || near.Park(w) {
				t.Error("there is nothing to read, or it was parked all the same")
			}
			var a wire.Head
			if err := near.ReadHead(&a); !errors.Is(err, test.err) {
				t.Errorf("then: %v", err)
			}
			near.Abort()
			near.Release()
			far.Release()
			client.Cut()
			time.Sleep(5 * time.Millisecond)
			if len(w.woken) > 0 {
				t.Error("it is woken twice")
			}
			await(t, "nothing is under way", func() bool { return client.Active() == 0 && server.Active() == 0 })
		})
	}
}

func TestBytesForWhoWasParkedAreKeptIfTheyAreNotReadAtOnce(t *testing.T) {
	h := newHanded()
	client, _ := halves(t, h)
	near := open(t, client)
	ask(t, near, "GET", "/")
	far := h.next(t)
	answer(t, far)
	_ = far.Flush()
	var a wire.Head
	if err := near.ReadHead(&a); err != nil {
		t.Fatal(err)
	}
	var want []byte
	var got []byte
	for i := range 20 {
		w := newWaker()
		if !near.Park(w) {
			t.Fatalf("part %d is here before it was sent", i)
		}
		p := fmt.Appendf(nil, "part %d,", i)
		want = append(want, p...)
		_ = far.WriteBody(p)
		_ = far.Flush()
		<-w.woken
		p, err := near.Next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p...)
	}
	_ = far.EndBody(nil)
	_ = far.Flush()
	if p, err := near.Next(); len(p) > 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", p, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	near.Release()
	far.Release()
}

func TestReleaseEndsWhatHasNotEnded(t *testing.T) {
	body := func(s *http2.Stream) { _ = s.WriteBody([]byte("hello")) }
	end := func(s *http2.Stream) { _ = s.EndBody(nil) }
	for _, test := range []struct {
		name       string
		method     string
		near, far  func(t *testing.T, s *http2.Stream) // what has been done before
		releaseFar bool                                // the server's half is given back, else the client's
		code       string                              // that the other side reads; empty: it is whole
	}{
		{"a request without an answer", "GET", nil, nil, true, "INTERNAL_ERROR"},
		{"a request with half an answer", "GET", nil, func(t *testing.T, s *http2.Stream) { answer(t, s); body(s) }, true, "INTERNAL_ERROR"},
		{"a request with an answer", "GET", nil, func(t *testing.T, s *http2.Stream) { answer(t, s); body(s); end(s) }, true, ""},
		{"a request with an answer that is still sent", "POST", nil, func(t *testing.T, s *http2.Stream) { answer(t, s); end(s) }, true, ""},
		{"what was asked", "GET", nil, nil, false, "CANCEL"},
		{"what is still asked", "POST", func(_ *testing.T, s *http2.Stream) { body(s); _ = s.Flush() }, nil, false, "CANCEL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHanded()
			client, server := halves(t, h)
			near := open(t, client)
			ask(t, near, test.method, "/")
			far := h.next(t)
			if test.near != nil {
				test.near(t, near)
			}
			if test.far != nil {
				test.far(t, far)
				_ = far.Flush()
			}
			released, other := near, far
			if test.releaseFar {
				released, other = far, near
			}
			released.Release()
			err := error(nil)
			var a wire.Head
			if test.releaseFar {
				err = other.ReadHead(&a)
			}
			for err == nil {
				_, err = other.Next()
			}
			if errors.Is(err, io.EOF) && !test.releaseFar { // the request was whole: it is the connection that tells
				if id := <-h.cancelled; id != 1 {
					t.Errorf("stream %d was cancelled", id)
				}
				err = other.Err()
			}
			var reset *http2.ResetError
			switch {
			case test.code == "" && !errors.Is(err, io.EOF):
				t.Errorf("%v", err)
			case test.code != "" && (!errors.As(err, &reset) || reset.Code.String() != test.code):
				t.Errorf("%v, not %s", err, test.code)
			}
			other.Release()
			await(t, "nothing is under way", func() bool { return client.Active() == 0 && server.Active() == 0 })
		})
	}
}

func TestStreamThatWasNotWrittenToLeavesNothing(t *testing.T) {
	client, server := halves(t, newHanded())
	for range 1000 {
		open(t, client).Release()
	}
	s := open(t, client)
	s.Abort()
	var q wire.Head
	q.Reset()
	q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("a")
	if err := s.WriteHead(&q); err == nil {
		t.Error("it is written after its end")
	}
	s.Release()
	if client.Active() != 0 || server.Active() != 0 {
		t.Errorf("%d and %d are under way", client.Active(), server.Active())
	}
}

// frames reads what a half writes.
func frames(t *testing.T, nc net.Conn) *specPeer {
	t.Helper()
	if _, err := io.ReadFull(nc, make([]byte, len(h2.ClientPreface))); err != nil {
		t.Fatal(err)
	}
	p := newSpecPeer(nc)
	_, _ = nc.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
	p.until("greeting")
	return p
}

func TestTheEndOfAMessageIsAFlagOfItsLastFrame(t *testing.T) {
	c, far := connected(t, http2.Config{})
	p := frames(t, far)
	for i, test := range []struct {
		body, trailers string
		want           string
	}{
		{"", "", "< HEADERS %d END_STREAM :method=PUT :scheme=http :path=/ :authority=a"},
		{"hello", "", "< HEADERS %d :method=PUT :scheme=http :path=/ :authority=a\n< DATA %[1]d END_STREAM hello"},
		{"hello", "y", "< HEADERS %d :method=PUT :scheme=http :path=/ :authority=a\n< DATA %[1]d hello\n< HEADERS %[1]d END_STREAM x=y"},
		{"", "y", "< HEADERS %d :method=PUT :scheme=http :path=/ :authority=a\n< HEADERS %[1]d END_STREAM x=y"},
	} {
		s := open(t, c)
		var q, trailers wire.Head
		q.Reset()
		q.Method, q.Path, q.Authority = []byte("PUT"), []byte("/"), []byte("a")
		_ = s.WriteHead(&q)
		_ = s.WriteBody([]byte(test.body))
		if test.trailers != "" {
			trailers.Add(wire.Other, "X", []byte(test.trailers))
		}
		_ = s.EndBody(trailers.Fields)
		_ = s.Flush()
		if got, want := strings.Join(p.until("request "), "\n"), fmt.Sprintf(test.want, 2*i+1); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		s.Release()
		p.until("released")
	}
}

// Whoever writes frames of others may take a head before its sender has ended the stream.
func TestAHeadThatEndsItsStreamIsOneFrameThoughItIsTakenAtOnce(t *testing.T) {
	c, far := connected(t, http2.Config{})
	p := frames(t, far)
	s := open(t, c)
	var q wire.Head
	q.Reset()
	q.Method, q.Path, q.Authority, q.Ends = []byte("GET"), []byte("/"), []byte("a"), true
	if err := errors.Join(s.WriteHead(&q), s.Flush()); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(p.until("taken it"), "\n"), "< HEADERS 1 END_STREAM :method=GET :scheme=http :path=/ :authority=a"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := errors.Join(s.EndBody(nil), s.Flush()); err != nil {
		t.Fatal(err)
	}
	if got := p.until("ended it"); len(got) > 0 {
		t.Errorf("behind it: %q", got)
	}
	s.Release()
	p.until("released")
}

func TestAResponseSaysWithItsHeadIfThatIsAll(t *testing.T) {
	for name, test := range map[string]struct {
		then func(*http2.Stream)
		ends bool
	}{
		"all":                  {func(s *http2.Stream) { _ = s.EndBody(nil) }, true},
		"a body is to come":    {func(*http2.Stream) {}, false},
		"a body comes":         {func(s *http2.Stream) { _ = errors.Join(s.WriteBody([]byte("x")), s.EndBody(nil)) }, false},
		"trailers come behind": {func(s *http2.Stream) { var h wire.Head; h.Add(wire.Other, "x", []byte("y")); _ = s.EndBody(h.Fields) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHanded()
			client, _ := halves(t, h)
			near := open(t, client)
			ask(t, near, "GET", "/")
			far := <-h.streams
			var q wire.Head
			if err := far.ReadHead(&q); err != nil || q.Ends {
				t.Errorf("the request: %t, %v", q.Ends, err)
			}
			var b http2.Batch
			far.Hold(&b) // so that all of it goes out together, and has come when the head is read
			answer(t, far)
			test.then(far)
			b.Flush()
			_ = far.Flush()
			b.Flush()
			var a wire.Head
			if err := near.ReadHead(&a); err != nil || a.Ends != test.ends {
				t.Errorf("%t, %v", a.Ends, err)
			}
			near.Release()
			far.Release()
		})
	}
}

func TestWhatManyWriteIsSentAtOnce(t *testing.T) {
	near, far := net.Pipe() // whose reads are the writes of the other side
	c := run(t, near, http2.Client, specClient{}, http2.Config{})
	buf := make([]byte, 64<<10)
	read := func() int {
		_ = far.SetDeadline(time.Now().Add(10 * time.Second))
		n, err := far.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	read() // the greeting
	var all []*http2.Stream
	var b http2.Batch
	for range 20 {
		s := open(t, c)
		s.Hold(&b)
		ask(t, s, "GET", "/")
		all = append(all, s)
	}
	b.Flush()
	heads, reads := 0, 0
	for heads < 20 {
		n := read()
		for _, flags := range []byte{5, 4} { // without END_STREAM it was taken before its end was written
			heads += bytes.Count(buf[:n], []byte{1, flags, 0, 0, 0})
		}
		reads++
	}
	if reads > 2 { // whoever wrote the greeting may have taken the first ones
		t.Errorf("20 heads came by %d writes", reads)
	}
	_ = far.Close()
	for _, s := range all {
		s.Release()
	}
}

// holding answers in the reader, and keeps the streams.
type holding struct {
	quiet
	streams []*http2.Stream
	sent    []bool // whether the first answer may have been, when each request came
}

func (h *holding) Request(s *http2.Stream, _ *wire.Error, b *http2.Batch) {
	var q, a wire.Head
	_ = s.ReadHead(&q) // it is there
	s.Hold(b)
	a.Reset()
	a.Status = 200
	_ = errors.Join(s.WriteHead(&a), s.EndBody(nil), s.Flush()) // the client reads what is missing
	h.streams = append(h.streams, s)
	h.sent = append(h.sent, h.streams[0].Written())
}

func TestWhatIsHereIsReadBeforeAnswersAreSent(t *testing.T) {
	near, far := sockets(t)
	_ = near.SetDeadline(time.Now().Add(10 * time.Second))
	first := append([]byte(h2.ClientPreface), buildFrame(t, "SETTINGS 0")...)
	first = append(first, buildFrame(t, "HEADERS 1 +END_STREAM request")...)
	if _, err := near.Write(buildFrame(t, "HEADERS 3 +END_STREAM request")); err != nil {
		t.Fatal(err)
	}
	_ = far.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := waitReadable(far); err != nil {
		t.Fatal(err)
	}
	_ = far.SetReadDeadline(time.Time{})
	h := &holding{}
	c := http2.NewConn(far, http2.Server, first, h, http2.Config{Clock: clock()})
	var serving sync.WaitGroup
	serving.Go(func() { _ = c.Serve() })
	p := newSpecPeer(near)
	if got := p.until("answered"); !slices.Equal(got, []string{"< HEADERS 1 END_STREAM :status=200", "< HEADERS 3 END_STREAM :status=200"}) {
		t.Errorf("the answers are %q", got)
	}
	c.Cut()
	serving.Wait()
	for _, s := range h.streams {
		s.Release()
	}
	if !slices.Equal(h.sent, []bool{false, false}) {
		t.Errorf("when the requests came, the first answer had been sent: %v", h.sent)
	}
}

// waitReadable returns when there are bytes to be read.
func waitReadable(nc net.Conn) error {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err == nil
	})
}

func TestHeadsLongerThanAFrameAreContinued(t *testing.T) {
	c, far := connected(t, http2.Config{})
	p := frames(t, far)
	for _, size := range []int{16_300, 16_384, 40_000, 57_000} {
		s := open(t, c)
		var q wire.Head
		q.Reset()
		q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("a")
		value := bytes.Repeat([]byte("~"), size) // which Huffman's code makes longer: it goes as it is
		q.Add(wire.Other, "x", value)
		_ = s.WriteHead(&q)
		_ = s.EndBody(nil)
		_ = s.Flush()
		var block []byte
		for n := 0; ; n++ {
			f, err := p.framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f.Header().Length > 16_384 {
				t.Errorf("a frame of %d bytes", f.Header().Length)
			}
			over := false
			switch f := f.(type) {
			case *h2.HeadersFrame:
				if n > 0 || !f.StreamEnded() {
					t.Errorf("HEADERS at %d, END_STREAM %t", n, f.StreamEnded())
				}
				block, over = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
			case *h2.ContinuationFrame:
				block, over = append(block, f.HeaderBlockFragment()...), f.HeadersEnded()
			default:
				t.Fatalf("%v", f)
			}
			if over {
				break
			}
		}
		fields, err := p.fields.DecodeFull(block)
		if err != nil {
			t.Fatal(err)
		}
		if last := fields[len(fields)-1]; last.Name != "x" || last.Value != string(value) {
			t.Errorf("%d bytes: %s of %d", size, last.Name, len(last.Value))
		}
		s.Release()
		p.until("released")
	}
}

func TestTheCompressionFollowsThePeersTable(t *testing.T) {
	c, far := connected(t, http2.Config{})
	p := frames(t, far)
	for i, size := range []uint32{0, 4096, 100, 1 << 20, 0} {
		_, _ = far.Write(buildFrame(t, fmt.Sprintf("SETTINGS 0 HEADER_TABLE_SIZE=%d", size)))
		p.until("settings")
		p.fields.SetAllowedMaxDynamicTableSize(size) // an encoder that uses more is refused by it
		for range 3 {
			s := open(t, c)
			var q wire.Head
			q.Reset()
			q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("a")
			q.Add(wire.UserAgent, "user-agent", fmt.Appendf(nil, "agent %d", i))
			_ = s.WriteHead(&q)
			_ = s.EndBody(nil)
			_ = s.Flush()
			if got := strings.Join(p.until("request "), "\n"); !strings.HasSuffix(got, fmt.Sprintf("user-agent=agent %d", i)) {
				t.Errorf("a table of %d: %s", size, got)
			}
			s.Release()
			p.until("released")
		}
	}
}

func TestDrainTellsTwiceAndEndsWithTheLastStream(t *testing.T) {
	near, far := sockets(t)
	h := newHanded()
	c := run(t, far, http2.Server, h, http2.Config{})
	_, _ = io.WriteString(near, h2.ClientPreface)
	_, _ = near.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
	_, _ = near.Write(buildFrame(t, "HEADERS 1 +END_STREAM request"))
	p := newSpecPeer(near)
	first := h.next(t)
	p.until("begun...")
	c.Drain()
	// A client may not know yet.
	_, _ = near.Write(buildFrame(t, "HEADERS 3 +END_STREAM request"))
	second := h.next(t)
	if got := strings.Join(p.until("drained."), "\n"); got != "< GOAWAY last=2147483647 NO_ERROR\n< PING fairlead" {
		t.Errorf("first: %s", got)
	}
	_, _ = near.Write(buildFrame(t, "PING 0 +ACK fairlead"))
	_, _ = near.Write(buildFrame(t, "HEADERS 5 +END_STREAM request")) // which it should not have sent
	if got := strings.Join(p.until("known..."), "\n"); got != "< GOAWAY last=3 NO_ERROR" {
		t.Errorf("then: %s", got)
	}
	for _, s := range []*http2.Stream{first, second} {
		answer(t, s)
		_ = s.EndBody(nil)
		_ = s.Flush()
		s.Release()
	}
	if got := strings.Join(p.until("answered"), "\n"); got != "< HEADERS 1 END_STREAM :status=200\n< HEADERS 3 END_STREAM :status=200" {
		t.Errorf("at last: %s", got)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ends with %v", err)
	}
	if len(h.streams) > 0 {
		t.Error("a request was taken behind the end")
	}
}

// A client has much of the last answers before it when the server is through with them, and says what
// it takes of it. Were it reset for that, it would lose the rest.
func TestAClientMayTakeTheLastAnswerAfterADrainHasEnded(t *testing.T) {
	near, far := sockets(t)
	h := newHanded()
	c := run(t, far, http2.Server, h, http2.Config{})
	_, _ = io.WriteString(near, h2.ClientPreface)
	_, _ = near.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
	_, _ = near.Write(buildFrame(t, "HEADERS 1 +END_STREAM request"))
	p := newSpecPeer(near)
	s := h.next(t)
	c.Drain()
	p.until("drained.")
	_, _ = near.Write(buildFrame(t, "PING 0 +ACK fairlead"))
	p.until("known...")
	answer(t, s)
	if err := s.WriteBody(make([]byte, 60_000)); err != nil {
		t.Fatal(err)
	}
	_ = s.EndBody(nil)
	_ = s.Flush()
	s.Release()
	got, err := io.ReadAll(near)
	if err != nil || len(got) < 60_000 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for range 3 {
		if _, err := near.Write(buildFrame(t, "WINDOW_UPDATE 0 60000")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDrainOfAClientThatDoesNotAnswerGoesOnByItself(t *testing.T) {
	near, far := sockets(t)
	var now hands
	c := run(t, far, http2.Server, newHanded(), http2.Config{Clock: now.now})
	_, _ = io.WriteString(near, h2.ClientPreface)
	_, _ = near.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
	p := newSpecPeer(near)
	p.until("begun...")
	now.advance(time.Second)
	c.Drain()
	p.until("drained.")
	now.advance(2 * time.Second)
	c.Check(now.now())
	if got := strings.Join(p.until("never..."), "\n"); got != "< GOAWAY last=0 NO_ERROR" {
		t.Errorf("%s", got)
	}
}

func TestCheckEndsConnectionsThatAreNotThereAnyMore(t *testing.T) {
	for _, test := range []struct {
		name  string
		greet bool // SETTINGS are acknowledged
		ask   bool
		half  string // the beginning of a frame
		after []time.Duration
		want  string
	}{
		{"SETTINGS that are not acknowledged", false, false, "", []time.Duration{11 * time.Second}, "< GOAWAY last=0 SETTINGS_TIMEOUT"},
		{"a peer that is silent while it waits, and does not answer", true, true, "", []time.Duration{time.Second, 16 * time.Second, 16 * time.Second},
			"< PING there?\r\n\n< GOAWAY last=1 NO_ERROR"},
		{"a peer that is silent while nothing is under way", true, false, "", []time.Duration{time.Second, 16 * time.Second, 16 * time.Second}, ""},
		{"a head that does not go on", true, false, "\x00\x00\x10\x01\x05\x00\x00\x00\x01abc", []time.Duration{0, 11 * time.Second}, "< GOAWAY last=0 ENHANCE_YOUR_CALM"},
		{"DATA that do not go on, for a while", true, true, "\x00\x00\x10\x00\x00\x00\x00\x00\x01abc", []time.Duration{0, 14 * time.Second}, ""},
		{"a block that does not go on", true, false, "\x00\x00\x01\x01\x01\x00\x00\x00\x01\x82", []time.Duration{0, 11 * time.Second}, "< GOAWAY last=0 ENHANCE_YOUR_CALM"},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := sockets(t)
			var now hands
			now.advance(time.Second)
			h := newHanded()
			c := run(t, far, http2.Server, h, http2.Config{Clock: now.now})
			_, _ = io.WriteString(near, h2.ClientPreface)
			_, _ = near.Write(buildFrame(t, "SETTINGS 0"))
			if test.greet {
				_, _ = near.Write(buildFrame(t, "SETTINGS 0 +ACK"))
			}
			p := newSpecPeer(near)
			p.until("begun...")
			if test.ask {
				_, _ = near.Write(buildFrame(t, "HEADERS 1 +END_STREAM request"))
				h.next(t)
				p.until("asked...")
			}
			if test.half != "" {
				_, _ = io.WriteString(near, test.half)
				time.Sleep(50 * time.Millisecond) // it has been read
			}
			for _, d := range test.after {
				now.advance(d)
				c.Check(now.now())
			}
			if test.want == "" {
				time.Sleep(20 * time.Millisecond)
				_ = near.SetReadDeadline(time.Now())
			}
			got := strings.Join(p.until("at last."), "\n")
			if got != test.want {
				t.Errorf("got\n%q\nwant\n%q", got, test.want)
			}
		})
	}
}

func TestCheckEndsStreamsWhosePeerTakesNothing(t *testing.T) {
	near, far := sockets(t)
	var now hands
	h := newHanded()
	c := run(t, far, http2.Server, h, http2.Config{Clock: now.now, StallTimeout: 5 * time.Second})
	_, _ = io.WriteString(near, h2.ClientPreface)
	_, _ = near.Write(append(buildFrame(t, "SETTINGS 0 INITIAL_WINDOW_SIZE=3"), buildFrame(t, "SETTINGS 0 +ACK")...))
	_, _ = near.Write(buildFrame(t, "HEADERS 1 +END_STREAM request"))
	p := newSpecPeer(near)
	s := h.next(t)
	var b http2.Batch
	s.Hold(&b)
	answer(t, s)
	_ = s.WriteBody([]byte("hello"))
	_ = s.EndBody(nil)
	_ = s.Flush()
	b.Flush()
	s.Release()
	if got := strings.Join(p.until("begun..."), "\n"); got != "< HEADERS 1 :status=200\n< DATA 1 hel" {
		t.Errorf("%s", got)
	}
	for range 2 {
		now.advance(4 * time.Second)
		c.Check(now.now())
	}
	_, _ = near.Write(buildFrame(t, "WINDOW_UPDATE 1 1")) // which is progress
	if got := strings.Join(p.until("a byte.."), "\n"); got != "< DATA 1 l" {
		t.Errorf("%s", got)
	}
	for range 3 {
		now.advance(4 * time.Second)
		c.Check(now.now())
	}
	if got := strings.Join(p.until("none...."), "\n"); got != "< RST_STREAM 1 CANCEL" {
		t.Errorf("%s", got)
	}
	if n := c.Active(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// Many requests that time out are no attack, and one connection may carry those of many.
func TestStreamsThatAreResetAfterAWhileDoNotCount(t *testing.T) {
	for _, test := range []struct {
		name string
		age  time.Duration
		ends bool
	}{{"at once", time.Millisecond, true}, {"after a while", 200 * time.Millisecond, false}} {
		t.Run(test.name, func(t *testing.T) {
			near, far := sockets(t)
			var now hands
			h := newHanded()
			run(t, far, http2.Server, h, http2.Config{Clock: now.now})
			_, _ = io.WriteString(near, h2.ClientPreface)
			_, _ = near.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
			p := newSpecPeer(near)
			var got []string
			for id := 1; id < 2000 && len(got) == 0; {
				var resets []byte
				for range 100 {
					_, _ = near.Write(buildFrame(t, fmt.Sprintf("HEADERS %d +END_STREAM request", id)))
					resets = append(resets, buildFrame(t, fmt.Sprintf("RST_STREAM %d CANCEL", id))...)
					id += 2
				}
				got = append(got, p.until("begun...")...)
				now.advance(test.age)
				_, _ = near.Write(resets)
				got = append(got, p.until("reset...")...)
				for len(h.streams) > 0 {
					(<-h.streams).Release()
				}
			}
			if ends := len(got) > 0; ends != test.ends {
				t.Errorf("%q", got)
			}
		})
	}
}
