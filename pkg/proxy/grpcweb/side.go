package grpcweb

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Source is where a client's body comes from, as the engine and its codecs have it.
type Source interface {
	Whole() (p []byte, ok bool)
	Next() ([]byte, error)
	Ready() bool
	Trailers() []wire.Field
}

// Sink is where the response goes, likewise.
type Sink interface {
	WriteHead(h *wire.Head) error
	WriteBody(p []byte) error
	EndBody(trailers []wire.Field) error
	Flush() error
}

// Side is the client's side of one call, as a server of gRPC wants to see it: the source
// of the request's body and the sink of the response. One goroutine may read the one while
// another writes the other. It may be used again after End.
type Side struct {
	source Source
	sink   Sink

	// The request.
	fromText bool
	decoder  decoder
	in       []byte // decoded
	fault    error  // that the base64 has

	// The response.
	kind   rpc.Kind // of what the client is to get
	answer bool     // it is gRPC, with a body
	encode encoder
	out    []byte // what is written next
}

// Begin turns the head of a request of gRPC-Web's into one of gRPC's, and what comes from
// source and goes to sink as well.
func (s *Side) Begin(h *wire.Head, source Source, sink Sink) {
	request := rpc.KindOfType(h.Get(wire.ContentType))
	*s = Side{source: source, sink: sink, fromText: request == rpc.WebText, kind: wanted(h, request)}
	var name [128]byte
	h.Set(wire.ContentType, "content-type", rpc.AppendType(name[:0], rpc.GRPC, h.Get(wire.ContentType)))
	// PROTOCOL-HTTP2.md: "TE → "te" "trailers" # Used to detect incompatible proxies".
	h.Set(wire.TE, "te", append(name[:0], "trailers"...))
	if s.fromText && h.ContentLength > 0 {
		h.ContentLength, h.Streamed = wire.NoLength, true
	}
}

// wanted returns what the response is to be: what the client accepts, or else what it sends.
func wanted(h *wire.Head, request rpc.Kind) rpc.Kind {
	kind := rpc.None
	for i := range h.Fields {
		if h.Fields[i].ID != wire.Accept {
			continue
		}
		for list := h.Fields[i].Value; len(list) > 0; {
			var element []byte
			element, list = wire.NextElement(list)
			if k := rpc.KindOfType(element); k.IsWeb() && (kind == rpc.None || k == request) {
				kind = k
			}
		}
	}
	if kind == rpc.None {
		return request
	}
	return kind
}

// End returns the client's own source and sink, and forgets both.
func (s *Side) End() (Source, Sink) {
	source, sink := s.source, s.sink
	sockio.Put(s.in[:0])
	sockio.Put(s.out[:0])
	*s = Side{}
	return source, sink
}

// Whole returns the whole body if all of it is here and in order. It is valid until End.
func (s *Side) Whole() ([]byte, bool) {
	p, ok := s.source.Whole()
	if !ok || !s.fromText {
		return p, ok
	}
	s.decode(p)
	if s.fault == nil {
		s.fault = s.decoder.end()
	}
	return s.in, s.fault == nil // else Next says what is wrong
}

// decode decodes the next piece into in.
func (s *Side) decode(p []byte) {
	s.in = sockio.Reserve(s.in[:0], len(p)+3) // 3 characters may be kept already
	s.in, s.fault = s.decoder.append(s.in, p)
}

// Next returns the next bytes, valid until the next call, or io.EOF. Base64 that is none is a
// *wire.Error.
func (s *Side) Next() ([]byte, error) {
	if !s.fromText {
		return s.source.Next()
	}
	for s.fault == nil {
		p, err := s.source.Next()
		switch {
		case errors.Is(err, io.EOF) && s.decoder.end() != nil:
			s.fault = s.decoder.end()
		case err != nil:
			return nil, err
		default:
			if s.decode(p); s.fault == nil && len(s.in) > 0 {
				return s.in, nil
			}
		}
	}
	return nil, s.fault
}

// Ready reports whether Next would return at once. Of text, what has come may be too little
// for a byte: it is said to be none.
func (s *Side) Ready() bool { return s.fault != nil || !s.fromText && s.source.Ready() }

