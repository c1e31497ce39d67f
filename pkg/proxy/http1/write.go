package http1

import (
	"net"
	"strconv"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// framing is how the end of the body being written is told.
type framing uint8

const (
	frameNone    framing = iota // no body
	frameLength                 // Content-Length
	frameChunked                // Transfer-Encoding: chunked
	frameClose                  // the end of the connection
	frameTunnel                 // the end of this half of the connection
)

// WriteHead appends a head to what will be flushed: of a request if the Conn is a
// client's, else of a response. It decides how the body is framed: by the head's
// ContentLength; else in chunks, if the head says Streamed or a response's length
// is not known; for an HTTP/1.0 client by the end of the connection, in which case
// it sets the head's Close. Nothing is written of a head that would be read as
// another (RFC 9112 §11.1).
func (c *Conn) WriteHead(h *wire.Head) error {
	for i := range h.Fields {
		if !sendable(&h.Fields[i]) {
			return errUnsendable
		}
	}
	if c.role == Client {
		return c.writeRequestHead(h)
	}
	return c.writeResponseHead(h)
}

// sendable reports whether a field can be written as it is. The framing's are made
// by the writer alone: a second one is how requests are smuggled.
func sendable(f *wire.Field) bool {
	return f.ID != wire.ContentLength && f.ID != wire.TransferEncoding && wire.IsToken(f.Name) && wire.IsFieldValue(f.Value)
}

func (c *Conn) room() {
	if c.out == nil {
		c.out = sockio.Get(sockio.Small)[:0]
	}
}

func (c *Conn) writeRequestHead(h *wire.Head) error {
	target := h.Path
	if len(target) == 0 {
		target = h.Authority
	}
	if !wire.IsToken(h.Method) || len(target) == 0 || !wire.IsTarget(target) || !wire.IsFieldValue(h.Authority) {
		return errUnsendable
	}
	c.room()
	b := c.out
	b = append(append(append(append(b, h.Method...), ' '), target...), " HTTP/1.1\r\n"...)
	if h.Get(wire.Host) == nil {
		// RFC 9112 §3.2: "A client MUST send a Host header field in all HTTP/1.1 request messages."
		b = append(append(append(b, "Host: "...), h.Authority...), "\r\n"...)
	}
	b = appendFields(b, h.Fields)
	if h.Get(wire.TE) != nil && h.Get(wire.Connection) == nil {
		// RFC 9110 §10.1.4: "A sender of TE MUST also send a "TE" connection option within the
		// Connection header field".
		b = append(b, "Connection: TE\r\n"...)
	}
	switch {
	case h.Streamed:
		c.writing = frameChunked
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case h.ContentLength >= 0:
		c.writing, c.left = frameLength, h.ContentLength
		b = appendLength(b, h.ContentLength)
	default:
		c.writing = frameNone
		if expectsContent(h.Method) {
			b = appendLength(b, 0)
		}
	}
	b = append(b, "\r\n"...)
	c.out = b
	return nil
}

// expectsContent reports whether content has a meaning with the method. "A user agent SHOULD send
// Content-Length in a request when the method defines a meaning for enclosed content and it is
// not sending Transfer-Encoding" (RFC 9110 §8.6), "even when the value is 0". HTTP/2 says that
// without (RFC 9113 §8.1.1), and there are servers that answer 411 to a POST of HTTP/1.1 that
// does not say it.
func expectsContent(method []byte) bool {
	switch string(method) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}

func (c *Conn) writeResponseHead(h *wire.Head) error {
	if h.Status < 100 || h.Status > 999 || !wire.IsFieldValue(h.Reason) {
		return errUnsendable
	}
	c.room()
	b := c.out
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(h.Status), 10)
	b = append(b, ' ')
	if h.Reason != nil {
		b = append(b, h.Reason...)
	} else {
		b = append(b, statusText(h.Status)...)
	}
	b = append(b, "\r\n"...)
	b = appendFields(b, h.Fields)
	if h.Status < 200 || c.toConnect && h.Status < 300 {
		// RFC 9112 §6.1: "A server MUST NOT send a Transfer-Encoding header field in any response
		// with a status code of 1xx", nor "in any 2xx (Successful) response to a CONNECT request";
		// RFC 9110 §8.6 says the same of Content-Length. The final response is still to come, or
		// a tunnel.
		b = append(b, "\r\n"...)
		c.out = b
		return nil
	}
	bodyless := c.toHead || h.Status == 204 || h.Status == 304
	c.writing = frameNone
	switch {
	// RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with
	// a status code of 1xx (Informational) or 204 (No Content)."
	case h.ContentLength >= 0 && h.Status != 204:
		b = appendLength(b, h.ContentLength)
		if !bodyless {
			c.writing, c.left = frameLength, h.ContentLength
		}
	case bodyless:
	case c.to10:
		c.writing = frameClose
		h.Close = true
	default:
		c.writing = frameChunked
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case h.Close:
		b = append(b, "Connection: close\r\n"...)
	case c.to10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	c.out = b
	return nil
}

func appendFields(b []byte, fields []wire.Field) []byte {
	for i := range fields {
		f := &fields[i]
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	return b
}

func appendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// direct is the size in bytes from which a piece of a body is sent from where it lies instead
// of being copied.
const direct = 2 << 10

// WriteBody sends bytes of the body. Few are kept until Flush or until there are
// more; many are written at once, with the head before them. It blocks when the
// peer does not take them.
func (c *Conn) WriteBody(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	c.room()
	switch c.writing {
	case frameNone:
		return errUnsendable
	case frameLength:
		if c.left -= int64(len(p)); c.left < 0 {
			return errUnsendable // more than was announced would be a next message
		}
	case frameChunked:
		c.out = strconv.AppendUint(c.out, uint64(len(p)), 16)
		c.out = append(c.out, "\r\n"...)
	}
	if len(p) < direct && len(c.out)+len(p)+2 <= cap(c.out) {
		c.out = append(c.out, p...)
		c.endChunk()
		return nil
	}
	if err := c.writeWith(p); err != nil {
		return err
	}
	c.room()
	c.endChunk()
	return nil
}

func (c *Conn) endChunk() {
	if c.writing == frameChunked {
		c.out = append(c.out, "\r\n"...)
	}
}

// writeWith writes what waits and p in one system call.
func (c *Conn) writeWith(p []byte) error {
	err := c.send(c.out, p)
	c.out = c.out[:0]
	return err
}

// send writes a and then b. It blocks until the kernel has taken all of it.
func (c *Conn) send(a, b []byte) error {
	if len(a) == 0 {
		a, b = b, nil
	}
	if c.above != nil {
		return c.sendAbove(a, b)
	}
	c.iov = [2][]byte{a, b}
	if c.raw == nil {
		c.bufs = net.Buffers(c.iov[:1])
		if len(b) > 0 {
			c.bufs = net.Buffers(c.iov[:])
		}
		n, err := c.bufs.WriteTo(c.nc)
		c.written += n
		c.iov = [2][]byte{}
		return err
	}
	c.sendErr = 0
	err := c.raw.Write(c.sendFD)
	c.iov = [2][]byte{}
	if err == nil && c.sendErr != 0 {
		err = &net.OpError{Op: "write", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.sendErr}
	}
	return err
}

// maxRecord is how much one record of TLS takes (RFC 8446 §5.1).
const maxRecord = 16 << 10

// sendAbove is send to a layer that makes a record, and a system call, of each write: the
// head goes into the first one of the body.
func (c *Conn) sendAbove(a, b []byte) error {
	if len(b) > 0 && len(a) < maxRecord {
		joined := sockio.Get(maxRecord)
		n := copy(joined, a)
		more := copy(joined[n:maxRecord], b)
		err := c.writeAbove(joined[:n+more])
		sockio.Put(joined)
		if err != nil || more == len(b) {
			return err
		}
		return c.writeAbove(b[more:])
	}
	if err := c.writeAbove(a); err != nil || len(b) == 0 {
		return err
	}
	return c.writeAbove(b)
}

// writeAbove counts what was written whole only: of a record of which a part was, the peer
// can read nothing.
func (c *Conn) writeAbove(p []byte) error {
	n, err := c.nc.Write(p)
	c.written += int64(n)
	return err
}

// sendAll sends what is left of iov, until the kernel takes no more for now.
func (c *Conn) sendAll(fd uintptr) bool {
	for len(c.iov[0]) > 0 {
		n, err := sockio.Send(fd, c.iov[0], c.iov[1])
		switch err {
		case 0:
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			c.sendErr = err
			c.sendFault.CompareAndSwap(0, uint32(err))
			return true
		}
		c.written += int64(n)
		first := min(n, len(c.iov[0]))
		c.iov[0], c.iov[1] = c.iov[0][first:], c.iov[1][n-first:]
		if len(c.iov[0]) == 0 {
			c.iov[0], c.iov[1] = c.iov[1], nil
		}
	}
	return true
}

// EndBody ends the body, with trailers if it goes in chunks. It fails if less was
// written than announced: then the connection must be closed.
func (c *Conn) EndBody(trailers []wire.Field) error {
	switch c.writing {
	case frameLength:
		if c.left != 0 {
			return errUnsendable
		}
	case frameChunked:
		c.room()
		c.out = append(c.out, "0\r\n"...)
		for i := range trailers {
			if sendable(&trailers[i]) {
				c.out = appendFields(c.out, trailers[i:i+1])
			}
		}
		c.out = append(c.out, "\r\n"...)
	case frameTunnel:
		return c.endHalf()
	}
	c.writing = frameNone
	return nil
}

// Flush writes what waits. It blocks when the peer does not take it.
func (c *Conn) Flush() error {
	if len(c.out) > 0 {
		if err := c.send(c.out, nil); err != nil {
			return err
		}
	}
	c.sent()
	return nil
}

// Ask is the Flush of a client that reads next: it blocks until an answer has begun, too, and
// fails only as Flush does. The runtime is told to wake the reader before the request goes
// out, so that no read is needed that finds nothing yet. What came before, a look at the idle
// connection has to find (Alive).
func (c *Conn) Ask() error {
	if c.raw == nil || c.above != nil || len(c.out) == 0 || c.w > c.r {
		return c.Flush()
	}
	c.iov = [2][]byte{c.out}
	c.sendErr, c.unsent = 0, true
	_ = c.raw.Read(c.askFD) // what it fails with, the next read does as well
	rest := c.iov[0]
	c.iov = [2][]byte{}
	if c.sendErr != 0 {
		return &net.OpError{Op: "write", Net: "tcp", Addr: c.nc.RemoteAddr(), Err: c.sendErr}
	}
	if len(rest) > 0 {
		if err := c.send(rest, nil); err != nil {
			return err
		}
	}
	c.sent()
	return nil
}

// sent gives the buffer of what was flushed back.
func (c *Conn) sent() {
	if c.out != nil {
		sockio.Put(c.out[:0])
		c.out = nil
	}
}

// askOnce sends what waits, and then is readOnce. The answer may take long, so it is waited for
// without the request's buffer.
func (c *Conn) askOnce(fd uintptr) bool {
	if c.unsent {
		c.unsent = false
		if !c.sendAll(fd) {
			return true // the rest is for send
		}
		if c.sendErr == 0 {
			c.sent()
			return false
		}
	}
	c.asked = c.readOnce(fd)
	return c.asked
}

// Written returns how many bytes the kernel has taken since the last call.
func (c *Conn) Written() int64 {
	n := c.written
	c.written = 0
	return n
}

// statusText returns the reason phrases of RFC 9110 §15, RFC 8297 §2, RFC 6585 and RFC 5842 §7.2, for
// answers of the proxy's own and those that come over HTTP/2, which has none; other statuses go
// without one, which RFC 9112 §4 allows.
func statusText(status int) string {
	switch status {
	case 100:
		return "Continue"
	case 101:
		return "Switching Protocols"
	case 103:
		return "Early Hints"
	case 200:
		return "OK"
	case 201:
		return "Created"
	case 202:
		return "Accepted"
	case 203:
		return "Non-Authoritative Information"
	case 204:
		return "No Content"
	case 205:
		return "Reset Content"
	case 206:
		return "Partial Content"
	case 300:
		return "Multiple Choices"
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 304:
		return "Not Modified"
	case 305:
		return "Use Proxy"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 402:
		return "Payment Required"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 406:
		return "Not Acceptable"
	case 407:
		return "Proxy Authentication Required"
	case 408:
		return "Request Timeout"
	case 409:
		return "Conflict"
	case 410:
		return "Gone"
	case 411:
		return "Length Required"
	case 412:
		return "Precondition Failed"
	case 413:
		return "Content Too Large"
	case 414:
		return "URI Too Long"
	case 415:
		return "Unsupported Media Type"
	case 416:
		return "Range Not Satisfiable"
	case 417:
		return "Expectation Failed"
	case 421:
		return "Misdirected Request"
	case 422:
		return "Unprocessable Content"
	case 426:
		return "Upgrade Required"
	case 428:
		return "Precondition Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	case 508:
		return "Loop Detected"
	case 511:
		return "Network Authentication Required"
	}
	return ""
}
