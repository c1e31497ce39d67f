package http2_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// The files of testdata/spec say what becomes of frames: server-*.txt of those that a
// client sends, client-*.txt of those that a server does. A case is a paragraph:
//
//	what is so
//	why: a sentence of an RFC, or of ours
//	! GET /                       the client half sends a request; without END_STREAM if POST
//	> pause                       what comes next is not read together with what came before
//	> TYPE stream +FLAG … payload a frame that is sent
//	< TYPE stream FLAG … payload  a frame that comes back; there is no other
//	= stream …                    what the client half's stream has in the end
//
// A payload is text, hex:…, N*x, fields as name=value (request and response stand for
// those that a message needs), settings as NAME=value, a code or a number, as the type
// has it; pad=N pads it, length=N tells a wrong length, and + and - set flags and take
// away those that a frame has without a word (END_HEADERS). In texts %xx is an octet.

// specCase is one.
type specCase struct {
	name  string
	steps []string // with their mark
	want  []string
}

func readSpec(t testing.TB, file string) []specCase {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []specCase
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		lines := strings.Split(strings.TrimSpace(paragraph), "\n")
		if len(lines) < 2 {
			t.Fatalf("%s: a case without a reason: %q", file, paragraph)
		}
		c := specCase{name: lines[0]}
		reason := false
		for _, line := range lines[1:] {
			switch {
			case strings.HasPrefix(line, "! "), strings.HasPrefix(line, "> "):
				c.steps = append(c.steps, line)
			case strings.HasPrefix(line, "< "), strings.HasPrefix(line, "= "):
				c.want = append(c.want, line)
			default:
				reason = true
			}
		}
		if !reason || len(c.steps) == 0 {
			t.Fatalf("%s: %q has no reason, or nothing happens in it", file, c.name)
		}
		all = append(all, c)
	}
	return all
}

var frameTypes = []string{"DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"}

var frameFlags = map[string]byte{"END_STREAM": 1, "ACK": 1, "END_HEADERS": 4, "PADDED": 8, "PRIORITY": 0x20}

var settingNames = map[string]uint16{"HEADER_TABLE_SIZE": 1, "ENABLE_PUSH": 2, "MAX_CONCURRENT_STREAMS": 3, "INITIAL_WINDOW_SIZE": 4,
	"MAX_FRAME_SIZE": 5, "MAX_HEADER_LIST_SIZE": 6, "ENABLE_CONNECT_PROTOCOL": 8, "UNKNOWN": 0xfafa}

// buildFrame makes the frame that a line says.
func buildFrame(t testing.TB, line string) []byte {
	t.Helper()
	words := strings.Fields(line)
	kind := byte(0)
	if n, err := strconv.ParseUint(words[0], 0, 8); err == nil {
		kind = byte(n)
	} else {
		for i, name := range frameTypes {
			if name == words[0] {
				kind = byte(i)
			}
		}
		if frameTypes[kind] != words[0] {
			t.Fatalf("%q: no such frame", line)
		}
	}
	stream, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	flags := byte(0)
	if kind == 1 || kind == 5 || kind == 9 {
		flags = frameFlags["END_HEADERS"]
	}
	var payload []byte
	pad, length := -1, -1
	for _, w := range words[2:] {
		name, value, pair := strings.Cut(w, "=")
		number, numberErr := strconv.ParseInt(value, 0, 64)
		switch {
		case w[0] == '+' && frameFlags[w[1:]] != 0:
			flags |= frameFlags[w[1:]]
		case w[0] == '-' && frameFlags[w[1:]] != 0:
			flags &^= frameFlags[w[1:]]
		case name == "pad":
			pad = int(number)
			flags |= frameFlags["PADDED"]
		case name == "length":
			length = int(number)
		case strings.HasPrefix(w, "hex:"):
			b, err := hex.DecodeString(w[4:])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			payload = append(payload, b...)
		case kind == 4:
			if settingNames[name] == 0 || numberErr != nil {
				t.Fatalf("%q: no such setting", line)
			}
			payload = binary.BigEndian.AppendUint16(payload, settingNames[name])
			payload = binary.BigEndian.AppendUint32(payload, uint32(number))
		case kind == 7 && name == "last":
			payload = binary.BigEndian.AppendUint32(payload, uint32(number))
		case kind == 3 || kind == 7:
			payload = binary.BigEndian.AppendUint32(payload, code(t, w))
		case kind == 8:
			n, err := strconv.ParseUint(w, 0, 32)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			payload = binary.BigEndian.AppendUint32(payload, uint32(n))
		case w == "request":
			payload = field(field(field(field(payload, ":method", "GET"), ":scheme", "http"), ":authority", "a"), ":path", "/")
		case w == "response":
			payload = field(payload, ":status", "200")
		case (kind == 1 || kind == 9 || kind == 5) && pair:
			if strings.HasPrefix(w, "=") || strings.HasPrefix(w, ":") {
				i := strings.Index(w[1:], "=")
				name, value = w[:i+1], w[i+2:]
			}
			payload = field(payload, unescape(name), repeated(value))
		default:
			payload = append(payload, repeated(w)...)
		}
	}
	if pad >= 0 {
		payload = append(append([]byte{byte(pad)}, payload...), make([]byte, pad)...)
	}
	if length < 0 {
		length = len(payload)
	}
	out := []byte{byte(length >> 16), byte(length >> 8), byte(length), kind, flags}
	return append(binary.BigEndian.AppendUint32(out, uint32(stream)), payload...)
}

