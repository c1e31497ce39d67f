package accesslog

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// maxLine is above what a usual line takes, so that the buffer seldom grows:
// copied bytes at their longest escaping (\u00XX) and 2 kB for the rest.
const maxLine = 6*maxCopied + 2<<10

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

const ellipsis = "…"

// appendJSON appends r as one line of JSON. Durations are in milliseconds,
// sizes in bytes.
func appendJSON(dst []byte, r *record) []byte {
	e := &r.entry
	dst = append(dst, `{"time":"`...)
	dst = e.Start.UTC().AppendFormat(dst, timeFormat)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = jsonField(dst, "grpc_status", e.GRPCStatus, false)
	dst = jsonField(dst, "reason", e.Reason, false)
	dst = jsonField(dst, "detail", e.Sentence, false)
	dst = jsonField(dst, "method", e.Method, r.cut.method)
	dst = jsonField(dst, "authority", e.Authority, r.cut.authority)
	dst = jsonField(dst, "path", e.Path, r.cut.path)
	dst = jsonField(dst, "protocol", e.Protocol, false)
	if e.Client.IsValid() {
		dst = append(dst, `,"client":"`...)
		dst = appendAddress(dst, e.Client)
		dst = append(dst, '"')
	}
	dst = jsonField(dst, "source", e.Source, false)
	dst = jsonField(dst, "destination", e.Destination, false)
	dst = jsonField(dst, "route", e.Route, false)
	dst = jsonField(dst, "instance", e.Instance, false)
	if e.Upstream.IsValid() {
		dst = append(dst, `,"upstream":"`...)
		dst = appendAddress(dst, e.Upstream)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"duration_ms":`...)
	dst = appendMillis(dst, e.Duration)
	if e.UpstreamDuration > 0 {
		dst = append(dst, `,"upstream_ms":`...)
		dst = appendMillis(dst, e.UpstreamDuration)
	}
	dst = append(dst, `,"bytes_in":`...)
	dst = strconv.AppendUint(dst, e.BytesIn, 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendUint(dst, e.BytesOut, 10)
	dst = append(dst, `,"retries":`...)
	dst = strconv.AppendUint(dst, uint64(e.Retries), 10)
	if e.TraceID != [16]byte{} {
		dst = append(dst, `,"trace_id":"`...)
		dst = hex.AppendEncode(dst, e.TraceID[:])
		dst = append(dst, `","sampled":`...)
		dst = strconv.AppendBool(dst, e.Sampled)
	}
	dst = jsonField(dst, "user_agent", e.UserAgent, r.cut.userAgent)
	return append(dst, '}', '\n')
}

// jsonField appends ,"name":"value", or nothing for an empty value.
func jsonField[T string | []byte](dst []byte, name string, value T, cut bool) []byte {
	if len(value) == 0 {
		return dst
	}
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return quote(dst, value, cut)
}

