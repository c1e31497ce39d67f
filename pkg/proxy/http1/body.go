package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// bodyKind is how the end of a body is found (RFC 9112 §6.3).
type bodyKind uint8

const (
	bodyNone    bodyKind = iota // there is none, or it has been read to its end
	bodyLength                  // after left more bytes
	bodyChunk                   // chunked, inside a chunk: left more bytes of it
	bodySize                    // chunked, before a chunk's size
	bodyChunkLF                 // chunked, before the CRLF behind a chunk's data
	bodyTrailer                 // chunked, before the trailers
	bodyClose                   // when the connection ends
)

// body is where the reading of a body is.
type body struct {
	kind bodyKind
	left int64
}

func (b *body) begin(chunked bool, length int64, toClose bool) {
	switch {
	case chunked:
		*b = body{kind: bodySize}
	case toClose:
		*b = body{kind: bodyClose}
	case length > 0:
		*b = body{kind: bodyLength, left: length}
	default:
		*b = body{}
	}
}

// Next returns the next bytes of the body, at least one, valid until the next
// call; io.EOF at its end, io.ErrUnexpectedEOF if the peer broke it off. After a
// time-out it may be called again; after any other error it says the same again.
func (c *Conn) Next() ([]byte, error) {
	for {
		switch {
		case c.body.kind == bodyNone:
			return nil, io.EOF
		case c.fault != nil:
			// Whatever comes behind a fault, nobody knows what it is.
			return nil, c.fault
		case c.body.kind == bodyLength || c.body.kind == bodyChunk:
			return c.nextOf(&c.body)
		case c.body.kind == bodyClose:
			return c.nextToClose()
		}
		if err := c.step(); err != nil {
			return nil, err
		}
	}
}

// nextOf returns bytes of a body or chunk of known length.
func (c *Conn) nextOf(b *body) ([]byte, error) {
	if c.r == c.w {
		c.roomFor(b.left)
		if err := c.fill(errChunk); err != nil {
			return nil, c.cutOff(err)
		}
	}
	n := int(min(int64(c.w-c.r), b.left))
	p := c.in[c.r : c.r+n]
	c.r += n
	b.left -= int64(n)
	if b.left == 0 {
		if b.kind == bodyChunk {
			b.kind = bodyChunkLF
		} else {
			b.kind = bodyNone
		}
	}
	return p, nil
}

// nextToClose returns bytes of a body that ends with the connection.
func (c *Conn) nextToClose() ([]byte, error) {
	if c.r == c.w {
		c.roomFor(sockio.Large)
		if err := c.fill(errChunk); err != nil {
			if errors.Is(err, io.EOF) {
				switch {
				case c.tunnel: // which may have ended its own half
				case c.above != nil && c.above.Truncated():
					// RFC 9112 §9.8: such a response "is complete only if a valid closure alert
					// has been received".
					return nil, c.cutOff(err)
				case c.Broken():
					return nil, c.cutOff(err)
				}
				c.body.kind = bodyNone
				c.fault = io.EOF // nothing can follow
				return nil, io.EOF
			}
			return nil, err
		}
	}
	p := c.in[c.r:c.w]
	c.r = c.w
	return p, nil
}

// roomFor gives body bytes a buffer of their own where more are to come than fit
// beside the head. Nothing is unread when it is called.
func (c *Conn) roomFor(left int64) {
	room := len(c.in) - c.base
	if room >= sockio.Small/2 && (left <= int64(room) || len(c.in) >= sockio.Large) {
		return
	}
	c.eager = c.role == Client
	c.in = sockio.Get(sockio.Large)
	c.base, c.r, c.w = 0, 0, 0
}

// cutOff turns the end of the stream inside a body into what it is.
func (c *Conn) cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		c.fault = io.ErrUnexpectedEOF
		return c.fault
	}
	return err
}

