package http2

import (
	"errors"
	"fmt"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Code is an error code (RFC 9113 §7).
type Code uint32

// The error codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

// String returns the code's name in RFC 9113.
func (c Code) String() string {
	names := [...]string{
		"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
		"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
	}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("error code %d", uint32(c))
}

// ConnError ends a connection: it is what this side found wrong with what came, and
// tells the peer in a GOAWAY (RFC 9113 §5.4.1).
type ConnError struct {
	Code Code
	Text string // one plain sentence, ASCII, without a full stop
}

func (e *ConnError) Error() string { return e.Text + " (" + e.Code.String() + ")" }

// ResetError is the end of a stream by a RST_STREAM: of the peer, or of this side for what the peer
// did on it.
type ResetError struct {
	Code Code
	Ours bool
}

func (e *ResetError) Error() string {
	if e.Ours {
		return "the stream was reset for what the peer did on it: " + e.Code.String()
	}
	return "the peer reset the stream: " + e.Code.String()
}

// Errors of streams.
var (
	// ErrRefused: surely nothing of the request was acted upon (RFC 9113 §8.7), so that
	// it may be sent again.
	ErrRefused = errors.New("the peer did not take the request")
	// ErrNoMore: as ErrRefused, since the connection takes no more streams, and never will.
	ErrNoMore = fmt.Errorf("%w: its connection takes no more", ErrRefused)
	// ErrLeftOut: as ErrRefused, by a peer that has taken streams before it ended the connection in
	// order (GOAWAY with NO_ERROR), as after so many requests or so long a time.
	ErrLeftOut = fmt.Errorf("%w before it ended the connection in order", ErrRefused)
	// ErrReleased: the stream was aborted on this side.
	ErrReleased = errors.New("the stream has ended on this side")
	// ErrClosed: the connection has ended. If the peer broke the protocol, a stream's error is the *ConnError as well.
	ErrClosed = errors.New("the connection has ended")
)

// The faults of connections, each with the sentence of RFC 9113 that decides.
var (
	// §3.4: "Clients and servers MUST treat an invalid connection preface as a connection error
	// of type PROTOCOL_ERROR." Either's ends in a SETTINGS frame, "the first frame".
	errPreface    = &ConnError{ProtocolError, "the connection does not begin with the preface of HTTP/2"}
	errNoSettings = &ConnError{ProtocolError, "the first frame is not SETTINGS"}
	// §4.2: "An endpoint MUST send an error code of FRAME_SIZE_ERROR if a frame exceeds the size
	// defined in SETTINGS_MAX_FRAME_SIZE, exceeds any limit defined for the frame type, or is too
	// small to contain mandatory frame data." Of what type, the sections of §6 say.
	errFrameLong = &ConnError{FrameSizeError, "a frame is longer than SETTINGS_MAX_FRAME_SIZE allows"}
	errFrameSize = &ConnError{FrameSizeError, "a frame has a length that its type does not allow"}
	// §6.1, §6.2: "If the length of the padding is the length of the frame payload or greater,
	// the recipient MUST treat this as a connection error of type PROTOCOL_ERROR."
	errPadding = &ConnError{ProtocolError, "a frame has more padding than payload"}
	// §6.2 to §6.4 and §6.10 as §6.1: "If a DATA frame is received whose Stream Identifier
	// field is 0x00, the recipient MUST respond with a connection error of type PROTOCOL_ERROR."
	errStreamZero = &ConnError{ProtocolError, "a frame that belongs to a stream names none"}
	// §6.7 and §6.8 as §6.5: "If an endpoint receives a SETTINGS frame whose Stream
	// Identifier field is anything other than 0x00, the endpoint MUST respond with a connection
	// error of type PROTOCOL_ERROR."
	errNotZero = &ConnError{ProtocolError, "a frame that belongs to the connection names a stream"}
	// §5.1, idle: "Receiving any frame other than HEADERS or PRIORITY on a stream in this state
	// MUST be treated as a connection error of type PROTOCOL_ERROR."
	errIdle = &ConnError{ProtocolError, "a frame names a stream that was not opened"}
	// §5.1.1: "The identifier of a newly established stream MUST be numerically greater than all
	// streams that the initiating endpoint has opened or reserved … An endpoint that receives an
	// unexpected stream identifier MUST respond with a connection error of type PROTOCOL_ERROR."
	errStreamID = &ConnError{ProtocolError, "a stream is opened by a number that is not the peer's or not higher than those before"}
	// RFC 7540 §5.3.1: "A stream cannot depend on itself." §5.3.2 deprecates all of it; whoever
	// says that all the same is confused about its streams.
	errDependency = &ConnError{ProtocolError, "a stream depends on itself"}
	// §5.1, closed: "An endpoint MAY treat receipt of any other type of frame on a closed stream as
	// a connection error of type STREAM_CLOSED", but for those that may have been under way.
	errClosedStream = &ConnError{StreamClosed, "HEADERS for a stream that has ended"}
	// §6.2: "A HEADERS frame without the END_HEADERS flag set MUST be followed by a CONTINUATION
	// frame for the same stream. A receiver MUST treat the receipt of any other type of frame or a
	// frame on a different stream as a connection error of type PROTOCOL_ERROR."
	errInBlock = &ConnError{ProtocolError, "a header block is interrupted by another frame"}
	// §6.10: "A CONTINUATION frame MUST be preceded by a HEADERS, PUSH_PROMISE or CONTINUATION
	// frame without the END_HEADERS flag set. A recipient that observes violation of this rule
	// MUST respond with a connection error of type PROTOCOL_ERROR."
	errContinuation = &ConnError{ProtocolError, "CONTINUATION without a header block that it continues"}
	// §8.4: "A client cannot push. Thus, servers MUST treat the receipt of a PUSH_PROMISE frame as
	// a connection error of type PROTOCOL_ERROR." As a client, this side has said that it takes
	// none (§6.6).
	errPush = &ConnError{ProtocolError, "PUSH_PROMISE, which was not asked for"}
	// §6.5.2, of each setting that has a range.
	errSetting    = &ConnError{ProtocolError, "a setting has a value that is not allowed"}
	errWindowSize = &ConnError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is more than 2^31-1"}
	// §6.9.1: "If a sender receives a WINDOW_UPDATE that causes a flow-control window to exceed
	// this maximum, it MUST terminate either the stream or the connection, as appropriate."
	errWindow = &ConnError{FlowControlError, "the connection's window grows beyond 2^31-1"}
	// §6.9: "A receiver MUST treat the receipt of a WINDOW_UPDATE frame with a flow-control window
	// increment of 0 as a stream error of type PROTOCOL_ERROR; errors on the connection
	// flow-control window MUST be treated as a connection error".
	errWindowZero = &ConnError{ProtocolError, "WINDOW_UPDATE of the connection by nothing"}
	// §6.9: "A receiver MAY respond with a stream error or connection error of type
	// FLOW_CONTROL_ERROR if it is unable to accept a frame."
	errOverrun = &ConnError{FlowControlError, "more DATA came than the connection's window allows"}
	// §6.5.3: "If the sender of a SETTINGS frame does not receive an acknowledgment within a
	// reasonable amount of time, it MAY issue a connection error of type SETTINGS_TIMEOUT."
	errSettingsLate = &ConnError{SettingsTimeout, "the settings were not acknowledged in time"}
	// RFC 9218 §7.1: "If a PRIORITY_UPDATE frame is received with a Prioritized Stream ID of 0x0, the
	// recipient MUST respond with a connection error of type PROTOCOL_ERROR." The same goes for one
	// of a stream, and for one that a client gets.
	errPriority = &ConnError{ProtocolError, "PRIORITY_UPDATE is malformed"}
	// §10.5: "An endpoint MAY treat activity that is suspicious as a connection error of type
	// ENHANCE_YOUR_CALM." What a peer may do, and how often, stands in guard.go.
	errBlockLong = &ConnError{EnhanceYourCalm, "a header block is longer than the limit or in too many frames"}
	errSettings  = &ConnError{EnhanceYourCalm, "too many settings in one frame"}
	errNoise     = &ConnError{EnhanceYourCalm, "too many frames that say nothing"}
	errResets    = &ConnError{EnhanceYourCalm, "too many streams were reset"}
	errUnread    = &ConnError{EnhanceYourCalm, "the peer asks and does not read the answers"}
	errHalf      = &ConnError{EnhanceYourCalm, "a frame or a header block was begun and not ended in time"}
	errPing      = &ConnError{NoError, "the peer does not answer PING"}
	errRoom      = &ConnError{NoError, "another connection needs the place of this one, which was idle"}
)

// The faults of messages. RFC 9113 §8.1.1: "Malformed requests or responses that are detected MUST
// be treated as a stream error of type PROTOCOL_ERROR." Sections are of RFC 9113.
var (
	// §8.2.1: "A field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or
	// 0x7f-0xff". Nor does a token (RFC 9110 §5.1) have others that would split HTTP/1's lines.
	errFieldName = &wire.Error{Status: 400, Text: "a field name is empty, not lower-case or has a character that is not allowed in a token"}
	// §8.2.1: "A field value MUST NOT contain the zero value (ASCII NUL, 0x00), line feed (ASCII LF,
	// 0x0a), or carriage return (ASCII CR, 0x0d) at any position", nor "start or end with an ASCII
	// whitespace character".
	errFieldValue = &wire.Error{Status: 400, Text: "a field value has a control character, or white space at an end"}
	// §8.2.2: "Any message containing connection-specific header fields MUST be treated as
	// malformed … The only exception to this is the TE header field, which MAY be present in an
	// HTTP/2 request; when it is, it MUST NOT contain any value other than "trailers"."
	errConnection = &wire.Error{Status: 400, Text: "a field about the connection, which HTTP/2 does not have"}
	errTE         = &wire.Error{Status: 400, Text: "TE says something other than trailers"}
	// §8.3: "Endpoints MUST treat a request or response that contains undefined or invalid
	// pseudo-header fields as malformed".
	errPseudo = &wire.Error{Status: 400, Text: "a pseudo-header field that is unknown or not allowed here"}
	// §8.3: "The same pseudo-header field name MUST NOT appear more than once in a field block."
	errPseudoTwice = &wire.Error{Status: 400, Text: "a pseudo-header field is given twice"}
	// §8.3: "All pseudo-header fields MUST appear in a field block before all regular field lines."
	errPseudoLate = &wire.Error{Status: 400, Text: "a pseudo-header field behind other fields"}
	// §8.3.1: "All HTTP/2 requests MUST include exactly one valid value for the ":method",
	// ":scheme", and ":path" pseudo-header fields, unless they are CONNECT requests"; §8.3.2:
	// ":status" "MUST be included in all responses".
	errPseudoMissing = &wire.Error{Status: 400, Text: "a pseudo-header field is missing"}
	errMethod        = &wire.Error{Status: 400, Text: ":method is not a token"}
	errScheme        = &wire.Error{Status: 400, Text: ":scheme is not a scheme"}
	errPath          = &wire.Error{Status: 400, Text: ":path is not a path"}
	// RFC 9110 §15.5.20: 421 "indicates that the request was directed at a server that is unable or
	// unwilling to produce an authoritative response for the target URI".
	errOtherScheme = &wire.Error{Status: 421, Text: ":scheme is neither http nor https, and no other is served here"}
	// §8.3.1: "":authority" MUST NOT include the deprecated userinfo subcomponent", and RFC 9110
	// §7.2: Host = uri-host [ ":" port ].
	errAuthority = &wire.Error{Status: 400, Text: ":authority or Host is not a host with an optional port"}
	// §8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field that
	// identifies an entity that differs from the entity in the ":authority" pseudo-header field."
	errTwoHosts    = &wire.Error{Status: 400, Text: ":authority and Host name different hosts"}
	errNoAuthority = &wire.Error{Status: 400, Text: "the request names no authority"}
	// §8.5: of CONNECT, "the ":authority" pseudo-header field contains the host and port to connect to". RFC 9110
	// §9.3.6: "A server MUST reject a CONNECT request that targets an empty or invalid port number".
	errTunnelTarget = &wire.Error{Status: 400, Text: ":authority of CONNECT is not a host and a port from 1 to 65535"}
	// RFC 9110 §8.6: Content-Length = 1*DIGIT.
	errLength = &wire.Error{Status: 400, Text: "Content-Length is not a single number"}
	// §8.1.1: "A request or response is also malformed if the value of a Content-Length header field
	// does not equal the sum of the DATA frame payload lengths that form the content".
	errBodyLength = &wire.Error{Status: 400, Text: "the content is not as long as Content-Length says"}
	// RFC 9110 §10.1.1: "A server that receives an Expect field value containing a member other than
	// 100-continue MAY respond with a 417 (Expectation Failed) status code".
	errExpect   = &wire.Error{Status: 417, Text: "only the expectation 100-continue is understood"}
	errTrailers = &wire.Error{Status: 400, Text: "the trailers are malformed or too large"}
	// §8.1: "An endpoint that receives a HEADERS frame without the END_STREAM flag set after
	// receiving the HEADERS frame that opens a request or after receiving a final (non-informational)
	// status code MUST treat the corresponding request or response as malformed".
	errManyTrailers = &wire.Error{Status: 400, Text: "a second head that does not end the message"}
	// §8.5: "Frame types other than DATA or stream management frames (RST_STREAM, WINDOW_UPDATE, and
	// PRIORITY) MUST NOT be sent on a connected stream and MUST be treated as a stream error".
	errInTunnel = &wire.Error{Status: 400, Text: "a head inside of a tunnel"}
	// §8.1: a message begins with "one HEADERS frame".
	errNoHead = &wire.Error{Status: 502, Text: "DATA before the response's head"}
	// §8.6: "HTTP/2 does not support the 101 (Switching Protocols) informational status code"; §8.1:
	// "A HEADERS frame with the END_STREAM flag set that carries an informational status code is
	// malformed"; RFC 9110 §15: a status is of three digits, and in "the range 100..599".
	errStatus = &wire.Error{Status: 502, Text: ":status is not a status"}
	// §10.5.1: "A server that receives a larger field block than it is
	// willing to handle can send an HTTP 431 (Request Header Fields Too Large) status code".
	errHeadTooLarge  = &wire.Error{Status: 431, Text: "the head is larger than the limit"}
	errTooManyFields = &wire.Error{Status: 431, Text: "the head has more fields than the limit"}
	// §8.1 lets a server send "any number of interim responses"; no more than these are kept.
	errManyInterim = &wire.Error{Status: 502, Text: "too many interim responses"}
	// Of the writing half: what must not be sent.
	errUnsendable = &wire.Error{Status: 500, Text: "the head cannot be written: it would not be read as it is meant"}
)
