package wire

import "bytes"

// IsTarget reports whether b has only visible ASCII and no fragment (RFC 9112
// §3.2: "No whitespace is allowed in the request-target", nor in a URI, RFC 3986 §2).
func IsTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// IsAuthority reports whether b is uri-host [ ":" port ] (RFC 9110 §7.2), without userinfo:
// "a recipient SHOULD parse for userinfo and treat its presence as an error" (§4.2.4). A
// port may be empty, a number, or a name of the mesh's (orders:http), of at most 63 bytes.
func IsAuthority(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	host, port := b, []byte(nil)
	if b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 2 {
			return false
		}
		for _, c := range b[1:end] {
			if !IsHexDigit(c) && c != ':' && c != '.' {
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
	if len(port) > maxPort {
		return false
	}
	for i := 1; i < len(port); i++ {
		if c := port[i]; !IsDigit(c) && (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

// NamesPort reports whether the port of what IsAuthority is a name.
func NamesPort(b []byte) bool {
	colon := bytes.LastIndexByte(b, ':')
	if colon < 0 || b[len(b)-1] == ']' { // or an address of IPv6 without a port
		return false
	}
	for _, c := range b[colon+1:] {
		if !IsDigit(c) {
			return true
		}
	}
	return false
}

// NamesTunnel reports whether b is uri-host ":" port, the authority-form by which CONNECT names where its tunnel
// ends (RFC 9112 §3.2.3). "A server MUST reject a CONNECT request that targets an empty or invalid port number" (RFC 9110
// §9.3.6): it is one of TCP's, 1 to 65535, or as in IsAuthority a name of the mesh's.
func NamesTunnel(b []byte) bool {
	colon := bytes.LastIndexByte(b, ':')
	if colon < 0 || b[len(b)-1] == ']' || !IsAuthority(b) { // or an address of IPv6 without a port
		return false
	}
	number := 0
	for _, c := range b[colon+1:] {
		if !IsDigit(c) {
			return true
		}
		number = min(10*number+int(c-'0'), 1<<16)
	}
	return 1 <= number && number < 1<<16
}

// maxPort bounds a port with its colon, in bytes.
const maxPort = 64

// isRegName: unreserved / sub-delims of RFC 3986 §3.2.2. Percent-encoding is left out,
// since a name of DNS has none and decoding differs among recipients; so is the comma, by
// which others join two Host fields.
func isRegName(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', IsDigit(c):
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

// IsTokenChar reports whether c is a tchar (RFC 9110 §5.6.2).
func IsTokenChar(c byte) bool {
	if c < 64 {
		return uint64(tokenLow)>>c&1 != 0
	}
	return c < 128 && uint64(tokenHigh)>>(c-64)&1 != 0
}

// IsToken reports whether b is a token, which is not empty.
func IsToken(b []byte) bool {
	for _, c := range b {
		if !IsTokenChar(c) {
			return false
		}
	}
	return len(b) > 0
}

// IsFieldValue reports whether b has only VCHAR, obs-text, SP and HTAB (RFC 9110 §5.5).
func IsFieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// IsDigit reports whether c is DIGIT.
func IsDigit(c byte) bool { return '0' <= c && c <= '9' }

// IsHexDigit reports whether c is HEXDIG, in either case.
func IsHexDigit(c byte) bool { return IsDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// ParseLength reads the value of Content-Length: 1*DIGIT (RFC 9110 §8.6), of at most 18
// digits, which cannot overflow.
func ParseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return NoLength, false
	}
	for _, d := range b {
		if !IsDigit(d) {
			return NoLength, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}
