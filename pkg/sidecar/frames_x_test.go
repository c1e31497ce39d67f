package sidecar_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	frames "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// h2Peer is one end of a connection that speaks HTTP/2, frame by frame.
type h2Peer struct {
	*frames.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

func newPeer(nc net.Conn) *h2Peer {
	p := &h2Peer{Framer: frames.NewFramer(nc, nc)}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

// h2Client begins a connection to a server.
func h2Client(nc net.Conn) *h2Peer {
	_, _ = io.WriteString(nc, frames.ClientPreface)
	p := newPeer(nc)
	_ = p.WriteSettings()
	return p
}

// h2Host takes a connection of a client, and has said nothing yet.
func h2Host(nc net.Conn) *h2Peer {
	preface := make([]byte, len(frames.ClientPreface))
	_, _ = io.ReadFull(nc, preface)
	return newPeer(nc)
}

// head writes a head of names and values.
func (p *h2Peer) head(stream uint32, end bool, fields ...string) {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = p.WriteHeaders(frames.HeadersFrameParam{StreamID: stream, BlockFragment: p.block.Bytes(), EndStream: end, EndHeaders: true})
}

// next reads up to a frame that says something: SETTINGS and PING are answered, and windows
// given back.
func (p *h2Peer) next() (frames.Frame, error) {
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := frame.(type) {
		case *frames.SettingsFrame:
			if !f.IsAck() {
				_ = p.WriteSettingsAck()
			}
		case *frames.PingFrame:
			if !f.IsAck() {
				_ = p.WritePing(true, f.Data)
			}
		case *frames.WindowUpdateFrame:
		case *frames.DataFrame:
			if n := uint32(len(f.Data())); n > 0 {
				_ = p.WriteWindowUpdate(0, n)
				_ = p.WriteWindowUpdate(f.StreamID, n)
			}
			return f, nil
		default:
			return frame, nil
		}
	}
}

// listen is next of an end that answers nothing.
func (p *h2Peer) listen() (frames.Frame, error) {
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch frame.(type) {
		case *frames.SettingsFrame, *frames.PingFrame, *frames.WindowUpdateFrame:
		default:
			return frame, nil
		}
	}
}

// request reads up to the head of the next request.
func (p *h2Peer) request() (*frames.MetaHeadersFrame, error) {
	for {
		frame, err := p.next()
		if err != nil {
			return nil, err
		}
		if h, ok := frame.(*frames.MetaHeadersFrame); ok {
			return h, nil
		}
	}
}

// tunnel is one end of one: what is read ends with io.EOF where the other end has ended its
// way, and with another error where it broke.
type tunnel interface {
	io.ReadWriter
	CloseWrite() error
}

// stream is a tunnel on HTTP/2. What is written must fit into the windows of the beginning.
type stream struct {
	*h2Peer
	id   uint32
	left []byte
	last []uint32 // the last stream of each GOAWAY
	more []uint32 // streams, other than this, that were answered
	end  error
}

// advance reads one frame.
func (s *stream) advance() {
	frame, err := s.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the end of the connection is none of a stream
	}
	if err != nil {
		s.end = err
		return
	}
	if id := frame.Header().StreamID; id != 0 && id != s.id {
		s.more = append(s.more, id)
		return
	}
	switch f := frame.(type) {
	case *frames.DataFrame:
		s.left = append(s.left, f.Data()...)
		if f.StreamEnded() {
			s.end = io.EOF
		}
	case *frames.RSTStreamFrame:
		s.end = errors.New(f.ErrCode.String())
	case *frames.GoAwayFrame:
		s.last = append(s.last, f.LastStreamID)
	}
}

func (s *stream) Read(p []byte) (int, error) {
	for len(s.left) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		s.advance()
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

func (s *stream) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		size := min(len(p)-n, 16<<10)
		err = s.WriteData(s.id, false, p[n:n+size])
		n += size
	}
	return n, err
}

func (s *stream) CloseWrite() error { return s.WriteData(s.id, true, nil) }

// wantBytes reads so many bytes of a tunnel, all of one letter.
func wantBytes(t *testing.T, from io.Reader, letter string, n int) {
	t.Helper()
	got := make([]byte, n)
	if read, err := io.ReadFull(from, got); err != nil || string(got) != strings.Repeat(letter, n) {
		t.Fatalf("%d bytes came of %d times %q, and %v", read, n, letter, err)
	}
}

// wantText reads a tunnel to its end.
func wantText(t *testing.T, from io.Reader, text string) {
	t.Helper()
	if got, err := io.ReadAll(from); string(got) != text || err != nil {
		t.Errorf("%q, %v, want %q", got, err, text)
	}
}

// webListener is a listener "web" with these routes.
func webListener(routes ...string) string {
	return relayListener("web", "", filterChain("", `{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: web, `+
		`route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [`+strings.Join(routes, ", ")+`]}]}, `+
		`http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}`, ""))
}

// webRoute leads what begins with a path to a cluster, for so long.
func webRoute(prefix, cluster, timeout string) string {
	return fmt.Sprintf(`{match: {prefix: %q}, route: {cluster: %s, timeout: %s}}`, prefix, cluster, timeout)
}

// webCluster is a cluster of one host that speaks HTTP/1.1, or HTTP/2.
func webCluster(name string, at net.Addr, http2 bool, connectTimeout string) string {
	text := relayCluster(name, at, "")
	if http2 {
		text = strings.Replace(text, "\n    connect_timeout: 1s", clusterOverHTTP2, 1)
	}
	return strings.Replace(text, "connect_timeout: 1s", "connect_timeout: "+connectTimeout, 1)
}

// running is a sidecar that serves a file.
type running struct {
	web, admin net.Addr
	cancel     func()
	ended      <-chan error
}

// serve serves a file until the test ends.
func serve(t *testing.T, config sidecar.Config, listener string, clusters ...string) running {
	t.Helper()
	config.Bootstrap = write(t, document([]string{listener}, clusters...))
	addresses, cancel, ended := start(t, config)
	once := make(chan error, 1)
	go func() { once <- <-ended; close(once) }()
	t.Cleanup(func() {
		cancel()
		if err := <-once; err != nil {
			t.Error(err)
		}
	})
	return running{addresses.Listeners["web"], addresses.Admin, cancel, once}
}

// series returns the sum of the samples of a family.
func (r running) series(t *testing.T, family string) (sum float64) {
	t.Helper()
	_, text := get(t, "http://"+r.admin.String()+"/metrics")
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, family+"{") && !strings.HasPrefix(line, family+" ") {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sum += value
	}
	return sum
}

// eventually waits for something to be so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come about that %s", what)
		}
	}
}
