package http1

import (
	"bytes"
	"errors"
	"io"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// targetForm is how a request names its target (RFC 9112 §3.2).
type targetForm uint8

const (
	originForm targetForm = iota
	absoluteForm
	authorityForm
	asteriskForm
)

// parseTarget sets Path and, where the target has one, Authority.
func parseTarget(h *wire.Head, target []byte) (targetForm, error) {
	if len(target) == 0 || !isTarget(target) {
		return 0, errTarget
	}
	if string(h.Method) == "CONNECT" {
		// RFC 9112 §3.2.3: authority-form, with a port that is not empty.
		colon := bytes.LastIndexByte(target, ':')
		if colon < bytes.LastIndexByte(target, ']') || colon < 0 || colon == len(target)-1 || !isAuthority(target) {
			return 0, errTarget
		}
		h.Authority = target
		return authorityForm, nil
	}
	if target[0] == '/' {
		h.Path = target
		return originForm, nil
	}
	if len(target) == 1 && target[0] == '*' {
		// RFC 9112 §3.2.4: only for OPTIONS.
		if string(h.Method) != "OPTIONS" {
			return 0, errTarget
		}
		h.Path = target
		return asteriskForm, nil
	}
	return absoluteForm, parseAbsolute(h, target)
}

// parseAbsolute reads http://authority/path?query. The scheme is compared without
// case (RFC 3986 §3.1); https is for a TLS connection, which this is not.
func parseAbsolute(h *wire.Head, target []byte) error {
	const scheme = "http://"
	if len(target) <= len(scheme) || !wire.EqualFold(target[:len(scheme)], scheme) {
		return errTarget
	}
	rest := target[len(scheme):]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || !isAuthority(rest[:end]) {
		return errTarget
	}
	h.Authority = rest[:end:end]
	switch {
	case end == len(rest):
		h.Path = []byte("/")
		// RFC 9112 §3.2.4: OPTIONS http://host is forwarded as OPTIONS *.
		if string(h.Method) == "OPTIONS" {
			h.Path = []byte("*")
		}
	case rest[end] == '/':
		h.Path = rest[end:]
	default: // a query without a path: RFC 3986 §6.2.3 makes it "/"
		h.Path = append([]byte{'/'}, rest[end:]...)
	}
	return nil
}

// isTarget reports whether b has only visible ASCII and no fragment (RFC 9112
// §3.2: a request target is no place for white space, controls or '#').
func isTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// isAuthority reports whether b is host [":" port] (RFC 9110 §4.2.1) without
// userinfo, which RFC 9110 §4.2.4 tells recipients to treat as an error.
func isAuthority(b []byte) bool {
	host, port := b, []byte(nil)
	if b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 2 {
			return false
		}
		for _, c := range b[1:end] {
			if !isHexDigit(c) && c != ':' && c != '.' {
				return false
			}
		}
		port = b[end+1:]
		if len(port) > 0 && port[0] != ':' {
			return false
		}
	} else {
		if i := bytes.IndexByte(b, ':'); i >= 0 {
			host, port = b[:i], b[i:]
		}
		if len(host) == 0 {
			return false
		}
		for _, c := range host {
			if !isRegName(c) {
				return false
			}
		}
	}
	if len(port) > 64 {
		return false
	}
	// A port may be a name here, as the mesh allows (orders:http).
	for i := 1; i < len(port); i++ {
		if c := port[i]; !isDigit(c) && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

// isRegName: unreserved / sub-delims of RFC 3986 §3.2.2; percent-encoding is left
// out, since a name of DNS has none and decoding differs among recipients.
func isRegName(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', isDigit(c):
		return true
	}
	return bytes.IndexByte([]byte("-._~!$&'()*+;="), c) >= 0
}

// tokenLow and tokenHigh are the characters of tchar (RFC 9110 §5.6.2) as bits:
// "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "." / "^" / "_" / "`" /
// "|" / "~" / DIGIT / ALPHA.
const (
	tokenLow = 1<<'!' | 1<<'#' | 1<<'$' | 1<<'%' | 1<<'&' | 1<<'\'' | 1<<'*' | 1<<'+' | 1<<'-' | 1<<'.' |
		0x3ff<<'0'
	tokenHigh = 1<<('^'-64) | 1<<('_'-64) | 1<<('`'-64) | 1<<('|'-64) | 1<<('~'-64) |
		(1<<26-1)<<('A'-64) | (1<<26-1)<<('a'-64)
)

func isToken(c byte) bool {
	if c < 64 {
		return uint64(tokenLow)>>c&1 != 0
	}
	return c < 128 && uint64(tokenHigh)>>(c-64)&1 != 0
}

// isTokens reports whether b is a token, which is not empty.
func isTokens(b []byte) bool {
	for _, c := range b {
		if !isToken(c) {
			return false
		}
	}
	return len(b) > 0
}

// isFieldValue: VCHAR, obs-text, SP and HTAB (RFC 9110 §5.5).
func isFieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHexDigit(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// midHead turns the end of the stream in the middle of a head into what it is.
func midHead(err error, begun bool) error {
	if errors.Is(err, io.EOF) && begun {
		return io.ErrUnexpectedEOF
	}
	return err
}
