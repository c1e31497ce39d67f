package http2

import (
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2/hpack"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/rpc"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// WriteHead writes a head: of a request if the connection is a client's, which gives the
// stream its number, else of a response, interim ones too. Nothing is written of a head
// that would be read as another. One that [wire.Head.Ends] ends the stream in the same frame, whoever
// writes that meanwhile: a gRPC client takes the end of a response for its trailers only there. EndBody
// is called all the same. It does not block.
func (s *Stream) WriteHead(h *wire.Head) error {
	c := s.conn
	for i := range h.Fields {
		if !sendable(&h.Fields[i]) {
			return errUnsendable
		}
	}
	if c.role == Client && (!wire.IsToken(h.Method) || !wire.IsFieldValue(h.Authority) || !wire.IsTarget(h.Path)) ||
		c.role == Server && (h.Status < 100 || h.Status > 999 || h.Status == 101) {
		return errUnsendable
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Protocol != nil && c.role == Client && !c.peer.connect {
		// RFC 8441 §3: only "upon receipt of SETTINGS_ENABLE_CONNECT_PROTOCOL with a value of 1".
		return errUnsendable
	}
	if c.role == Client && s.id == 0 {
		if err := c.number(s); err != nil {
			return err
		}
		s.toHead, s.connects = string(h.Method) == "HEAD", string(h.Method) == "CONNECT"
	}
	if s.sendErr != nil {
		return s.sendErr
	}
	c.room(headerLen + h.Size() + 8*len(h.Fields) + 64)
	at := len(c.out)
	flags := byte(flagEndHeaders)
	if h.Ends {
		flags |= flagEndStream
		s.sendEnded = true
	}
	c.out = appendHeader(c.out, 0, frameHeaders, flags, s.id)
	if c.role == Client {
		c.appendRequest(h)
	} else {
		c.appendResponse(h)
	}
	c.frameBlock(at, s.id)
	s.tailAt, s.tailGen, s.headGen, s.wroteHead = at, c.gen, c.gen, true
	return nil
}

// number gives a client's stream its number. It needs mu.
func (c *Conn) number(s *Stream) error {
	if c.err != nil || s.sendErr != nil || c.goingAway || c.peerGone || c.nextID > maxStreamID {
		s.failLocked(ErrRefused) // nothing of it was sent, and nothing will come
		return ErrRefused
	}
	s.id = c.nextID
	c.nextID += 2
	c.reserved--
	s.open = true
	s.sendWindow = c.peer.window // it may have changed since Open
	c.streams[s.id] = s
	return nil
}

func (c *Conn) appendRequest(h *wire.Head) {
	e, b := c.encoder, c.out
	b = e.AppendPseudo(b, hpack.Method, h.Method)
	if len(h.Path) > 0 { // CONNECT has none (RFC 9113 §8.5)
		scheme := h.Scheme
		if scheme == nil {
			scheme = httpScheme
		}
		b = e.AppendPseudo(b, hpack.Scheme, scheme)
		b = e.AppendPseudo(b, hpack.Path, h.Path)
	}
	if len(h.Authority) > 0 {
		b = e.AppendPseudo(b, hpack.Authority, h.Authority)
	}
	if h.Protocol != nil {
		b = e.AppendField(b, protocolName, h.Protocol, wire.Other, false)
	}
	c.out = b
	c.appendFields(h.Fields)
	c.appendLength(h)
}

func (c *Conn) appendResponse(h *wire.Head) {
	var digits [4]byte
	c.out = c.encoder.AppendPseudo(c.out, hpack.Status, strconv.AppendInt(digits[:0], int64(h.Status), 10))
	c.appendFields(h.Fields)
	if h.Status >= 200 && h.Status != 204 { // RFC 9110 §8.6
		c.appendLength(h)
	}
}

//nolint:gochecknoglobals // constants
var (
	httpScheme    = []byte("http")
	httpsScheme   = []byte("https")
	protocolName  = []byte(":protocol")
	contentLength = []byte("content-length")
)

// appendFields appends fields but for those that HTTP/2 does not have (RFC 9113 §8.2.2)
// and Host, which :authority says.
func (c *Conn) appendFields(fields []wire.Field) {
	b := c.out
	for i := range fields {
		f := &fields[i]
		switch f.ID {
		case wire.Host, wire.Connection, wire.KeepAlive, wire.ProxyConnection, wire.Upgrade:
			continue
		}
		b = c.encoder.AppendField(b, f.Name, f.Value, f.ID, f.Sensitive)
	}
	c.out = b
}

// appendLength says how long the body is, where that is known: HTTP/2 does not need it. A head of
// gRPC's or gRPC-Web's does without: its fields are the metadata of a call, which its server and its
// client see, of a response that is only trailers too, and messages say themselves how long they are.
func (c *Conn) appendLength(h *wire.Head) {
	if h.ContentLength < 0 || rpc.KindOfType(h.Get(wire.ContentType)) != rpc.None {
		return
	}
	var digits [20]byte
	c.out = c.encoder.AppendField(c.out, contentLength, strconv.AppendInt(digits[:0], h.ContentLength, 10), wire.ContentLength, false)
}

// writeTrailers writes the last head of a stream. It needs mu.
func (c *Conn) writeTrailers(s *Stream, trailers []wire.Field) {
	size := headerLen + 64
	for i := range trailers {
		size += len(trailers[i].Name) + len(trailers[i].Value) + 12
	}
	c.room(size)
	at := len(c.out)
	c.out = appendHeader(c.out, 0, frameHeaders, flagEndHeaders|flagEndStream, s.id)
	for i := range trailers {
		if sendable(&trailers[i]) {
			c.appendFields(trailers[i : i+1])
		}
	}
	c.frameBlock(at, s.id)
}

// frameBlock sets the length of the HEADERS that begins at at and reaches to the end of
// out, and puts what is too much for it into CONTINUATIONs. It needs mu.
func (c *Conn) frameBlock(at int, id uint32) {
	if at > maxUnsent {
		defer c.failLocked(errUnread)
	}
	length := len(c.out) - at - headerLen
	if length <= maxFrame {
		setLength(c.out[at:], length)
		return
	}
	rest := append([]byte(nil), c.out[at+headerLen+maxFrame:]...)
	c.out = c.out[:at+headerLen+maxFrame]
	setLength(c.out[at:], maxFrame)
	c.out[at+4] &^= flagEndHeaders
	for len(rest) > 0 {
		n := min(len(rest), maxFrame)
		flags := byte(0)
		if n == len(rest) {
			flags = flagEndHeaders
		}
		c.out = append(appendHeader(c.out, n, frameContinuation, flags, id), rest[:n]...)
		rest = rest[n:]
	}
}

// sendable reports whether a field can be written as it is. The framing's are made by the
// writer alone.
func sendable(f *wire.Field) bool {
	return f.ID != wire.ContentLength && f.ID != wire.TransferEncoding && wire.IsToken(f.Name) && isValue(f.Value)
}

func hasSendable(fields []wire.Field) bool {
	for i := range fields {
		if sendable(&fields[i]) {
			return true
		}
	}
	return false
}
