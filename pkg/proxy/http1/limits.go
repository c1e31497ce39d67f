package http1

import "github.com/fairlead-mesh/fairlead/pkg/proxy/wire"

// Limits bound what a peer can make a connection keep. Zero fields mean the default.
type Limits struct {
	// RequestLine is the longest request line, in bytes. Default 8 kB (RFC 9112 §3
	// recommends at least 8,000 octets). Past it: 414.
	RequestLine int
	// HeadBytes is the largest head, in bytes. Default 60 kB, Envoy's. Past it: 431.
	HeadBytes int
	// Fields is the most fields of a head, and of trailers. Default 100. Past it: 431.
	Fields int
	// PortNames lets authorities name a port (orders:http), as in a mesh. Elsewhere they are malformed.
	PortNames bool
}

// ForPeers are the limits of what sidecars send: what they add to a head that is as large as
// the default limits allow, and what HTTP/2 counts for each field (RFC 9113 §6.5.2), fits.
func ForPeers() Limits { return Limits{HeadBytes: 72 << 10, Fields: 112} }

func (l *Limits) withDefaults() Limits {
	full := Limits{RequestLine: 8 << 10, HeadBytes: 60 << 10, Fields: 100}
	if l == nil {
		return full
	}
	if l.RequestLine > 0 {
		full.RequestLine = l.RequestLine
	}
	if l.HeadBytes > 0 {
		full.HeadBytes = l.HeadBytes
	}
	if l.Fields > 0 {
		full.Fields = l.Fields
	}
	full.PortNames = l.PortNames
	return full
}

const (
	// maxChunkLine bounds the line of a chunk's size, in bytes, without its CRLF. RFC 9112
	// §7.1.1: "A server ought to limit the total length of chunk extensions received in a
	// request". Nobody uses them.
	maxChunkLine = 256
	// maxTrailerBytes bounds the lines of the trailer section together, in bytes.
	maxTrailerBytes = 8 << 10
)

