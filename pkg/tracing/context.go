package tracing

import "encoding/hex"

// Style is a set of header formats.
type Style uint8

// The formats.
const (
	StyleW3C      Style = 1 << iota // traceparent, tracestate
	StyleB3Single                   // b3
	StyleB3Multi                    // X-B3-TraceId and its siblings
)

// Sampling is a decision about a trace.
type Sampling uint8

// The decisions. The zero value means that nobody has decided.
const (
	SamplingDeferred Sampling = iota
	SamplingNo
	SamplingYes
	SamplingDebug // B3's "d": sampled, and every hop should know that it was forced
)

// Context is a place in a trace: on arrival the caller's span, after
// [Tracer.Child] one's own. The zero value is no trace.
type Context struct {
	TraceID  [16]byte // all zero: no trace
	SpanID   [8]byte
	ParentID [8]byte // of a Context from Child: the span it continues; all zero at a root
	Sampling Sampling
	Random   bool  // the W3C random-trace-id flag came: TraceID's last 7 bytes are random
	Remote   bool  // ParentID came over the network
	Style    Style // the formats that came

	// State is the tracestate that came with the trace. It points into the
	// header bytes given to Extract. nil means that none may be forwarded.
	State []byte
}

// Valid reports whether there is a trace.
func (c *Context) Valid() bool { return c.TraceID != [16]byte{} && c.SpanID != [8]byte{} }

// Sampled reports whether spans are to be recorded.
func (c *Context) Sampled() bool { return c.Sampling >= SamplingYes }

// Incoming holds the values of the request headers about traces, nil for what
// is absent. Names are compared without case by the caller. Of a header that
// came more than once, except tracestate, the caller takes none.
type Incoming struct {
	TraceParent []byte // traceparent
	TraceState  []byte // tracestate

	B3 []byte // b3

	XB3TraceID      []byte // X-B3-TraceId
	XB3SpanID       []byte // X-B3-SpanId
	XB3ParentSpanID []byte // X-B3-ParentSpanId; read by nobody, since the server span is a new one
	XB3Sampled      []byte // X-B3-Sampled
	XB3Flags        []byte // X-B3-Flags
}

// Extract reads the trace a request belongs to. Of several formats that carry
// one, W3C goes before B3 single before B3 multi; all that were readable are
// remembered in Style. Without a trace ok is false, and the Context still tells
// the styles and the decision that B3 can send alone ("b3: 0").
//
// It does not allocate and does not keep in, but State points into it.
func Extract(in *Incoming) (c Context, ok bool) {
	if parseTraceParent(&c, in.TraceParent) {
		c.State = in.TraceState
		c.Style = StyleW3C
	}
	// Most requests carry one format at most, and a Context is costly to copy.
	if len(in.B3) > 0 {
		if p, ok := parseB3Single(in.B3); ok {
			c.merge(&p, StyleB3Single)
		}
	}
	if len(in.XB3TraceID)+len(in.XB3Sampled)+len(in.XB3Flags) > 0 {
		if p, ok := parseB3Multi(in); ok {
			c.merge(&p, StyleB3Multi)
		}
	}
	return c, c.Valid()
}

// merge takes from p what the formats of higher rank did not say.
func (c *Context) merge(p *Context, style Style) {
	switch {
	case !c.Valid():
		style |= c.Style
		if c.Sampling != SamplingDeferred {
			p.Sampling = c.Sampling
		}
		*c = *p
	case c.TraceID == p.TraceID && p.Sampling == SamplingDebug:
		c.Sampling = SamplingDebug // W3C cannot say it
	}
	c.Style |= style
}

// The lengths of the headers as they are written here.
const (
	TraceParentLength = 2 + 1 + 32 + 1 + 16 + 1 + 2
	B3SingleLength    = 32 + 1 + 16 + 1 + 1 + 1 + 16 // at most: a root has no parent
)

const (
	flagSampled = 1 << 0
	flagRandom  = 1 << 1
)

// AppendTraceParent appends the value of a traceparent header, version 00.
//
// The random-trace-id flag is sent only if it came, as Level 2 demands; ids
// made here are random as well, but readers of Level 1 refuse the flag.
func AppendTraceParent(dst []byte, c *Context) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, c.TraceID[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, c.SpanID[:])
	var flags byte
	if c.Sampled() {
		flags |= flagSampled
	}
	if c.Random {
		flags |= flagRandom
	}
	return append(dst, '-', '0', '0'+flags)
}

// AppendB3Single appends the value of a b3 header.
func AppendB3Single(dst []byte, c *Context) []byte {
	dst = hex.AppendEncode(dst, c.TraceID[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, c.SpanID[:])
	switch c.Sampling {
	case SamplingDeferred:
		return dst // a parent may only follow a sampling state
	case SamplingNo:
		dst = append(dst, "-0"...)
	case SamplingYes:
		dst = append(dst, "-1"...)
	case SamplingDebug:
		dst = append(dst, "-d"...)
	}
	if c.ParentID != [8]byte{} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, c.ParentID[:])
	}
	return dst
}

// AppendTraceID appends the value of X-B3-TraceId: 32 hexadecimal digits.
func AppendTraceID(dst []byte, c *Context) []byte { return hex.AppendEncode(dst, c.TraceID[:]) }

// AppendSpanID appends the value of X-B3-SpanId: 16 hexadecimal digits.
func AppendSpanID(dst []byte, c *Context) []byte { return hex.AppendEncode(dst, c.SpanID[:]) }

// AppendParentID appends the value of X-B3-ParentSpanId, or nothing for a root.
func AppendParentID(dst []byte, c *Context) []byte {
	if c.ParentID == [8]byte{} {
		return dst
	}
	return hex.AppendEncode(dst, c.ParentID[:])
}

// B3Sampled returns the value of X-B3-Sampled; empty means that the header is
// not sent, which is so for debug, too, where X-B3-Flags is "1".
func (c *Context) B3Sampled() string {
	switch c.Sampling {
	case SamplingNo:
		return "0"
	case SamplingYes:
		return "1"
	default:
		return ""
	}
}

// B3Flags returns the value of X-B3-Flags; empty means that it is not sent.
func (c *Context) B3Flags() string {
	if c.Sampling == SamplingDebug {
		return "1"
	}
	return ""
}
