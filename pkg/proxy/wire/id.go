package wire

// ID is a field name that the proxy knows. Names are compared without case
// (RFC 9110 §5.1).
type ID uint8

// The known names. Other is every other one.
const (
	Other ID = iota
	Accept
	B3
	Connection
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	FairleadCase
	FairleadHops
	FairleadPeer
	FairleadPeerFailure
	FairleadReason
	GRPCMessage
	GRPCRetryPushback
	GRPCStatus
	GRPCTimeout
	HTTP2Settings
	Host
	KeepAlive
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	RetryAfter
	SecWebSocketAccept
	SecWebSocketKey
	TE
	Traceparent
	Tracestate
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	XB3Flags
	XB3ParentSpanID
	XB3Sampled
	XB3SpanID
	XB3TraceID
	XEnvoyExternalAddress
	XForwardedFor
	XForwardedProto
)

// longest is the length of the longest known name.
const longest = len("x-envoy-external-address")

// Lookup returns the ID of a name.
func Lookup(name []byte) ID {
	if len(name) > longest {
		return Other
	}
	var buf [longest]byte
	lower := buf[:len(name)]
	for i, c := range name {
		lower[i] = toLower(c)
	}
	switch string(lower) {
	case "accept":
		return Accept
	case "b3":
		return B3
	case "connection":
		return Connection
	case "content-length":
		return ContentLength
	case "content-type":
		return ContentType
	case "cookie":
		return Cookie
	case "date":
		return Date
	case "expect":
		return Expect
	case "fairlead-case":
		return FairleadCase
	case "fairlead-hops":
		return FairleadHops
	case "fairlead-peer":
		return FairleadPeer
	case "fairlead-peer-failure":
		return FairleadPeerFailure
	case "fairlead-reason":
		return FairleadReason
	case "grpc-message":
		return GRPCMessage
	case "grpc-retry-pushback-ms":
		return GRPCRetryPushback
	case "grpc-status":
		return GRPCStatus
	case "grpc-timeout":
		return GRPCTimeout
	case "http2-settings":
		return HTTP2Settings
	case "host":
		return Host
	case "keep-alive":
		return KeepAlive
	case "proxy-authenticate":
		return ProxyAuthenticate
	case "proxy-authorization":
		return ProxyAuthorization
	case "proxy-connection":
		return ProxyConnection
	case "retry-after":
		return RetryAfter
	case "sec-websocket-accept":
		return SecWebSocketAccept
	case "sec-websocket-key":
		return SecWebSocketKey
	case "te":
		return TE
	case "traceparent":
		return Traceparent
	case "tracestate":
		return Tracestate
	case "trailer":
		return Trailer
	case "transfer-encoding":
		return TransferEncoding
	case "upgrade":
		return Upgrade
	case "user-agent":
		return UserAgent
	case "x-b3-flags":
		return XB3Flags
	case "x-b3-parentspanid":
		return XB3ParentSpanID
	case "x-b3-sampled":
		return XB3Sampled
	case "x-b3-spanid":
		return XB3SpanID
	case "x-b3-traceid":
		return XB3TraceID
	case "x-envoy-external-address":
		return XEnvoyExternalAddress
	case "x-forwarded-for":
		return XForwardedFor
	case "x-forwarded-proto":
		return XForwardedProto
	}
	return Other
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// EqualFold reports whether b is the lower-case ASCII text, whatever its case.
func EqualFold(b []byte, text string) bool {
	if len(b) != len(text) {
		return false
	}
	for i := range b {
		if toLower(b[i]) != text[i] {
			return false
		}
	}
	return true
}