// appendText appends r as one line for people:
//
//	TIME SOURCE -> DESTINATION "METHOD AUTHORITY PATH PROTOCOL" STATUS REASON
//	DURATIONms (upstream DURATIONms) grpc=STATUS in=BYTES out=BYTES route=NAME
//	from=CLIENT to=INSTANCE@ADDRESS retries=N trace=ID agent="USER AGENT" "SENTENCE"
func appendText(dst []byte, r *record) []byte {
	e := &r.entry
	dst = e.Start.UTC().AppendFormat(dst, timeFormat)
	dst = word(append(dst, ' '), e.Source, false)
	dst = word(append(dst, " -> "...), e.Destination, false)
	dst = append(dst, ' ', '"')
	dst = word(dst, e.Method, r.cut.method)
	dst = word(append(dst, ' '), e.Authority, r.cut.authority)
	dst = word(append(dst, ' '), e.Path, r.cut.path)
	dst = word(append(dst, ' '), e.Protocol, false)
	dst = append(dst, '"', ' ')
	dst = strconv.AppendInt(dst, int64(e.Status), 10)
	dst = word(append(dst, ' '), e.Reason, false)
	dst = appendMillis(append(dst, ' '), e.Duration)
	dst = append(dst, "ms"...)
	if e.UpstreamDuration > 0 {
		dst = appendMillis(append(dst, " (upstream "...), e.UpstreamDuration)
		dst = append(dst, "ms)"...)
	}
	if e.GRPCStatus != "" {
		dst = word(append(dst, " grpc="...), e.GRPCStatus, false)
	}
	dst = strconv.AppendUint(append(dst, " in="...), e.BytesIn, 10)
	dst = strconv.AppendUint(append(dst, " out="...), e.BytesOut, 10)
	if e.Route != "" {
		dst = word(append(dst, " route="...), e.Route, false)
	}
	if e.Client.IsValid() {
		dst = appendAddress(append(dst, " from="...), e.Client)
	}
	dst = word(append(dst, " to="...), e.Instance, false)
	if e.Upstream.IsValid() {
		dst = appendAddress(append(dst, '@'), e.Upstream)
	}
	dst = strconv.AppendUint(append(dst, " retries="...), uint64(e.Retries), 10)
	if e.TraceID != [16]byte{} {
		dst = hex.AppendEncode(append(dst, " trace="...), e.TraceID[:])
	}
	if len(e.UserAgent) > 0 {
		dst = quote(append(dst, " agent="...), e.UserAgent, r.cut.userAgent)
	}
	if e.Sentence != "" {
		dst = quote(append(dst, ' '), e.Sentence, false)
	}
	return append(dst, '\n')
}

// word appends value escaped, or "-" if it is empty. A space within it is
// escaped too, so that fields can be told apart.
func word[T string | []byte](dst []byte, value T, cut bool) []byte {
	if len(value) == 0 {
		return append(dst, '-')
	}
	return escape(dst, value, cut, ' ')
}

// quote appends value as a JSON string, which text lines use as well.
func quote[T string | []byte](dst []byte, value T, cut bool) []byte {
	dst = append(dst, '"')
	dst = escape(dst, value, cut, '"')
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

// escape appends value as the inside of a JSON string (RFC 8259, section 7).
// Control characters, DEL, the C1 controls and the line separators U+2028 and
// U+2029 are escaped, since terminals and log readers act on them; invalid
// UTF-8 becomes U+FFFD. The byte also, if printable, is escaped besides.
func escape[T string | []byte](dst []byte, value T, cut bool, also byte) []byte {
	plain := 0 // start of the bytes that are copied as they are
	for i := 0; i < len(value); {
		b := value[i]
		if b < utf8.RuneSelf {
			if b >= ' ' && b != '"' && b != '\\' && b != 0x7f && b != also {
				i++
				continue
			}
			dst = append(dst, value[plain:i]...)
			if b == '"' || b == '\\' {
				dst = append(dst, '\\', b)
			} else {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
			}
			i++
			plain = i
			continue
		}
		dst = append(dst, value[plain:i]...)
		r, size := decodeRune(value[i:])
		if r <= 0x9f || r == '\u2028' || r == '\u2029' {
			dst = append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
		} else {
			dst = utf8.AppendRune(dst, r) // RuneError for invalid bytes
		}
		i += size
		plain = i
	}
	dst = append(dst, value[plain:]...)
	if cut {
		dst = append(dst, ellipsis...)
	}
	return dst
}

// decodeRune looks at no more than one character, so that converting to a
// string costs no allocation.
func decodeRune[T string | []byte](value T) (rune, int) {
	return utf8.DecodeRuneInString(string(value[:min(len(value), utf8.UTFMax)]))
}

// appendAddress leaves out the zone of an IPv6 address, which is free text.
func appendAddress(dst []byte, a netip.AddrPort) []byte {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()).AppendTo(dst)
}

// appendMillis appends d in milliseconds with three decimals.
func appendMillis(dst []byte, d time.Duration) []byte {
	micros := max(d, 0).Microseconds()
	dst = strconv.AppendInt(dst, micros/1000, 10)
	fraction := micros % 1000
	return append(dst, '.', '0'+byte(fraction/100), '0'+byte(fraction/10%10), '0'+byte(fraction%10))
}
