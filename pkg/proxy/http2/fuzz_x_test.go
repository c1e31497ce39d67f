package http2_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// seeds adds what the specification's cases send.
func seeds(f testing.TB, pattern string, add func(frames []byte)) {
	files, err := filepath.Glob(filepath.Join("testdata", "spec", pattern))
	if err != nil || len(files) == 0 {
		f.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		for _, c := range readSpec(f, file) {
			var out []byte
			for _, step := range c.steps {
				if step[0] == '>' && step != "> raw" && step != "> preface" && step != "> pause" {
					out = append(out, buildFrame(f, step[2:])...)
				}
			}
			add(out)
		}
	}
}

// keeper keeps the streams that it is given, but for malformed ones, until the end.
type keeper struct {
	mu   sync.Mutex
	kept []*http2.Stream
}

func (k *keeper) Request(s *http2.Stream, bad *wire.Error, _ *http2.Batch) {
	if bad != nil {
		s.Release()
		return
	}
	k.mu.Lock()
	k.kept = append(k.kept, s)
	k.mu.Unlock()
}
func (k *keeper) Cancelled(any, uint32) {}
func (k *keeper) Changed()              {}

// told returns what a server half says to bytes that come in parts, whose lengths the cuts
// say: resets, answers to PING, and how it ends.
func told(t *testing.T, in []byte, cuts []byte) string {
	near, far := sockets(t)
	k := &keeper{}
	c := http2.NewConn(far, http2.Server, nil, k, http2.Config{Clock: clock(), MaxStreams: 1000, HeadBytes: 4000, Fields: 20})
	ended := make(chan error, 1)
	go func() { ended <- c.Serve() }()
	said := make(chan []string, 1)
	p := newSpecPeer(near)
	go func() { said <- p.listen("") }()
	in = append([]byte(h2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), in...)
	for i := 0; len(in) > 0; i++ {
		n := len(in)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		if _, err := near.Write(in[:n]); err != nil {
			break
		}
		in = in[n:]
		if len(in) > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	_ = near.(*net.TCPConn).CloseWrite()
	err := <-ended
	for _, s := range k.kept {
		s.Release()
	}
	got := <-said
	_ = near.Close()
	return fmt.Sprintf("%s\n%v", strings.Join(got, "\n"), err)
}

func TestTheSpecificationsFramesAreReadAlikeByteByByte(t *testing.T) {
	n := 0
	seeds(t, "server-*.txt", func(frames []byte) {
		if n++; len(frames) > 500 || testing.Short() && n%5 > 0 {
			return // it takes a while
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel() // it mostly waits between two bytes
			whole, single := told(t, frames, nil), told(t, frames, []byte{0})
			if strings.Contains(whole, "reset by peer") || strings.Contains(single, "reset by peer") {
				return // it stopped reading before all was sent
			}
			if whole != single {
				t.Errorf("%q: at once\n%s\nbyte by byte\n%s", frames, whole, single)
			}
		})
	})
}

func FuzzAnySplitIsReadAlike(f *testing.F) {
	seeds(f, "server-*.txt", func(frames []byte) {
		f.Add(frames, []byte{0})
		f.Add(frames, []byte{8, 0, 30})
	})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		if len(in) > 4000 || len(cuts) == 0 || len(cuts) > 100 {
			return // so that no budget is spent, and it takes no time
		}
		for i := range cuts {
			cuts[i] |= 7 // 8 bytes at the least
		}
		whole, parts := told(t, in, nil), told(t, in, cuts)
		if strings.Contains(whole, "reset by peer") || strings.Contains(parts, "reset by peer") {
			return // it stopped reading before all was sent
		}
		if whole != parts {
			t.Errorf("at once\n%s\nin parts\n%s", whole, parts)
		}
	})
}

// collected answers a request when all of it has come, with its path and length.
type collected struct{ running sync.WaitGroup }

