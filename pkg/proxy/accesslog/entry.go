package accesslog

import (
	"net/netip"
	"time"
	"unicode/utf8"
)

// Bounds of the copied fields in bytes. What is longer is cut there, at a
// character's start, and marked with "…" in the line.
const (
	MaxMethod    = 32
	MaxAuthority = 128
	MaxUserAgent = 160
	MaxPath      = 704
)

const maxCopied = MaxMethod + MaxAuthority + MaxUserAgent + MaxPath

// Entry is what is logged of one request, or of one relayed connection, at its end.
//
// The byte fields may point into the connection's read buffer: Record copies
// them. The strings are kept by reference until their slot is written and
// reused, so they must be real, immutable strings of configuration and tables.
// Zero fields are left out of JSON and are "-" in text.
type Entry struct {
	Start            time.Time     // when the request's first byte was read
	Duration         time.Duration // until the last byte of the response was written
	UpstreamDuration time.Duration // of the last attempt, until its response head, or until it was connected; 0 without one

	Method    []byte
	Path      []byte // with the query
	Authority []byte // of a relayed connection, the server's name that its TLS has
	UserAgent []byte

	Protocol    string // "HTTP/1.1", "HTTP/2", "TCP"
	Source      string // who called, "unknown" where nobody can say
	Destination string // the service called
	Route       string // name of the route that led there
	Reason      string // reason code of a response that the sidecar made itself
	Sentence    string // the plain sentence that belongs to Reason
	GRPCStatus  string // of a gRPC call: what its trailers said
	Instance    string // id of the instance that answered
	Upstream    netip.AddrPort
	Client      netip.AddrPort // of a relayed connection

	Status   int    // 0: no response was sent
	Retries  uint32 // attempts after the first
	BytesIn  uint64 // request body; of a relayed connection, all from the client
	BytesOut uint64 // response body; all to the client

	TraceID [16]byte // all zero: none
	Sampled bool     // the trace has spans
}

// record is an Entry whose bytes lie in data: method, path, authority and user
// agent, one after the other.
type record struct {
	entry Entry // its byte fields point into data
	cut   cutFields
	data  [maxCopied]byte
}

// cutFields says which fields were longer than their bound.
type cutFields struct{ method, path, authority, userAgent bool }

// set copies e. It does not allocate.
func (r *record) set(e *Entry) {
	r.entry = *e
	free := r.data[:0:maxCopied]
	r.entry.Method, r.cut.method, free = keep(free, e.Method, MaxMethod)
	r.entry.Path, r.cut.path, free = keep(free, e.Path, MaxPath)
	r.entry.Authority, r.cut.authority, free = keep(free, e.Authority, MaxAuthority)
	r.entry.UserAgent, r.cut.userAgent, _ = keep(free, e.UserAgent, MaxUserAgent)
}

// keep appends at most limit bytes of b to dst, which has room for them, and
// returns the copy, whether it was cut, and dst.
func keep(dst, b []byte, limit int) (kept []byte, cut bool, rest []byte) {
	if len(b) > limit {
		b, cut = cutAtRune(b[:limit]), true
	}
	start := len(dst)
	dst = append(dst, b...)
	return dst[start:], cut, dst
}

// cutAtRune drops an incomplete UTF-8 sequence at the end of b.
func cutAtRune(b []byte) []byte {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax-1; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return b
			}
			return b[:i]
		}
	}
	return b
}