// step takes one line of the chunked coding: a size, the CRLF behind data, or a
// line of the trailers.
func (c *Conn) step() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	if err := c.take(line); err != nil {
		return c.refuse(err)
	}
	return nil
}

// take moves on by a line.
func (c *Conn) take(line []byte) error {
	switch c.body.kind {
	case bodySize:
		size, err := parseChunkSize(line)
		if err != nil {
			return err
		}
		c.body = body{kind: bodyChunk, left: size}
		if size == 0 {
			c.body = body{kind: bodyTrailer}
		}
	case bodyChunkLF:
		if len(line) != 0 {
			return errChunk
		}
		c.body.kind = bodySize
	case bodyTrailer:
		return c.takeTrailer(line)
	}
	return nil
}

// takeTrailer takes a line of the trailer section. Fields that must not be there are
// dropped, and so are those that Connection named.
func (c *Conn) takeTrailer(line []byte) error {
	if len(line) == 0 {
		c.body = body{}
		return nil
	}
	c.body.left += int64(len(line))
	if c.body.left > maxTrailerBytes || len(c.trailers) >= c.limits.Fields {
		return errTrailers
	}
	field, err := parseField(line, c.role == Client)
	if err != nil {
		return errTrailers
	}
	if !wire.TrailerAllowed(field.ID) {
		return nil
	}
	for _, list := range c.nominated {
		if wire.Names(list, field.Name) {
			return nil
		}
	}
	// The line's bytes are only borrowed: what is kept is copied.
	own := append(append(make([]byte, 0, len(field.Name)+len(field.Value)), field.Name...), field.Value...)
	field.Name, field.Value = own[:len(field.Name):len(field.Name)], own[len(field.Name):]
	c.trailers = append(c.trailers, field)
	return nil
}

// Trailers returns the fields that came behind a chunked body that was read to
// its end, valid until EndExchange.
func (c *Conn) Trailers() []wire.Field { return c.trailers }

// line returns the next line of the chunked coding without its CRLF.
func (c *Conn) line() ([]byte, error) {
	limit, full := maxChunkLine, errChunk
	if c.body.kind == bodyTrailer {
		limit, full = maxTrailerBytes, errTrailers
	}
	for {
		unread := c.in[c.r:c.w]
		i := bytes.IndexByte(unread, '\n')
		// The same limit for a line that is here as for one that comes in bytes.
		if i > limit+1 || i < 0 && len(unread) > limit+1 {
			return nil, c.refuse(full)
		}
		if i >= 0 {
			if i == 0 || unread[i-1] != '\r' {
				return nil, c.refuse(errBareLF)
			}
			c.r += i + 1
			return unread[:i-1], nil
		}
		if c.r == c.w {
			c.roomFor(sockio.Small)
		}
		if err := c.fill(full); err != nil {
			if !errors.Is(err, full) {
				return nil, c.cutOff(err)
			}
			if !c.moveOut() {
				return nil, c.refuse(full)
			}
		}
	}
}

// moveOut gives a line that does not fit beside the head a buffer of its own.
func (c *Conn) moveOut() bool {
	if c.base == 0 {
		return false
	}
	larger := sockio.Get(sockio.Large)
	c.w = copy(larger, c.in[c.r:c.w])
	c.in, c.base, c.r = larger, 0, 0
	return true
}

// parseChunkSize reads 1*HEXDIG [ chunk-ext ] (RFC 9112 §7.1). Extensions are
// dropped (§7.1.1: "A recipient MUST ignore unrecognized chunk extensions"), with the
// white space that may be before them (RFC 9110 §5.6.3); where none follows, no white
// space may be.
func parseChunkSize(line []byte) (int64, error) {
	var size int64
	i := 0
	for ; i < len(line) && wire.IsHexDigit(line[i]); i++ {
		if i == 15 { // 15 digits cannot overflow
			return 0, errChunk
		}
		d := int64(line[i] | 0x20)
		if d >= 'a' {
			d -= 'a' - 10
		} else {
			d -= '0'
		}
		size = size<<4 | d
	}
	if i == 0 {
		return 0, errChunk
	}
	if rest := line[i:]; len(rest) > 0 {
		if extension := wire.Trim(rest); len(extension) == 0 || extension[0] != ';' || !wire.IsFieldValue(rest) {
			return 0, errChunk
		}
	}
	return size, nil
}