// field appends a literal that is not indexed.
func field(b []byte, name, value string) []byte {
	b = append(b, 0)
	for _, s := range []string{name, value} {
		if len(s) < 127 {
			b = append(b, byte(len(s)))
		} else {
			b = append(b, 127)
			n := len(s) - 127
			for ; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
			b = append(b, byte(n))
		}
		b = append(b, s...)
	}
	return b
}

// repeated is the text that is meant: n times what stands behind N*, or the text itself.
func repeated(text string) string {
	count, what, many := strings.Cut(text, "*")
	if n, err := strconv.Atoi(count); many && err == nil {
		return strings.Repeat(unescape(what), n)
	}
	return unescape(text)
}

func unescape(s string) string {
	for i := strings.IndexByte(s, '%'); i >= 0 && i+2 < len(s)+0; {
		if b, err := hex.DecodeString(s[i+1 : i+3]); err == nil {
			s = s[:i] + string(b) + s[i+3:]
		}
		next := strings.IndexByte(s[i+1:], '%')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return s
}

func code(t testing.TB, name string) uint32 {
	t.Helper()
	for c := range h2.ErrCode(14) {
		if c.String() == name {
			return uint32(c)
		}
	}
	t.Fatalf("%q is no code", name)
	return 0
}

// specPeer is the other side of a connection.
type specPeer struct {
	nc     net.Conn
	framer *h2.Framer
	fields *hpack.Decoder
}

func newSpecPeer(nc net.Conn) *specPeer {
	p := &specPeer{nc: nc, framer: h2.NewFramer(nc, nc), fields: hpack.NewDecoder(4096, nil)}
	p.framer.AllowIllegalReads = true
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return p
}

// until reads until the answer to a PING, or the connection's end, and says what came
// before that but SETTINGS and windows of the connection.
func (p *specPeer) until(ping string) []string {
	_, _ = p.nc.Write(append([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0}, ping...))
	return p.listen(ping)
}

// listen is until, when the PING is sent by somebody else, or never.
func (p *specPeer) listen(ping string) []string {
	var got []string
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return got
		}
		h := f.Header()
		switch f := f.(type) {
		case *h2.SettingsFrame:
			continue
		case *h2.PingFrame:
			if string(f.Data[:]) == ping {
				return got
			}
			got = append(got, fmt.Sprintf("< PING %s%s", ack(f.IsAck()), f.Data[:]))
		case *h2.WindowUpdateFrame:
			if f.StreamID != 0 {
				got = append(got, fmt.Sprintf("< WINDOW_UPDATE %d %d", f.StreamID, f.Increment))
			}
		case *h2.GoAwayFrame:
			got = append(got, fmt.Sprintf("< GOAWAY last=%d %s", f.LastStreamID, f.ErrCode))
		case *h2.RSTStreamFrame:
			got = append(got, fmt.Sprintf("< RST_STREAM %d %s", f.StreamID, f.ErrCode))
		case *h2.HeadersFrame:
			got = append(got, fmt.Sprintf("< HEADERS %d%s%s", f.StreamID, ended(f.StreamEnded()), p.decode(f.HeaderBlockFragment())))
		case *h2.DataFrame:
			got = append(got, strings.TrimRight(fmt.Sprintf("< DATA %d%s %s", f.StreamID, ended(f.StreamEnded()), brief(f.Data())), " "))
		default:
			got = append(got, fmt.Sprintf("< %s %d", h.Type, h.StreamID))
		}
	}
}

