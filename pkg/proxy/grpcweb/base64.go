package grpcweb

import (
	"encoding/base64"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

var (
	errBase64 = &wire.Error{Status: 400, Text: "the body of application/grpc-web-text is not base64"}
	errCut    = &wire.Error{Status: 400, Text: "the body of application/grpc-web-text ends within four characters of base64"}
)

// decoder decodes base64 that comes in pieces (RFC 4648 §4). Padding may be anywhere between groups
// of four. PROTOCOL-WEB.md: "the client library should not assume base64 padding always happens
// at the boundary of message frames", and neither does this. The zero value is ready.
type decoder struct {
	group  uint32 // of the characters that came
	n      int    // how many
	padded int    // of them '='
}

// append decodes a piece, and appends at most 3 bytes for each 4 of it and of what is kept.
func (d *decoder) append(dst, p []byte) ([]byte, error) {
	for _, c := range p {
		v, ok := sextet(c)
		switch {
		case c == '=' && d.n >= 2:
			d.padded++
		case !ok || d.padded > 0:
			return dst, errBase64
		}
		d.group = d.group<<6 | v
		if d.n++; d.n < 4 {
			continue
		}
		b := [3]byte{byte(d.group >> 16), byte(d.group >> 8), byte(d.group)}
		dst = append(dst, b[:3-d.padded]...)
		*d = decoder{}
	}
	return dst, nil
}

// end reports whether the text ends where it may.
func (d *decoder) end() error {
	if d.n > 0 {
		return errCut
	}
	return nil
}

func sextet(c byte) (uint32, bool) {
	switch {
	case 'A' <= c && c <= 'Z':
		return uint32(c - 'A'), true
	case 'a' <= c && c <= 'z':
		return uint32(c-'a') + 26, true
	case '0' <= c && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

// encoder encodes base64 in pieces. The zero value is ready.
type encoder struct {
	rest [3]byte
	n    int // bytes of rest
}

// append encodes a piece but for the last one or two bytes, which it keeps.
func (e *encoder) append(dst, p []byte) []byte {
	for e.n > 0 && len(p) > 0 {
		e.rest[e.n] = p[0]
		p = p[1:]
		if e.n++; e.n == len(e.rest) {
			dst = base64.StdEncoding.AppendEncode(dst, e.rest[:])
			e.n = 0
		}
	}
	whole := len(p) - len(p)%3
	dst = base64.StdEncoding.AppendEncode(dst, p[:whole])
	e.n += copy(e.rest[e.n:], p[whole:])
	return dst
}

// pad encodes what is kept, with padding.
func (e *encoder) pad(dst []byte) []byte {
	dst = base64.StdEncoding.AppendEncode(dst, e.rest[:e.n])
	e.n = 0
	return dst
}