func (h *collected) Request(s *http2.Stream, bad *wire.Error, _ *http2.Batch) {
	if bad != nil {
		s.Release()
		return
	}
	h.running.Go(func() {
		defer s.Release()
		var q, a wire.Head
		_ = s.ReadHead(&q)
		for {
			if _, err := s.Next(); err == io.EOF { //nolint:errorlint // it is as it is
				break
			} else if err != nil {
				return
			}
		}
		a.Reset()
		a.Status = 200
		_ = s.WriteHead(&a)
		_ = s.EndBody(nil)
		_ = s.Flush()
	})
}
func (h *collected) Cancelled(any, uint32) {}
func (h *collected) Changed()              {}

// script makes frames of bytes: of each, what is sent, and on which stream. It says which
// streams are whole requests that nothing is wrong with, as far as it knows.
func script(t testing.TB, in []byte) (out []byte, whole []uint32) {
	const none, open, over = 0, 1, 2
	state := map[uint32]int{}
	highest := uint32(0)
	frame := func(format string, a ...any) { out = append(out, buildFrame(t, fmt.Sprintf(format, a...))...) }
	for _, b := range in {
		id := 2*uint32(b>>5) + 1
		switch b & 31 {
		case 0, 1: // a request without a body
			if state[id] == none && id > highest {
				frame("HEADERS %d +END_STREAM request x=%d", id, b)
				state[id], highest = over, id
			}
		case 2, 3, 4: // the head of one that has a body
			if state[id] == none && id > highest {
				frame("HEADERS %d :method=POST :scheme=http :authority=a :path=/", id)
				state[id], highest = open, id
			}
		case 5, 6:
			if state[id] == open {
				frame("DATA %d hello", id)
			}
		case 7, 8:
			if state[id] == open {
				frame("DATA %d +END_STREAM hello", id)
				state[id] = over
			}
		case 9:
			if state[id] == open {
				frame("HEADERS %d +END_STREAM x=y", id)
				state[id] = over
			}
		case 10:
			if state[id] == open {
				frame("DATA %d pad=3 hello", id)
			}
		case 11:
			frame("PRIORITY %d hex:0000000010", id)
		case 12:
			frame("PING 0 pingpong")
		case 13:
			frame("SETTINGS 0 INITIAL_WINDOW_SIZE=%d", 1000*(int(b)+1))
		case 14:
			frame("WINDOW_UPDATE 0 1000")
		case 15:
			if state[id] == open {
				frame("WINDOW_UPDATE %d 1000", id)
			}
		case 16:
			frame("0xbe %d whatever", id)
		case 17:
			if state[id] == none && id > highest {
				frame("HEADERS %d -END_HEADERS +END_STREAM", id)
				frame("CONTINUATION %d request", id)
				state[id], highest = over, id
			}
		// From here on a connection ends.
		case 18:
			if state[id] == none && id > highest {
				frame("DATA %d hello", id)
			}
		case 19:
			if state[id] == none && id > highest {
				frame("RST_STREAM %d CANCEL", id)
			}
		case 20:
			frame("HEADERS %d +END_STREAM request", id+1)
		case 21:
			frame("PING 0 short")
		case 22:
			frame("SETTINGS 1")
		case 23:
			frame("WINDOW_UPDATE 0 0")
		case 24:
			frame("CONTINUATION %d x=y", id)
		case 25:
			frame("HEADERS 0 +END_STREAM request")
		case 26:
			frame("PUSH_PROMISE %d hex:00000002", id)
		case 27:
			frame("SETTINGS 0 ENABLE_PUSH=2")
		case 28:
			frame("WINDOW_UPDATE 0 0x7fffffff")
		case 29:
			frame("HEADERS %d -END_HEADERS +END_STREAM request", id+100)
			frame("PING 0 between.")
		}
	}
	for id, s := range state {
		if s == over {
			whole = append(whole, id)
		}
	}
	return out, whole
}

