package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// ReadRequest reads the next request's head. It blocks. It returns io.EOF if the
// client ended the connection before the first byte, a *wire.Error if the bytes
// are no request that is taken, and the connection's error otherwise. The fields
// point into the connection until EndExchange.
func (c *Conn) ReadRequest(h *wire.Head) error {
	h.Reset()
	c.toHead, c.to10, c.toConnect = false, false, false
	if err := c.readHead(c.limits.RequestLine, true); err != nil {
		return err
	}
	line, rest, err := cutLine(c.head[:c.base])
	// RFC 9112 §2.2: "a server that is expecting to receive and parse a request-line
	// SHOULD ignore at least one empty line (CRLF) received prior to the request-line."
	if err == nil && len(line) == 0 {
		line, rest, err = cutLine(rest)
	}
	if err != nil {
		return c.refuse(err)
	}
	if len(line) > c.limits.RequestLine {
		return c.refuse(errLineTooLong)
	}
	form, err := parseRequestLine(h, line, c.above != nil)
	// Even of a request that is refused: the refusal is answered.
	c.toHead = string(h.Method) == "HEAD"
	c.toConnect = string(h.Method) == "CONNECT"
	c.to10 = h.Proto == wire.HTTP10
	if err != nil {
		return c.refuse(err)
	}
	f := fieldNotes{}
	if err := c.parseFields(h, rest, &f); err != nil {
		return c.refuse(err)
	}
	if err := finishRequest(h, &f, form, c.limits.PortNames); err != nil {
		return c.refuse(err)
	}
	c.beginBody(h)
	return nil
}

// beginBody starts a body that the head frames.
func (c *Conn) beginBody(h *wire.Head) {
	c.body.begin(h.Streamed, max(h.ContentLength, 0), false)
	if !h.Streamed {
		return
	}
	// What Connection names is not to be passed on from the trailers either (RFC 9110
	// §7.6.1), and by then the head may be another.
	for i := range h.Fields {
		if h.Fields[i].ID == wire.Connection {
			c.nominated = append(c.nominated, h.Fields[i].Value)
		}
	}
}

// ReadResponse reads the next head that answers a request, interim ones (1xx)
// too. toHead says that the request was a HEAD. It blocks; errors are as those of
// ReadRequest, but io.ErrUnexpectedEOF after the first byte.
func (c *Conn) ReadResponse(h *wire.Head, toHead bool) error {
	if c.base > 0 { // after an interim response
		if err := c.EndExchange(); err != nil {
			return err
		}
	}
	h.Reset()
	if err := c.readHead(c.limits.RequestLine, false); err != nil {
		return err
	}
	line, rest, err := cutLine(c.head[:c.base])
	if err != nil {
		return c.refuse(err)
	}
	if err := parseStatusLine(h, line); err != nil {
		return c.refuse(err)
	}
	f := fieldNotes{}
	if err := c.parseFields(h, rest, &f); err != nil {
		return c.refuse(err)
	}
	if err := f.finish(h); err != nil {
		return c.refuse(err)
	}
	if !h.Streamed && h.ContentLength >= 0 {
		c.eager = int64(c.base)+h.ContentLength > sockio.Small
	}
	// RFC 9112 §6.3, 1: no body, whatever the fields say.
	bodyless := toHead || h.Status < 200 || h.Status == 204 || h.Status == 304
	switch {
	case bodyless:
		c.body.begin(false, 0, false)
	case !h.Streamed && h.ContentLength == wire.NoLength:
		// RFC 9112 §6.3, 8: "the message body length is determined by the number of octets
		// received prior to the server closing the connection".
		h.Close = true
		c.body.begin(false, 0, true)
	default:
		c.beginBody(h)
	}
	return nil
}

// refuse marks the connection as one on which nothing can be found any more.
func (c *Conn) refuse(err error) error {
	c.fault = err
	return err
}

// readHead reads until a whole head lies in head[:base].
func (c *Conn) readHead(lineLimit int, request bool) error {
	scanned := 0 // of in, known to hold no end of the head
	for {
		unread := c.in[c.r:c.w]
		if end := headEnd(unread, scanned, request); end > 0 {
			if end > c.limits.HeadBytes {
				return c.refuse(errHeadTooLarge)
			}
			c.base = c.r + end
			c.r = c.base
			return nil
		}
		if err := checkPartial(unread, scanned, lineLimit, c.limits.HeadBytes, request); err != nil {
			c.base = 0
			return c.refuse(err)
		}
		scanned = max(0, len(unread)-3)
		if c.w == len(c.in) && c.in != nil {
			c.grow()
		}
		if err := c.read(); err != nil {
			return midHead(err, c.w > 0)
		}
	}
}

// endOfHead is what a head ends with. A literal in place would be allocated for each head, once a profile has
// the compiler inline [bytes.Index].
//
//nolint:gochecknoglobals // a constant
var endOfHead = []byte("\r\n\r\n")

