package http2

import (
	"bytes"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2/hpack"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// blockKind is what a header block is.
type blockKind uint8

const (
	requestBlock blockKind = iota
	responseBlock
	trailerBlock
	endedBlock // of a stream that the peer has ended
	discarded  // of a stream that is not there any more: it is decoded for the table's sake
)

// Bits of the pseudo-header fields that were seen.
const (
	sawMethod = 1 << iota
	sawScheme
	sawAuthority
	sawPath
	sawStatus
	sawProtocol
)

// block is the reading of one header block into a head.
type block struct {
	kind    blockKind
	head    *wire.Head
	most    int  // fields
	names   bool // authorities may name a port
	pseudo  uint8
	regular bool // a field that is no pseudo-header field was seen
	host    []byte
	hosts   int
	lengths int
	cookies int
	fault   *wire.Error // the first; nil: none
}

// field takes the next field. Its bytes are the decoder's until the next one.
func (b *block) field(f *hpack.Field) {
	switch {
	case b.fault != nil || b.kind >= endedBlock:
	case len(f.Name) > 0 && f.Name[0] == ':':
		b.fault = b.pseudoField(f.Name, f.Value)
	default:
		b.regular = true
		b.fault = b.regularField(f)
	}
}

// pseudoField takes a pseudo-header field (RFC 9113 §8.3).
func (b *block) pseudoField(name, value []byte) *wire.Error {
	if b.regular {
		return errPseudoLate
	}
	var bit uint8
	var into *[]byte
	h := b.head
	switch string(name) {
	case ":method":
		bit, into = sawMethod, &h.Method
	case ":scheme":
		bit, into = sawScheme, &h.Scheme
	case ":authority":
		bit, into = sawAuthority, &h.Authority
	case ":path":
		bit, into = sawPath, &h.Path
	case ":protocol":
		bit, into = sawProtocol, &h.Protocol
	case ":status":
		bit = sawStatus
	default:
		return errPseudo
	}
	if (bit == sawStatus) != (b.kind == responseBlock) || b.kind == trailerBlock {
		return errPseudo
	}
	if b.pseudo&bit != 0 {
		return errPseudoTwice
	}
	b.pseudo |= bit
	if into != nil {
		*into = h.Own(value)
		return nil
	}
	if len(value) != 3 {
		return errStatus
	}
	for _, d := range value {
		if !wire.IsDigit(d) {
			return errStatus
		}
		h.Status = 10*h.Status + int(d-'0')
	}
	// RFC 9113 §8.6: "HTTP/2 does not support the 101 (Switching Protocols) informational status
	// code".
	if h.Status < 100 || h.Status > 599 || h.Status == 101 {
		return errStatus
	}
	return nil
}

// regularField takes a field (RFC 9113 §8.2).
func (b *block) regularField(f *hpack.Field) *wire.Error {
	value := f.Value
	if !isLowerToken(f.Name) {
		return errFieldName
	}
	if !isValue(value) {
		return errFieldValue
	}
	h := b.head
	if len(h.Fields) >= b.most {
		return errTooManyFields
	}
	switch f.ID {
	case wire.Connection, wire.KeepAlive, wire.ProxyConnection, wire.TransferEncoding, wire.Upgrade:
		return errConnection
	case wire.TE:
		if !wire.EqualFold(value, "trailers") {
			return errTE
		}
	case wire.Host:
		if b.kind != requestBlock {
			break
		}
		b.hosts++
		b.host = h.Own(value)
		return nil // Authority counts
	case wire.ContentLength:
		if b.kind == trailerBlock {
			return nil
		}
		b.lengths++
		n, ok := wire.ParseLength(value)
		if !ok || b.lengths > 1 {
			return errLength
		}
		h.ContentLength = n
		return nil // the writer makes it anew
	case wire.Cookie:
		b.cookies++
	case wire.Expect:
		if b.kind != requestBlock {
			break
		}
		if !wire.EqualFold(value, "100-continue") {
			return errExpect
		}
		h.ExpectContinue = true
		value = []byte("100-continue") // the value is case-insensitive (RFC 9110 §10.1.1), but there are servers to whom it is not
	}
	if b.kind == trailerBlock && !wire.TrailerAllowed(f.ID) {
		return nil
	}
	h.AddDecoded(f.Name, value, f.ID, f.Sensitive)
	return nil
}

// finish checks what the head as a whole says.
func (b *block) finish() *wire.Error {
	b.head.Proto = wire.HTTP2
	if b.fault != nil {
		return b.fault
	}
	switch b.kind {
	case requestBlock:
		return b.finishRequest()
	case responseBlock:
		if b.pseudo&sawStatus == 0 {
			return errPseudoMissing
		}
	}
	return nil
}

// finishRequest checks a request's control data, and which authority is meant (RFC 9113 §8.3.1,
// §8.5).
func (b *block) finishRequest() *wire.Error {
	h := b.head
	switch {
	case b.pseudo&sawMethod == 0:
		return errPseudoMissing
	case !wire.IsToken(h.Method):
		return errMethod
	case b.pseudo&sawProtocol != 0 && (string(h.Method) != "CONNECT" || !wire.IsToken(h.Protocol)):
		// RFC 8441 §4: the field ":protocol" "MAY be included on request HEADERS indicating the
		// desired protocol to be spoken on the tunnel created by CONNECT".
		return errPseudo
	}
	if string(h.Method) == "CONNECT" && b.pseudo&sawProtocol == 0 {
		// RFC 9113 §8.5: "The ':scheme' and ':path' pseudo-header fields MUST be omitted."
		if b.pseudo&(sawScheme|sawPath) != 0 {
			return errPseudo
		}
	} else {
		// §8.3.1: "All HTTP/2 requests MUST include exactly one valid value for the ":method",
		// ":scheme", and ":path" pseudo-header fields, unless they are CONNECT requests".
		if b.pseudo&sawScheme == 0 || b.pseudo&sawPath == 0 {
			return errPseudoMissing
		}
		if !isScheme(h.Scheme) {
			return errScheme
		}
		if !isPath(h.Path, h.Method) {
			return errPath
		}
		// RFC 9110 §4.2: what is called here is http or https. Hosts would refuse others with an
		// error of the stream, and be held to have failed. §4.2.3: schemes are lower-case.
		switch {
		case wire.EqualFold(h.Scheme, "http"):
			h.Scheme = httpScheme
		case wire.EqualFold(h.Scheme, "https"):
			h.Scheme = httpsScheme
		default:
			return errOtherScheme
		}
	}
	if b.hosts > 1 || b.hosts == 1 && !wire.IsAuthority(b.host) {
		return errAuthority
	}
	switch {
	case b.pseudo&sawAuthority == 0 && b.hosts == 0 && string(h.Method) == "CONNECT":
		return errNoAuthority // RFC 9113 §8.5, RFC 8441 §4: it says where the tunnel ends
	case b.pseudo&sawAuthority == 0:
		// RFC 9113 §8.3.1: an intermediary says it "unless the original request's target URI does
		// not contain authority information (in which case it MUST NOT generate ":authority")", as
		// that of HTTP/1.0 without Host does not. Then none is known here either.
		h.Authority = b.host
	case !wire.IsAuthority(h.Authority):
		return errAuthority
	// §8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field
	// that identifies an entity that differs from the entity in the ":authority"
	// pseudo-header field."
	case b.hosts == 1 && !bytes.EqualFold(b.host, h.Authority):
		return errTwoHosts
	}
	if string(h.Method) == "CONNECT" && b.pseudo&sawProtocol == 0 && !wire.NamesTunnel(h.Authority) {
		return errTunnelTarget
	}
	if !b.names && (wire.NamesPort(b.host) || wire.NamesPort(h.Authority)) {
		return errAuthority
	}
	if b.cookies > 1 {
		// RFC 9113 §8.2.3: before they go anywhere else, "these MUST be concatenated into a single
		// octet string using the two-octet delimiter of 0x3b, 0x20 (the ASCII string "; ")".
		h.Join(wire.Cookie, "; ")
	}
	return nil
}

// isLowerToken reports whether b is a token without upper-case letters (RFC 9113 §8.2.1).
func isLowerToken(b []byte) bool {
	for _, c := range b {
		if !wire.IsTokenChar(c) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return len(b) > 0
}

// isValue reports whether b is a field value without white space around it (RFC 9113 §8.2.1).
func isValue(b []byte) bool {
	return wire.IsFieldValue(b) && len(wire.Trim(b)) == len(b)
}

// isScheme: ALPHA *( ALPHA / DIGIT / "+" / "-" / "." ) (RFC 3986 §3.1).
func isScheme(b []byte) bool {
	for i, c := range b {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !wire.IsDigit(c) && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return len(b) > 0
}

// isPath: what begins with '/', or '*' for OPTIONS. RFC 9113 §8.3.1: "This pseudo-header field MUST
// NOT be empty for "http" or "https" URIs; "http" or "https" URIs that do not contain a path
// component MUST include a value of '/'."
func isPath(b, method []byte) bool {
	if len(b) == 1 && b[0] == '*' {
		return string(method) == "OPTIONS"
	}
	return len(b) > 0 && b[0] == '/' && wire.IsTarget(b)
}