// Trailers are those of the request.
func (s *Side) Trailers() []wire.Field { return s.source.Trailers() }

// WriteHead writes a head, of a response of gRPC's as gRPC-Web's. One that is none, as of
// a web server that knows nothing of it, goes as it is, with its body. So does one
// that is the status already ("Trailers-Only"), and one whose HTTP status has no body.
func (s *Side) WriteHead(h *wire.Head) error {
	if h.Status >= 200 && rpc.KindOfType(h.Get(wire.ContentType)) == rpc.GRPC {
		var name [128]byte
		h.Set(wire.ContentType, "content-type", rpc.AppendType(name[:0], s.kind, h.Get(wire.ContentType)))
		h.Del(wire.Trailer) // there are none behind the body
		if (h.Streamed || h.ContentLength != 0) && h.Status != 204 && h.Status != 304 {
			s.answer = true
			h.ContentLength, h.Streamed = wire.NoLength, true
		}
	}
	return s.sink.WriteHead(h)
}

// WriteBody writes bytes of messages.
func (s *Side) WriteBody(p []byte) error {
	if !s.answer || s.kind != rpc.WebText {
		return s.sink.WriteBody(p)
	}
	s.out = sockio.Reserve(s.out[:0], encodedLen(len(p)))
	s.out = s.encode.append(s.out, p)
	return s.sink.WriteBody(s.out)
}

// encodedLen is enough for n bytes, and those that are kept, in base64.
func encodedLen(n int) int { return (n+2)/3*4 + 4 }

// pad writes what the encoder has kept, padded.
func (s *Side) pad() error {
	if s.encode.n == 0 {
		return nil
	}
	s.out = s.encode.pad(sockio.Reserve(s.out[:0], 4))
	return s.sink.WriteBody(s.out)
}

// Flush lets all go out that was written. Text is padded, so that nothing of it waits.
func (s *Side) Flush() error {
	if err := s.pad(); err != nil {
		return err
	}
	return s.sink.Flush()
}

// EndBody writes the trailers as the last frame of the body.
func (s *Side) EndBody(trailers []wire.Field) error {
	if !s.answer {
		return s.sink.EndBody(trailers)
	}
	frame := appendTrailers(sockio.Get(sockio.Small)[:0], trailers)
	err := s.WriteBody(frame)
	sockio.Put(frame[:0])
	if err != nil {
		return err
	}
	if err := s.pad(); err != nil {
		return err
	}
	return s.sink.EndBody(nil)
}

// AppendEnd appends the end of a response of a kind: its trailers, as [Side.EndBody] writes
// them.
func AppendEnd(dst []byte, kind rpc.Kind, trailers []wire.Field) []byte {
	frame := appendTrailers(sockio.Get(sockio.Small)[:0], trailers)
	if kind == rpc.WebText {
		dst = base64.StdEncoding.AppendEncode(dst, frame)
	} else {
		dst = append(dst, frame...)
	}
	sockio.Put(frame[:0])
	return dst
}

// trailerFrame is the first byte of a frame that has trailers. PROTOCOL-WEB.md: "10000000b: an
// uncompressed trailer (as part of the body)".
const trailerFrame = 0x80

// appendTrailers appends a frame of trailers, as PROTOCOL-WEB.md has it: "Key-value pairs encoded as
// a HTTP/1 headers block (without the terminating newline)"; "use lower-case header/trailer
// names". dst is a buffer of sockio's.
func appendTrailers(dst []byte, trailers []wire.Field) []byte {
	size := 5
	for i := range trailers {
		size += len(trailers[i].Name) + len(trailers[i].Value) + 4
	}
	dst = sockio.Reserve(dst, size)
	at := len(dst)
	dst = append(dst, trailerFrame, 0, 0, 0, 0)
	for i := range trailers {
		for _, c := range trailers[i].Name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
		dst = append(append(append(dst, ": "...), trailers[i].Value...), "\r\n"...)
	}
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-5)) //nolint:gosec // trailers are bounded by the limits of heads
	return dst
}
