package sniff

import (
	"bytes"
	"strings"
)

// Speech is what the first bytes of a connection are.
type Speech uint8

// What they may be.
const (
	Opaque Speech = iota // none of the others
	HTTP1                // a request line of HTTP/1.0 or HTTP/1.1 (RFC 9112 §3)
	HTTP2                // the preface of HTTP/2 (RFC 9113 §3.4)
)

// MaxHTTP is how many bytes HTTP needs at most to decide.
const MaxHTTP = 64

// preface is what a client that speaks HTTP/2 sends first (RFC 9113 §3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// HTTP tells what data begins with, as early as its bytes allow: a method that is known, a
// space, and the beginning of a target that such a method may have (RFC 9112 §3.2) are
// HTTP/1; all 24 bytes of the preface are HTTP/2; the first byte that fits neither makes it
// opaque. It fails with [ErrShort] as long as both are possible. It allocates nothing.
//
// An unknown method is opaque, although HTTP has room for it (RFC 9110 §16.1): else most
// protocols that consist of text would be taken for it.
func HTTP(data []byte) (Speech, error) {
	if n := min(len(data), len(preface)); string(data[:n]) == preface[:n] {
		if n == len(preface) {
			return HTTP2, nil
		}
		return Opaque, ErrShort
	}
	line := data
	if n := min(len(data), len(emptyLine)); string(data[:n]) == emptyLine[:n] {
		line = data[n:]
	}
	if len(line) == 0 {
		return Opaque, ErrShort
	}
	space := bytes.IndexByte(line[:min(len(line), maxMethod+1)], ' ')
	if space < 0 {
		if isMethod(line, true) {
			return Opaque, ErrShort
		}
		return Opaque, nil
	}
	if !isMethod(line[:space], false) {
		return Opaque, nil
	}
	return target(string(line[:space]), line[space+1:])
}

// emptyLine may come once in front of a request. RFC 9112 §2.2: a server "SHOULD ignore at least one
// empty line (CRLF) received prior to the request-line".
const emptyLine = "\r\n"

// target tells what begins with a method, by the target behind it.
func target(method string, rest []byte) (Speech, error) {
	if len(rest) == 0 {
		return Opaque, ErrShort
	}
	switch c := rest[0]; {
	case method == "CONNECT": // authority-form (RFC 9112 §3.2.3)
		if c == '[' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			return HTTP1, nil
		}
	case c == '/': // origin-form
		return HTTP1, nil
	case c == '*' && method == "OPTIONS": // asterisk-form
		return HTTP1, nil
	default: // absolute-form
		const scheme = "http"
		n := min(len(rest), len(scheme))
		if !strings.EqualFold(string(rest[:n]), scheme[:n]) {
			return Opaque, nil
		}
		after := rest[n:]
		if len(after) > 0 && after[0]|0x20 == 's' {
			after = after[1:]
		}
		switch {
		case len(after) == 0:
			return Opaque, ErrShort
		case after[0] == ':':
			return HTTP1, nil
		}
	}
	return Opaque, nil
}

// maxMethod is the length of the longest method, in bytes.
const maxMethod = len("UPDATEREDIRECTREF")

// methods are those of the registry (RFC 9110 §16.1.1), without PRI, and those in wide use
// that are not in it.
const methods = "GET POST PUT DELETE HEAD OPTIONS PATCH CONNECT TRACE " +
	"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL " +
	"MKREDIRECTREF MKWORKSPACE MOVE NOTIFY ORDERPATCH PROPFIND PROPPATCH PURGE QUERY REBIND REPORT SEARCH SUBSCRIBE " +
	"UNBIND UNCHECKOUT UNLINK UNLOCK UNSUBSCRIBE UPDATE UPDATEREDIRECTREF VERSION-CONTROL"

// isMethod reports whether b is a method, or, if it is only a part, whether one begins so.
func isMethod(b []byte, part bool) bool {
	for method := range strings.SplitSeq(methods, " ") {
		if len(method) >= len(b) && method[:len(b)] == string(b) && (part || len(method) == len(b)) {
			return true
		}
	}
	return false
}
