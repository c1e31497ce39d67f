package grpcweb

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestBase64IsDecodedInAnyPieces(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "AAEC": "\x00\x01\x02", "AA==": "\x00", "AAE=": "\x00\x01", "AA==AAE=AAEC": "\x00\x00\x01\x00\x01\x02", "+/+/": "\xfb\xff\xbf", "eHl6MDkh": "xyz09!",
	} {
		for size := 1; size <= max(1, len(text)); size++ {
			var d decoder
			var got []byte
			for rest := []byte(text); len(rest) > 0; {
				n := min(size, len(rest))
				var err error
				if got, err = d.append(got, rest[:n]); err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				rest = rest[n:]
			}
			if err := d.end(); err != nil || string(got) != want {
				t.Errorf("%q in pieces of %d is %q, %v", text, size, got, err)
			}
		}
	}
}

func TestWhatIsNoBase64IsRefused(t *testing.T) {
	for text, want := range map[string]error{
		"A": errCut, "AA": errCut, "AAA": errCut, "AAEC A": errBase64, "AA=": errCut, "AA=A": errBase64, "=": errBase64, "A===": errBase64, "AA==\n": errBase64,
		"AA-_": errBase64, "AAEC=": errBase64, "\xff": errBase64,
	} {
		var d decoder
		_, err := d.append(nil, []byte(text))
		if err == nil {
			err = d.end()
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func FuzzBase64(f *testing.F) {
	f.Add([]byte("AA==AAEC"), 3)
	f.Add([]byte("eHl6"), 1)
	f.Add([]byte("A=AA\n"), 2)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		size = max(1, size%16)
		decode := func(size int) (got []byte, err error) {
			var d decoder
			for rest := text; len(rest) > 0 && err == nil; {
				n := min(size, len(rest))
				got, err = d.append(got, rest[:n])
				rest = rest[n:]
			}
			if err == nil {
				err = d.end()
			}
			return got, err
		}
		whole, err := decode(len(text) + 1)
		pieces, err2 := decode(size)
		if !errors.Is(err2, err) || err == nil && !bytes.Equal(whole, pieces) {
			t.Fatalf("%q: %q, %v; in pieces of %d: %q, %v", text, whole, err, size, pieces, err2)
		}
		if want, err3 := base64.StdEncoding.DecodeString(string(text)); err3 == nil && !bytes.ContainsAny(text, "\r\n") && (err != nil || !bytes.Equal(want, whole)) {
			t.Fatalf("%q is %q, not %q, %v", text, want, whole, err)
		}
		// And back, with padding wherever a piece ends.
		var e encoder
		var encoded []byte
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			encoded = e.append(encoded, rest[:n])
			if n%2 == 0 {
				encoded = e.pad(encoded)
			}
			rest = rest[n:]
		}
		encoded = e.pad(encoded)
		var d decoder
		if back, err := d.append(nil, encoded); err != nil || d.end() != nil || !bytes.Equal(back, text) {
			t.Fatalf("%q became %q, which is %q, %v", text, encoded, back, err)
		}
	})
}

// peer is a client's side: what comes from it, in pieces, and what went to it.
type peer struct {
	pieces []string
	err    error // at their end
	head   wire.Head
	body   []byte
	ends   int
	trails []wire.Field
	late   int // bytes that came behind the last flush
}

func (p *peer) Whole() ([]byte, bool) {
	if len(p.pieces) > 1 || p.err != nil {
		return nil, false
	}
	b, err := p.Next()
	return b, err == nil || errors.Is(err, io.EOF)
}

func (p *peer) Next() ([]byte, error) {
	if len(p.pieces) == 0 {
		if p.err != nil {
			return nil, p.err
		}
		return nil, io.EOF
	}
	b := []byte(p.pieces[0])
	p.pieces = p.pieces[1:]
	return b, nil
}

func (p *peer) Ready() bool                  { return true }
func (p *peer) Trailers() []wire.Field       { return nil }
func (p *peer) WriteHead(h *wire.Head) error { p.head = *h; return nil }
func (p *peer) WriteBody(b []byte) error {
	p.body = append(p.body, b...)
	p.late += len(b)
	return nil
}
func (p *peer) EndBody(trailers []wire.Field) error { p.ends++; p.trails = trailers; return nil }
func (p *peer) Flush() error                        { p.late = 0; return nil }