func (p *specPeer) decode(block []byte) string {
	all, err := p.fields.DecodeFull(block)
	if err != nil {
		return " " + err.Error()
	}
	text := ""
	for _, f := range all {
		text += " " + f.Name + "=" + f.Value
	}
	return text
}

func ack(is bool) string {
	if is {
		return "ACK "
	}
	return ""
}

func ended(is bool) string {
	if is {
		return " END_STREAM"
	}
	return ""
}

func brief(p []byte) string {
	if len(p) > 20 {
		return fmt.Sprintf("%d*%c", len(p), p[0])
	}
	return string(p)
}

// specServer answers at once with 200: with the body if it came with the head. What asks
// for /hold gets no answer, and for /large one that is as long as its number says.
type specServer struct {
	mu   sync.Mutex
	held map[uint32]*http2.Stream
}

func (h *specServer) Request(s *http2.Stream, bad *wire.Error, b *http2.Batch) {
	var q, a wire.Head
	_ = s.ReadHead(&q)
	s.Hold(b)
	s.User = h
	a.Reset()
	a.Status = 200
	switch {
	case bad != nil && bad.Status == 400:
		s.Release()
		return
	case bad != nil:
		a.Status = bad.Status
	case string(q.Path) == "/hold":
		h.mu.Lock()
		h.held[s.ID()] = s
		h.mu.Unlock()
		return
	}
	_ = s.WriteHead(&a)
	if n, err := strconv.Atoi(strings.TrimPrefix(string(q.Path), "/large/")); err == nil {
		_ = s.WriteBody(bytes.Repeat([]byte("x"), n))
	}
	if body, whole := s.Whole(); whole && len(body) > 0 {
		_ = s.WriteBody(body)
	}
	_ = s.EndBody(s.Trailers())
	_ = s.Flush()
	s.Release()
}

func (h *specServer) Cancelled(_ any, id uint32) {
	h.mu.Lock()
	s := h.held[id]
	delete(h.held, id)
	h.mu.Unlock()
	if s != nil {
		s.Release()
	}
}

func (h *specServer) Changed() {}

func eachSpec(t *testing.T, pattern string, run func(t *testing.T, c specCase) []string) {
	files, err := filepath.Glob(filepath.Join("testdata", "spec", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		for _, c := range readSpec(t, file) {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+c.name, func(t *testing.T) {
				got := run(t, c)
				if g, w := strings.Join(got, "\n"), strings.Join(c.want, "\n"); g != w {
					t.Errorf("got\n%s\nwant\n%s", g, w)
				}
			})
		}
	}
}

func TestServerDoesWithFramesAsItsSpecificationSays(t *testing.T) {
	eachSpec(t, "server-*.txt", func(t *testing.T, c specCase) []string {
		h := &specServer{held: map[uint32]*http2.Stream{}}
		addr := serve(t, h, http2.Config{MaxStreams: 4, HeadBytes: 4000, Fields: 20})
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		p := newSpecPeer(nc)
		var out []byte
		var got []string
		if c.steps[0] != "> raw" {
			out = append([]byte(h2.ClientPreface), buildFrame(t, "SETTINGS 0")...)
			out = append(out, buildFrame(t, "SETTINGS 0 +ACK")...)
		} else {
			c.steps = c.steps[1:]
		}
		for _, step := range c.steps {
			switch step {
			case "> preface":
				out = append(out, h2.ClientPreface...)
			case "> pause":
				_, _ = nc.Write(out)
				out = nil
				got = append(got, p.until("pause...")...)
			default:
				out = append(out, buildFrame(t, step[2:])...)
			}
		}
		_, _ = nc.Write(out)
		return append(got, p.until("spec end")...)
	})
}

// specClient is the handler of a client half.
type specClient struct{}

func (specClient) Request(s *http2.Stream, _ *wire.Error, _ *http2.Batch) { s.Release() }
func (specClient) Cancelled(any, uint32)                                  {}
func (specClient) Changed()                                               {}