// headEnd returns the length of the head that b begins with, 0 if its end has not
// come yet. scanned bytes of b are known not to hold it.
func headEnd(b []byte, scanned int, request bool) int {
	from := scanned
	if request && len(b) >= 2 && b[0] == '\r' && b[1] == '\n' && from < 2 {
		from = 2 // the one empty line that may come before
	}
	if from > len(b) {
		return 0
	}
	if i := bytes.Index(b[from:], endOfHead); i >= 0 {
		return from + i + 4
	}
	return 0
}

// checkPartial refuses early what more bytes cannot mend, so that a peer that
// ends its lines with LF alone gets an answer, and one that never ends does too.
func checkPartial(b []byte, scanned, lineLimit, headLimit int, request bool) error {
	if len(b) > headLimit {
		return errHeadTooLarge
	}
	for i := scanned; i < len(b); {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			break
		}
		if i+j == 0 || b[i+j-1] != '\r' {
			return errBareLF
		}
		i += j + 1
	}
	if request {
		b = bytes.TrimPrefix(b, []byte("\r\n")) // the one empty line that may come before
		// With its CRLF, so that a line of just the limit is taken however it is read.
		if end := lineLimit + 2; len(b) >= end && bytes.IndexByte(b[:end], '\n') < 0 {
			return errLineTooLong
		}
	}
	return nil
}

// midHead turns the end of the stream in the middle of a head into what it is.
func midHead(err error, begun bool) error {
	if errors.Is(err, io.EOF) && begun {
		return io.ErrUnexpectedEOF
	}
	return err
}

// grow moves the unread bytes into a larger buffer. It is only called while a head
// comes in, when nothing is pinned.
func (c *Conn) grow() {
	larger := sockio.Get(2 * len(c.in))
	c.w = copy(larger, c.in[c.r:c.w])
	c.r = 0
	sockio.Put(c.head)
	c.head, c.in = larger, larger
}

// cutLine cuts the first line off b, without its CRLF.
func cutLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, errBareLF
	}
	return b[:i-1], b[i+1:], nil
}

// parseRequestLine reads METHOD SP target SP HTTP/1.x, which came over TLS if it is secure.
func parseRequestLine(h *wire.Head, line []byte, secure bool) (targetForm, error) {
	method := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')
	if method <= 0 || last == method {
		return 0, errRequestLine
	}
	h.Method = line[:method:method]
	if !wire.IsToken(h.Method) {
		return 0, errMethod
	}
	target, version := line[method+1:last], line[last+1:]
	proto, err := parseVersion(version)
	if err != nil {
		return 0, err
	}
	h.Proto = proto
	return parseTarget(h, target, secure)
}

// parseVersion reads HTTP/1.0 or HTTP/1.1 (RFC 9112 §2.3; the name is case-sensitive).
func parseVersion(v []byte) (wire.Proto, error) {
	switch string(v) {
	case "HTTP/1.1":
		return wire.HTTP11, nil
	case "HTTP/1.0":
		return wire.HTTP10, nil
	}
	if len(v) == 8 && string(v[:5]) == "HTTP/" && wire.IsDigit(v[5]) && v[6] == '.' && wire.IsDigit(v[7]) {
		return 0, errVersionNumber
	}
	return 0, errVersion
}

// parseStatusLine reads HTTP/1.x SP 3DIGIT SP [reason] (RFC 9112 §4). The second
// space may be missing with the reason, as many servers have it.
func parseStatusLine(h *wire.Head, line []byte) error {
	if len(line) < 12 || line[8] != ' ' {
		return errStatusLine
	}
	proto, err := parseVersion(line[:8])
	if err != nil {
		return err
	}
	h.Proto = proto
	for _, d := range line[9:12] {
		if !wire.IsDigit(d) {
			return errStatusLine
		}
		h.Status = h.Status*10 + int(d-'0')
	}
	if h.Status < 100 || h.Status > 599 || len(line) > 12 && line[12] != ' ' {
		return errStatusLine
	}
	if len(line) > 13 {
		h.Reason = line[13:]
		if !wire.IsFieldValue(h.Reason) {
			return errStatusLine
		}
	}
	return nil
}

// fieldNotes is what the fields said of where the body ends, and of the connection.
type fieldNotes struct {
	lengths, codings, hosts int
	options                 int // that Connection has named
	host                    []byte
	coding                  []byte
	close, keepAlive        bool
}

// parseFields reads the field lines up to the empty one.
func (c *Conn) parseFields(h *wire.Head, b []byte, f *fieldNotes) error {
	for {
		line, rest, err := cutLine(b)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if len(h.Fields) >= c.limits.Fields {
			return errTooManyFields
		}
		b = rest
		field, err := parseField(line, c.role == Client)
		if err != nil {
			return err
		}
		keep, err := f.note(h, &field)
		if err != nil {
			return err
		}
		if keep {
			h.Fields = append(h.Fields, field)
		}
	}
}