func head(fields ...string) *wire.Head {
	h := &wire.Head{}
	h.Reset()
	for i := 0; i < len(fields); i += 2 {
		h.Add(wire.Lookup([]byte(fields[i])), fields[i], []byte(fields[i+1]))
	}
	return h
}

func TestRequestBecomesOneOfGRPC(t *testing.T) {
	for _, c := range []struct {
		kind   string
		length int64
		pieces []string
		err    error
		want   string
		fault  error
	}{
		{"application/grpc-web+proto", 5, []string{"\x00abc="}, nil, "\x00abc=", nil},
		{"application/grpc-web-text+proto", 8, []string{"AAEC", "AA=="}, nil, "\x00\x01\x02\x00", nil},
		{"application/grpc-web-text+proto", 8, []string{"A", "A", "ECAA=", "="}, nil, "\x00\x01\x02\x00", nil},
		{"application/grpc-web-text+proto", 4, []string{"AAEC"}, nil, "\x00\x01\x02", nil},
		{"application/grpc-web-text+proto", 0, nil, nil, "", nil},
		{"application/grpc-web-text+proto", 4, []string{"AAE"}, nil, "", errCut},
		{"application/grpc-web-text+proto", 4, []string{"AAEC", "?"}, nil, "\x00\x01\x02", errBase64},
		{"application/grpc-web-text+proto", wire.NoLength, []string{"AAEC"}, io.ErrUnexpectedEOF, "\x00\x01\x02", io.ErrUnexpectedEOF},
	} {
		client := &peer{pieces: c.pieces, err: c.err}
		h := head("Content-Type", c.kind)
		h.ContentLength, h.Streamed = c.length, c.length < 0
		var s Side
		s.Begin(h, client, client)
		if string(h.Get(wire.ContentType)) != "application/grpc+proto" || string(h.Get(wire.TE)) != "trailers" {
			t.Errorf("%s became %s, te %q", c.kind, h.Get(wire.ContentType), h.Get(wire.TE))
		}
		if text := strings.Contains(c.kind, "text"); text && c.length > 0 != h.Streamed && c.length >= 0 || text && h.ContentLength > 0 {
			t.Errorf("%s of %d bytes has %d, streamed: %t", c.kind, c.length, h.ContentLength, h.Streamed)
		}
		got, whole := s.Whole()
		got = append([]byte(nil), got...)
		for !whole {
			if !s.Ready() && s.fault != nil {
				t.Error("a fault is not ready")
			}
			p, err := s.Next()
			if err != nil {
				if !errors.Is(err, c.fault) && !(c.fault == nil && errors.Is(err, io.EOF)) {
					t.Errorf("%q: %v, want %v", c.pieces, err, c.fault)
				}
				break
			}
			got = append(got, p...)
		}
		if c.fault == nil && string(got) != c.want {
			t.Errorf("%q is %q", c.pieces, got)
		}
		if source, sink := s.End(); source != client || sink != client {
			t.Error("the client is another at the end")
		}
	}
}

