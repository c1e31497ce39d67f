package tracing

import "encoding/hex"

// parseTraceParent reads a traceparent (W3C Trace Context Level 2, section 3.2):
// version "-" trace-id "-" parent-id "-" trace-flags, in lower-case hexadecimal.
//
// "Version 255 is invalid." A version that is not known is read as far as 00
// goes, if it ends there or goes on with a dash; version 00 must end there.
//
// It reports whether b is one; otherwise c, which must be zero, stays so.
func parseTraceParent(c *Context, b []byte) bool {
	if len(b) < TraceParentLength || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return false
	}
	version, ok := hexByte(b[0], b[1])
	if !ok || version == 0xff {
		return false
	}
	if len(b) > TraceParentLength && (version == 0 || b[TraceParentLength] != '-') {
		return false
	}
	flags, ok := hexByte(b[53], b[54])
	if !ok {
		return false
	}
	if !decodeID(c.TraceID[:], b[3:35]) || !decodeID(c.SpanID[:], b[36:52]) {
		c.TraceID, c.SpanID = [16]byte{}, [8]byte{}
		return false
	}
	c.Sampling = SamplingNo
	if flags&flagSampled != 0 {
		c.Sampling = SamplingYes
	}
	c.Random = flags&flagRandom != 0
	return true
}

// parseB3Single reads a b3 header (openzipkin/b3-propagation, "Single Header"):
// TraceId "-" SpanId [ "-" SamplingState [ "-" ParentSpanId ] ], or the sampling
// state alone.
func parseB3Single(b []byte) (c Context, ok bool) {
	if len(b) == 1 {
		c.Sampling, ok = b3State(b[0])
		return c, ok
	}
	traceLength := 32
	if len(b) > 16 && b[16] == '-' {
		traceLength = 16
	}
	spanEnd := traceLength + 1 + 16
	if len(b) < spanEnd || b[traceLength] != '-' {
		return Context{}, false
	}
	if !decodeTraceID(&c, b[:traceLength]) || !decodeID(c.SpanID[:], b[traceLength+1:spanEnd]) {
		return Context{}, false
	}
	rest := b[spanEnd:]
	if len(rest) == 0 {
		return c, true
	}
	if len(rest) < 2 || rest[0] != '-' {
		return Context{}, false
	}
	if c.Sampling, ok = b3State(rest[1]); !ok {
		return Context{}, false
	}
	rest = rest[2:]
	if len(rest) == 0 {
		return c, true
	}
	// The parent is of no use here, as the server span is a new one, but what
	// is broken there makes the header untrustworthy.
	var parent [8]byte
	if len(rest) != 1+16 || rest[0] != '-' || !decodeID(parent[:], rest[1:]) {
		return Context{}, false
	}
	return c, true
}

// parseB3Multi reads the X-B3 headers (openzipkin/b3-propagation, "Multiple
// Headers"). Both ids are there, or neither and a decision.
func parseB3Multi(in *Incoming) (c Context, ok bool) {
	if c.Sampling, ok = b3MultiState(in.XB3Sampled, in.XB3Flags); !ok {
		return Context{}, false
	}
	if len(in.XB3TraceID) == 0 && len(in.XB3SpanID) == 0 {
		return c, c.Sampling != SamplingDeferred
	}
	if !decodeTraceID(&c, in.XB3TraceID) || !decodeID(c.SpanID[:], in.XB3SpanID) {
		return Context{}, false
	}
	return c, true
}

// b3MultiState: "Debug implies an accept decision, so don't also send the
// X-B3-Sampled header." Old senders write true and false.
func b3MultiState(sampled, flags []byte) (Sampling, bool) {
	if string(flags) == "1" {
		return SamplingDebug, true
	}
	switch string(sampled) {
	case "":
		return SamplingDeferred, true
	case "0", "false":
		return SamplingNo, true
	case "1", "true":
		return SamplingYes, true
	default:
		return SamplingDeferred, false
	}
}

func b3State(b byte) (Sampling, bool) {
	switch b {
	case '0':
		return SamplingNo, true
	case '1':
		return SamplingYes, true
	case 'd':
		return SamplingDebug, true
	default:
		return SamplingDeferred, false
	}
}

// decodeTraceID reads an id of 128 bits, or one of 64 into the low half.
func decodeTraceID(c *Context, b []byte) bool {
	if len(b) == 16 {
		return decodeID(c.TraceID[8:], b)
	}
	return decodeID(c.TraceID[:], b)
}

// decodeID reads lower-case hexadecimal of exactly dst's length. All zero is no
// id (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).
//
// Ids are random, so a branch per digit would be mispredicted every other time;
// there is none.
func decodeID(dst, b []byte) bool {
	if len(b) != 2*len(dst) {
		return false
	}
	var upper byte // gets bit 6 where a digit has it and lacks bit 5, as A to F do
	for _, digit := range b {
		upper |= digit &^ (digit << 1) & 0x40
	}
	if _, err := hex.Decode(dst, b); err != nil || upper != 0 {
		return false
	}
	var some byte
	for _, v := range dst {
		some |= v
	}
	return some != 0
}

func hexByte(high, low byte) (byte, bool) {
	h, l := hexDigit(high), hexDigit(low)
	return h<<4 | l, h < 16 && l < 16
}

// hexDigit returns the value of a lower-case digit, or 16 and more.
func hexDigit(b byte) byte {
	switch {
	case b >= '0' && b <= '9':
		return b - '0'
	case b >= 'a' && b <= 'f':
		return b - 'a' + 10
	default:
		return 0xff
	}
}