// parseField reads field-name ":" OWS field-value OWS (RFC 9112 §5). White space before
// the colon is taken off where it is a response's (§5.1: "A proxy MUST remove any such
// whitespace from a response message before forwarding the message downstream").
func parseField(line []byte, response bool) (wire.Field, error) {
	if line[0] == ' ' || line[0] == '\t' {
		return wire.Field{}, errFold
	}
	colon := 0
	for colon < len(line) && wire.IsTokenChar(line[colon]) {
		colon++
	}
	name := line[:colon:colon]
	for response && colon < len(line) && (line[colon] == ' ' || line[colon] == '\t') {
		colon++
	}
	switch {
	case colon == len(line):
		return wire.Field{}, errNoColon
	case len(name) == 0 || line[colon] != ':':
		return wire.Field{}, errFieldName
	}
	value := wire.Trim(line[colon+1:])
	if !wire.IsFieldValue(value) {
		if bytes.IndexByte(value, '\r') >= 0 {
			return wire.Field{}, errBareCR
		}
		return wire.Field{}, errFieldValue
	}
	return wire.Field{Name: name, Value: value[:len(value):len(value)], ID: wire.Lookup(name)}, nil
}

// note takes what a field says of framing and connection. keep is false for the
// framing's own fields: the writer makes them anew.
func (f *fieldNotes) note(h *wire.Head, field *wire.Field) (keep bool, err error) {
	switch field.ID {
	case wire.ContentLength:
		f.lengths++
		n, ok := wire.ParseLength(field.Value)
		if !ok {
			return false, errContentLength
		}
		h.ContentLength = n
		return false, nil
	case wire.TransferEncoding:
		f.codings++
		f.coding = field.Value
		return false, nil
	case wire.Host:
		f.hosts++
		f.host = field.Value
	case wire.Connection:
		return true, f.noteConnection(field.Value)
	case wire.Expect:
		if len(h.Method) == 0 {
			break // a response expects nothing
		}
		if !wire.EqualFold(field.Value, "100-continue") {
			return false, errExpect
		}
		h.ExpectContinue = true
		copy(field.Value, "100-continue") // the value is case-insensitive (RFC 9110 §10.1.1), but there are servers to whom it is not
	}
	return true, nil
}

// noteConnection takes the options of a Connection field. Their number is bounded,
// since each is compared with each field when they are removed.
func (f *fieldNotes) noteConnection(list []byte) error {
	for len(list) > 0 {
		var option []byte
		if option, list = wire.NextElement(list); len(option) == 0 {
			continue
		}
		if f.options++; f.options > wire.MaxConnectionOptions {
			return errManyOptions
		}
		f.close = f.close || wire.EqualFold(option, "close")
		f.keepAlive = f.keepAlive || wire.EqualFold(option, "keep-alive")
	}
	return nil
}

// finish settles the framing (RFC 9112 §6.3) and the connection's fate (§9.3).
func (f *fieldNotes) finish(h *wire.Head) error {
	switch {
	case f.lengths > 1:
		// Even where all say the same: some other recipient may take the list's first.
		return errContentLength
	case f.lengths > 0 && f.codings > 0:
		return errBothFramings
	case f.codings > 1:
		return errManyCodings
	case f.codings == 1 && h.Proto == wire.HTTP10:
		return errCodingIn10
	case f.codings == 1:
		if !wire.EqualFold(f.coding, "chunked") {
			return errTransferCoding
		}
		h.Streamed = true
	}
	if h.Proto == wire.HTTP10 {
		h.Close = !f.keepAlive || f.close
	} else {
		h.Close = f.close
	}
	return nil
}

// finishRequest is finish for a request, and settles what Host and the target's authority say
// together (RFC 9112 §3.2).
func finishRequest(h *wire.Head, f *fieldNotes, form targetForm, portNames bool) error {
	if err := f.finish(h); err != nil {
		return err
	}
	switch {
	case f.hosts > 1:
		return errManyHosts
	case f.hosts == 0 && h.Proto > wire.HTTP10:
		return errNoHost
	case f.hosts == 1 && len(f.host) > 0 && !wire.IsAuthority(f.host):
		return errHost
	case !portNames && (wire.NamesPort(f.host) || wire.NamesPort(h.Authority)):
		return errHost
	}
	if form == authorityForm && (h.Streamed || h.ContentLength > 0) {
		return errConnectContent
	}
	if form == absoluteForm {
		// RFC 9112 §3.2.2: "the proxy … MUST ignore the received Host header field (if
		// any) and instead replace it with the host information of the request-target."
		h.Set(wire.Host, "Host", h.Authority)
	} else if form != authorityForm {
		h.Authority = f.host
	}
	if h.Proto == wire.HTTP10 {
		// RFC 9110 §10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0
		// request MUST ignore that expectation."
		h.ExpectContinue = false
	}
	return nil
}