func TestResponseBecomesOneOfGRPCWeb(t *testing.T) {
	const message = "\x00\x00\x00\x00\x02hi"
	trailers := head("Grpc-Status", "5", "grpc-message", "not%20here", "x-bin", "AAEC").Fields
	const frame = "\x80\x00\x00\x00\x37grpc-status: 5\r\ngrpc-message: not%20here\r\nx-bin: AAEC\r\n"
	for _, c := range []struct {
		request, accept, response string
		want                      string
	}{
		{"application/grpc-web", "", "application/grpc", "application/grpc-web"},
		{"application/grpc-web+proto", "*/*", "application/grpc+proto", "application/grpc-web+proto"},
		{"application/grpc-web-text", "", "application/grpc", "application/grpc-web-text"},
		{"application/grpc-web-text", "application/grpc-web", "application/grpc", "application/grpc-web"},
		{"application/grpc-web", "text/html, application/grpc-web-text+proto;q=1", "application/grpc+json", "application/grpc-web-text+json"},
		{"application/grpc-web", "application/grpc-web-text, application/grpc-web", "application/grpc", "application/grpc-web"},
	} {
		client := &peer{}
		q := head("Content-Type", c.request)
		if c.accept != "" {
			q.Add(wire.Accept, "Accept", []byte(c.accept))
		}
		var s Side
		s.Begin(q, client, client)
		interim := head()
		interim.Status = 103
		if err := s.WriteHead(interim); err != nil || client.head.Status != 103 {
			t.Fatal(err)
		}
		h := head("Content-Type", c.response, "Trailer", "Grpc-Status")
		h.Status, h.Streamed = 200, true
		if err := s.WriteHead(h); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{message[:1], message[1:]} {
			if err := s.WriteBody([]byte(p)); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil || client.late > 0 || s.encode.n > 0 {
				t.Errorf("something waits behind a flush: %d, %d, %v", client.late, s.encode.n, err)
			}
		}
		if err := s.EndBody(trailers); err != nil || client.ends != 1 || len(client.trails) > 0 {
			t.Errorf("%d ends, trailers %v, %v", client.ends, client.trails, err)
		}
		got := client.body
		if strings.Contains(c.want, "text") {
			var d decoder
			var err error
			if got, err = d.append(nil, got); err != nil || d.end() != nil {
				t.Errorf("%q is not base64: %v", client.body, err)
			}
		}
		if string(got) != message+frame || string(client.head.Get(wire.ContentType)) != c.want || client.head.Get(wire.Trailer) != nil {
			t.Errorf("%+v: %s, %q", c, client.head.Get(wire.ContentType), got)
		}
		s.End()
	}
}

func TestResponseThatIsOnlyAStatusOrNoneOfGRPCGoesAsItIs(t *testing.T) {
	for kind, want := range map[string]string{"application/grpc+proto": "application/grpc-web-text+proto", "text/html": "text/html"} {
		client := &peer{}
		var s Side
		s.Begin(head("Content-Type", "application/grpc-web-text"), client, client)
		h := head("Content-Type", kind, "grpc-status", "12")
		h.Status, h.ContentLength = 200, 0
		if kind == "text/html" {
			h.Status, h.ContentLength = 502, 4
		}
		length := h.ContentLength
		if err := errors.Join(s.WriteHead(h), s.WriteBody([]byte("body")[:length]), s.EndBody(head("a", "b").Fields), s.Flush()); err != nil {
			t.Fatal(err)
		}
		if string(client.head.Get(wire.ContentType)) != want || client.head.ContentLength != length || int64(len(client.body)) != length || len(client.trails) != 1 {
			t.Errorf("%s: %s, length %d, %q, %v", kind, client.head.Get(wire.ContentType), client.head.ContentLength, client.body, client.trails)
		}
	}
}

func TestCallAllocatesNothing(t *testing.T) {
	client := &silent{[]byte("AAEC")}
	q, a := head("Content-Type", "application/grpc-web-text"), head("Content-Type", "application/grpc")
	trailers := head("grpc-status", "0").Fields
	var s Side
	message := bytes.Repeat([]byte("x"), 1000)
	if allocs := testing.AllocsPerRun(100, func() {
		q.Reset()
		q.Add(wire.ContentType, "content-type", []byte("application/grpc-web-text"))
		a.Reset()
		a.Add(wire.ContentType, "content-type", []byte("application/grpc"))
		a.Status, a.Streamed = 200, true
		s.Begin(q, client, client)
		if p, ok := s.Whole(); !ok || len(p) != 3 {
			t.Fatal("not whole")
		}
		_ = s.WriteHead(a)
		_ = s.WriteBody(message)
		_ = s.EndBody(trailers)
		s.End()
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// silent is a client that takes everything, and sends AAEC.
type silent struct{ body []byte }

func (s *silent) Whole() ([]byte, bool)    { return s.body, true }
func (*silent) Next() ([]byte, error)      { return nil, io.EOF }
func (*silent) Ready() bool                { return true }
func (*silent) Trailers() []wire.Field     { return nil }
func (*silent) WriteHead(*wire.Head) error { return nil }
func (*silent) WriteBody([]byte) error     { return nil }
func (*silent) EndBody([]wire.Field) error { return nil }
func (*silent) Flush() error               { return nil }