// Whole returns the whole body, without blocking, if all of it has come in with
// the head: then the message can be sent more than once. The bytes stay valid
// until EndExchange. ok is false if there is more to come, and nothing is taken.
func (c *Conn) Whole() (p []byte, ok bool) {
	switch c.body.kind {
	case bodyNone:
		return nil, true
	case bodyLength:
		if int64(c.w-c.r) < c.body.left {
			return nil, false
		}
		n := int(c.body.left)
		p = c.in[c.r : c.r+n]
		c.r += n
		c.pin()
		c.body = body{}
		return p, true
	case bodySize:
		return c.wholeChunked()
	default:
		return nil, false
	}
}

// pin keeps in[:r] until EndExchange.
func (c *Conn) pin() { c.base = c.r }

// wholeChunked moves the data of the chunks together where they lie, if the last
// one and its trailers are there.
func (c *Conn) wholeChunked() ([]byte, bool) {
	start := c.r
	if !endsChunked(c.in[start:c.w]) {
		return nil, false
	}
	end := start
	for c.body.kind != bodyNone {
		if c.body.kind == bodyChunk {
			p, err := c.nextOf(&c.body)
			if err != nil {
				return nil, false
			}
			end += copy(c.in[end:], p)
			continue
		}
		if c.step() != nil {
			// Next will say so again: the connection is marked.
			return nil, false
		}
	}
	c.pin()
	return c.in[start:end], true
}

// endsChunked reports whether b holds a chunked body to its end, as far as sizes
// and lines can be followed; faults are left for the reader to find.
func endsChunked(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 1 {
			return false
		}
		size, err := parseChunkSize(b[:i-1])
		if err != nil {
			return false
		}
		b = b[i+1:]
		if size == 0 {
			return bytes.HasPrefix(b, []byte("\r\n")) || bytes.Contains(b, []byte("\r\n\r\n"))
		}
		if int64(len(b)) < size+2 {
			return false
		}
		b = b[size+2:]
	}
}

// Drain reads the rest of the body and forgets it. It blocks, and fails once tooMuch says that
// what has come of it is.
func (c *Conn) Drain(tooMuch func(come int64) bool) error {
	for come := int64(0); ; {
		p, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if come += int64(len(p)); tooMuch(come) {
			return errNotAtEnd
		}
	}
}

// Ready reports whether Next has something to say without reading: then what was
// written in answer can wait to be flushed. Of the chunked coding it takes what
// lies between here and the next data, which is nothing to say; what Next returned
// stays valid.
func (c *Conn) Ready() bool {
	for c.fault == nil {
		switch c.body.kind {
		case bodyNone:
			return true
		case bodyLength, bodyChunk, bodyClose:
			return c.r < c.w
		}
		if bytes.IndexByte(c.in[c.r:c.w], '\n') < 0 {
			return false
		}
		_ = c.step() // its error is the fault, which Next says again
	}
	return true
}

// Begun reports whether bytes of a message have come that was not yet taken whole.
func (c *Conn) Begun() bool { return c.r < c.w }

// HeadReady reports whether a head is here whole, so that ReadRequest or ReadResponse
// would not block.
func (c *Conn) HeadReady() bool { return headEnd(c.in[c.r:c.w], 0, c.role == Server) > 0 }

// BodyReady reports whether Next would bring a body to its end without blocking. It may say
// false of one in chunks.
func (c *Conn) BodyReady() bool {
	return c.body.kind == bodyNone || c.body.kind == bodyLength && int64(c.w-c.r) >= c.body.left
}