// judged is what a server says to a script: how it ends the connection, else which streams
// it answers.
func judged(t *testing.T, nc net.Conn, out []byte, whole []uint32) string {
	p := newSpecPeer(nc)
	_, _ = nc.Write(append([]byte(h2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), out...))
	want := map[uint32]bool{}
	for _, id := range whole {
		want[id] = true
	}
	var answered []string
	_, _ = nc.Write(append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, "the end."...))
	for seen := false; ; {
		if seen && len(answered) >= len(want) {
			sort.Strings(answered)
			return strings.Join(answered, " ")
		}
		f, err := p.framer.ReadFrame()
		if err != nil {
			return "the connection ends"
		}
		switch f := f.(type) {
		case *h2.PingFrame:
			seen = seen || string(f.Data[:]) == "the end."
		case *h2.GoAwayFrame:
			if f.ErrCode != h2.ErrCodeNo {
				return "the connection ends"
			}
		case *h2.RSTStreamFrame:
			if want[f.StreamID] {
				answered = append(answered, fmt.Sprintf("%d is reset", f.StreamID))
				delete(want, f.StreamID)
				want[f.StreamID+1] = true
			}
		case *h2.HeadersFrame:
			answered = append(answered, fmt.Sprint(f.StreamID))
		}
	}
}

// What Go's own server takes, this one takes, and what that refuses, this one does. What
// they differ in is not in the script: the other one ends connections by PRIORITY of a
// wrong length where this one ends the stream, and takes windows, pseudo-header fields and
// values that RFC 9113 does not allow.
func FuzzServerAgainstAnother(f *testing.F) {
	for i := range 30 {
		f.Add([]byte{byte(i)})
		f.Add([]byte{0, 2, 5, 34, 37, 39, byte(32 | i), 64, byte(i)})
	}
	f.Add([]byte{2, 34, 66, 5, 37, 69, 7, 40, 73, 12, 13, 14, 96})
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	other.Config.ErrorLog = log.New(io.Discard, "", 0)
	other.Config.Protocols = new(http.Protocols)
	other.Config.Protocols.SetUnencryptedHTTP2(true)
	other.Start()
	f.Cleanup(other.Close)
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 60 {
			return
		}
		out, whole := script(t, in)
		near, far := sockets(t)
		h := &collected{}
		c := http2.NewConn(far, http2.Server, nil, h, http2.Config{Clock: clock()})
		var serving sync.WaitGroup
		serving.Go(func() { _ = c.Serve() })
		ours := judged(t, near, out, whole)
		_ = near.Close()
		serving.Wait()
		h.running.Wait()
		if n := c.Active(); n != 0 && ours != "the connection ends" {
			t.Errorf("%d streams are left", n)
		}

		near, err := net.Dial("tcp", other.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs := judged(t, near, out, whole)
		_ = near.Close()
		if ours != theirs {
			t.Errorf("%x: this one says %q, the other %q", in, ours, theirs)
		}
	})
}

func FuzzClientWithWhateverAServerSays(f *testing.F) {
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	seeds(f, "client-*.txt", func(frames []byte) { f.Add(append([]byte(settings), frames...)) })
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := sockets(t)
		c := http2.NewConn(near, http2.Client, nil, specClient{}, http2.Config{Clock: clock()})
		var serving sync.WaitGroup
		serving.Go(func() { _ = c.Serve() })
		go func() { _, _ = io.Copy(io.Discard, far) }()
		var all []*http2.Stream
		for _, method := range []string{"GET", "POST", "HEAD"} {
			s, err := c.Open()
			if err != nil {
				t.Fatal(err)
			}
			ask(t, s, method, "/")
			all = append(all, s)
		}
		_, _ = far.Write(in)
		_ = far.(*net.TCPConn).CloseWrite()
		for _, s := range all {
			var a wire.Head
			err := error(nil)
			for a.Status < 200 && err == nil {
				err = s.ReadHead(&a)
			}
			for err == nil {
				_, err = s.Next()
			}
			s.Release()
		}
		serving.Wait()
		_ = far.Close()
		if n := c.Active(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}