// The faults of messages, each with the sentence that decides.
var (
	// RFC 9112 §2.2: "a recipient … MAY recognize a single LF as a line terminator":
	// this one does not, since others may not.
	errBareLF = &wire.Error{Status: 400, Text: "a line ends with LF alone instead of CRLF"}
	// RFC 9112 §2.2: "A recipient of such a bare CR MUST consider that element to be
	// invalid or replace each bare CR with SP".
	errBareCR = &wire.Error{Status: 400, Text: "a line contains CR that is not followed by LF"}
	// RFC 9112 §3: request-line = method SP request-target SP HTTP-version.
	errRequestLine = &wire.Error{Status: 400, Text: "the request line is not METHOD SP target SP HTTP/1.1"}
	// RFC 9112 §3.1: method = token.
	errMethod = &wire.Error{Status: 400, Text: "the method has a character that is not allowed in a token"}
	// RFC 9112 §3.2: "Recipients of an invalid request-line SHOULD respond with either a 400
	// (Bad Request) error or a 301 … A recipient SHOULD NOT attempt to autocorrect".
	errTarget = &wire.Error{Status: 400, Text: "the request target is not valid"}
	// RFC 9110 §9.3.6: "A server MUST reject a CONNECT request that targets an empty or invalid port
	// number"; RFC 9112 §3.2.3: authority-form = uri-host ":" port.
	errTunnelTarget = &wire.Error{Status: 400, Text: "the target of CONNECT is not a host and a port from 1 to 65535"}
	// RFC 9110 §7.4: an https request "MUST be rejected unless it has been received over a connection that has been secured".
	errInsecure = &wire.Error{Status: 421, Text: "the request target is https, and the connection has no TLS: call it with http, or ask for a tunnel with CONNECT and speak TLS in that"}
	// RFC 9112 §2.3: HTTP-version = HTTP-name "/" DIGIT "." DIGIT.
	errVersion = &wire.Error{Status: 400, Text: "the HTTP version is malformed"}
	// RFC 9110 §6.2: "A server can send a 505 (HTTP Version Not Supported) response if it
	// wishes, for any reason, to refuse service of the client's major protocol version." So
	// are minor versions above 1 refused, which §6.2 would rather have taken for 1.1: there
	// are none, and who sends one means something that nobody here knows.
	errVersionNumber = &wire.Error{Status: 505, Text: "only HTTP/1.0 and HTTP/1.1 are spoken here"}
	// RFC 9112 §3: "a server that receives a request-target longer than any URI it
	// wishes to parse MUST respond with a 414 (URI Too Long) status code".
	errLineTooLong = &wire.Error{Status: 414, Text: "the request line is longer than the limit"}
	// RFC 6585 §5: 431 "indicates that the server is unwilling to process the request because
	// its header fields are too large".
	errHeadTooLarge  = &wire.Error{Status: 431, Text: "the head is larger than the limit"}
	errTooManyFields = &wire.Error{Status: 431, Text: "the head has more fields than the limit"}
	// RFC 9112 §5.1: "A server MUST reject, with a response status code of 400 (Bad Request),
	// any received request message that contains whitespace between a header field name
	// and colon." RFC 9110 §5.1: field-name = token.
	errFieldName = &wire.Error{Status: 400, Text: "a field name is empty or has a character that is not allowed in a token"}
	// RFC 9112 §5: field-line = field-name ":" OWS field-value OWS.
	errNoColon = &wire.Error{Status: 400, Text: "a field line has no colon"}
	// RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid
	// and dangerous".
	errFieldValue = &wire.Error{Status: 400, Text: "a field value has a control character"}
	// RFC 9112 §5.2: "A server that receives an obs-fold … MUST either reject the
	// message by sending a 400 …".
	errFold = &wire.Error{Status: 400, Text: "a field line is folded"}
	// RFC 9110 §7.6.1: what Connection names must be removed, so what is too much to
	// look through cannot be passed on.
	errManyOptions = &wire.Error{Status: 400, Text: "Connection names more options than the limit"}
	// RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to any
	// HTTP/1.1 request message that lacks a Host header field and to any request message that
	// contains more than one Host header field line or a Host header field with an invalid
	// field value."
	errNoHost    = &wire.Error{Status: 400, Text: "an HTTP/1.1 request needs a Host field"}
	errManyHosts = &wire.Error{Status: 400, Text: "the request has more than one Host field"}
	errHost      = &wire.Error{Status: 400, Text: "the Host field is not a host with an optional port"}
	// RFC 9110 §8.6: Content-Length = 1*DIGIT; RFC 9112 §6.3, 5: otherwise "the message
	// framing is invalid and the recipient MUST treat it as an unrecoverable error", but for
	// lists of one number, which it lets a recipient take; this one does not.
	errContentLength = &wire.Error{Status: 400, Text: "Content-Length is not a single number"}
	// RFC 9112 §6.1: "A server MAY reject a request that contains both Content-Length
	// and Transfer-Encoding".
	errBothFramings = &wire.Error{Status: 400, Text: "Content-Length and Transfer-Encoding are both given"}
	// RFC 9112 §6.1: "A server that receives a request message with a transfer coding
	// it does not understand SHOULD respond with 501".
	errTransferCoding = &wire.Error{Status: 501, Text: "only the transfer coding chunked is understood"}
	// RFC 9112 §6.1: "A sender MUST NOT apply the chunked transfer coding more than once to a
	// message body". Several fields are one list, of which only "chunked" is understood.
	errManyCodings = &wire.Error{Status: 400, Text: "Transfer-Encoding is given more than once"}
	// RFC 9112 §6.1: "A server or client that receives an HTTP/1.0 message containing
	// a Transfer-Encoding header field MUST treat the message as if the framing is faulty".
	errCodingIn10 = &wire.Error{Status: 400, Text: "Transfer-Encoding in an HTTP/1.0 message"}
	// RFC 9110 §10.1.1: "A server that receives an Expect field value containing a member
	// other than 100-continue MAY respond with a 417 (Expectation Failed) status code".
	errExpect = &wire.Error{Status: 417, Text: "only the expectation 100-continue is understood"}
	// RFC 9110 §9.3.6: "A CONNECT request message does not have content." What some take
	// for content is the beginning of the tunnel to others.
	errConnectContent = &wire.Error{Status: 400, Text: "CONNECT has no content, so it says nothing of how that ends"}
	// RFC 9112 §4: status-line = HTTP-version SP status-code SP [ reason-phrase ].
	errStatusLine = &wire.Error{Status: 502, Text: "the status line is not HTTP/1.1 SP status SP reason"}
	// RFC 9112 §7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF.
	errChunk = &wire.Error{Status: 400, Text: "a chunk is malformed"}
	// RFC 9112 §7.1.2: trailer-section = *( field-line CRLF ).
	errTrailers = &wire.Error{Status: 400, Text: "the trailers are malformed or too large"}
	// Of the writing half: what must not be sent.
	errUnsendable = &wire.Error{Status: 500, Text: "the head cannot be written: it would not be read as it is meant"}
)