// connected returns a client half, and the other end of its connection. The client is cut
// off when the test ends.
func connected(t testing.TB, config http2.Config) (*http2.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	config.Clock = clock()
	c := http2.NewConn(near, http2.Client, nil, specClient{}, config)
	var serving sync.WaitGroup
	serving.Go(func() { _ = c.Serve() })
	t.Cleanup(func() {
		c.Cut()
		_ = far.Close()
		serving.Wait()
	})
	return c, far
}

func TestClientDoesWithFramesAsItsSpecificationSays(t *testing.T) {
	eachSpec(t, "client-*.txt", func(t *testing.T, c specCase) []string {
		conn, far := connected(t, http2.Config{HeadBytes: 4000, Fields: 20})
		if _, err := io.ReadFull(far, make([]byte, len(h2.ClientPreface))); err != nil {
			t.Fatal(err)
		}
		p := newSpecPeer(far)
		if len(c.steps) > 0 && c.steps[0] == "> raw" {
			c.steps = c.steps[1:]
		} else {
			_, _ = far.Write(append(buildFrame(t, "SETTINGS 0"), buildFrame(t, "SETTINGS 0 +ACK")...))
			p.until("greeting")
		}
		var streams []*http2.Stream
		var got []string
		var out []byte
		for _, step := range c.steps {
			if method, path, is := strings.Cut(strings.TrimPrefix(step, "! "), " "); is && step[0] == '!' {
				_, _ = far.Write(out)
				out = nil
				s, err := conn.Open()
				if err != nil {
					return append(append(got, p.until("spec end")...), "= "+err.Error())
				}
				streams = append(streams, s)
				ask(t, s, method, path)
				for _, f := range p.until("request ") {
					if !strings.HasPrefix(f, "< HEADERS") { // which is the request
						got = append(got, f)
					}
				}
				continue
			}
			if step == "> pause" {
				_, _ = far.Write(out)
				out = nil
				got = append(got, p.until("pause...")...)
				continue
			}
			out = append(out, buildFrame(t, step[2:])...)
		}
		_, _ = far.Write(out)
		got = append(got, p.until("spec end")...)
		for i, s := range streams {
			got = append(got, fmt.Sprintf("= %d%s", 2*i+1, outcome(s)))
			s.Release()
		}
		return got
	})
}

// ask sends a request, all of it unless it is a POST.
func ask(t testing.TB, s *http2.Stream, method, path string) {
	t.Helper()
	var q wire.Head
	q.Reset()
	q.Method, q.Path, q.Authority = []byte(method), []byte(path), []byte("a")
	if err := s.WriteHead(&q); err != nil {
		t.Fatal(err)
	}
	if method != "POST" {
		if err := s.EndBody(nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// outcome says what has come for a stream.
func outcome(s *http2.Stream) string {
	text := ""
	for {
		if !s.Ready() {
			return text + " waits"
		}
		var a wire.Head
		a.Reset()
		if err := s.ReadHead(&a); err != nil {
			return text + " " + describe(err)
		}
		text += fmt.Sprintf(" %d", a.Status)
		for _, f := range a.Fields {
			text += fmt.Sprintf(" %s=%s", f.Name, f.Value)
		}
		if a.ContentLength >= 0 {
			text += fmt.Sprintf(" length=%d", a.ContentLength)
		}
		if a.Status >= 200 {
			break
		}
	}
	var body []byte
	for s.Ready() {
		p, err := s.Next()
		body = append(body, p...)
		if errors.Is(err, io.EOF) {
			text += " " + strings.TrimSpace(brief(body)+" end")
			for _, f := range s.Trailers() {
				text += fmt.Sprintf(" %s=%s", f.Name, f.Value)
			}
			return text
		}
		if err != nil {
			return text + " " + strings.TrimSpace(brief(body)+" "+describe(err))
		}
	}
	return text + " " + strings.TrimSpace(brief(body)+" waits")
}

func describe(err error) string {
	var reset *http2.ResetError
	var bad *wire.Error
	switch {
	case errors.Is(err, http2.ErrRefused):
		return "refused"
	case errors.Is(err, http2.ErrClosed):
		return "closed"
	case errors.As(err, &reset):
		return reset.Code.String()
	case errors.As(err, &bad):
		return "malformed: " + bad.Text
	}
	return err.Error()
}
