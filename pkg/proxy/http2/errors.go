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
	// ErrReleased: the stream was aborted on this side.
	ErrReleased = errors.New("the stream has ended on this side")
	// ErrClosed: the connection has ended.
	ErrClosed = errors.New("the connection has ended")
)

// The faults of connections, each with the sentence that decides.
var (
	// RFC 9113 §3.4: "Clients and servers MUST treat an invalid connection preface as a
	// connection error of type PROTOCOL_ERROR."
	errPreface      = &ConnError{ProtocolError, "the connection does not begin with the preface of HTTP/2"}
	errNoSettings   = &ConnError{ProtocolError, "the first frame is not SETTINGS"}
	errFrameSize    = &ConnError{FrameSizeError, "a frame has a length that its type does not allow"}                                    // §4.2
	errFrameLong    = &ConnError{FrameSizeError, "a frame is longer than SETTINGS_MAX_FRAME_SIZE allows"}                                // §4.2
	errPadding      = &ConnError{ProtocolError, "a frame has more padding than payload"}                                                 // §6.1
	errStreamZero   = &ConnError{ProtocolError, "a frame that belongs to a stream names none"}                                           // §6.1 ff.
	errNotZero      = &ConnError{ProtocolError, "a frame that belongs to the connection names a stream"}                                 // §6.5 ff.
	errIdle         = &ConnError{ProtocolError, "a frame names a stream that was not opened"}                                            // §5.1
	errStreamID     = &ConnError{ProtocolError, "a stream is opened by a number that is not the peer's or not higher than those before"} // §5.1.1
	errClosedStream = &ConnError{StreamClosed, "HEADERS for a stream that has ended"}                                                    // §5.1
	errInBlock      = &ConnError{ProtocolError, "a header block is interrupted by another frame"}                                        // §6.10
	errContinuation = &ConnError{ProtocolError, "CONTINUATION without a header block that it continues"}                                 // §6.10
	errPush         = &ConnError{ProtocolError, "PUSH_PROMISE, which was not asked for"}                                                 // §8.4
	errSetting      = &ConnError{ProtocolError, "a setting has a value that is not allowed"}                                             // §6.5.2
	errWindowSize   = &ConnError{FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is more than 2^31-1"}                                   // §6.5.2
	errWindow       = &ConnError{FlowControlError, "the connection's window grows beyond 2^31-1"}                                        // §6.9.1
	errWindowZero   = &ConnError{ProtocolError, "WINDOW_UPDATE of the connection by nothing"}                                            // §6.9
	errOverrun      = &ConnError{FlowControlError, "more DATA came than the connection's window allows"}                                 // §6.9.1
	errSettingsLate = &ConnError{SettingsTimeout, "the settings were not acknowledged in time"}                                          // §6.5.3
	errPriority     = &ConnError{ProtocolError, "PRIORITY_UPDATE is malformed"}                                                          // RFC 9218 §7.1
	// What a peer may do only so often.
	errBlockLong = &ConnError{EnhanceYourCalm, "a header block is longer than the limit or in too many frames"}
	errSettings  = &ConnError{EnhanceYourCalm, "too many settings in one frame"}
	errNoise     = &ConnError{EnhanceYourCalm, "too many frames that say nothing"}
	errResets    = &ConnError{EnhanceYourCalm, "too many streams were reset"}
	errUnread    = &ConnError{EnhanceYourCalm, "the peer asks and does not read the answers"}
	errHalf      = &ConnError{EnhanceYourCalm, "a frame or a header block was begun and not ended in time"}
	errPing      = &ConnError{NoError, "the peer does not answer PING"}
)

// The faults of messages, for which their stream ends with PROTOCOL_ERROR (RFC 9113 §8.1.1).
var (
	errFieldName     = &wire.Error{Status: 400, Text: "a field name is empty, not lower-case or has a character that is not allowed in a token"} // §8.2.1
	errFieldValue    = &wire.Error{Status: 400, Text: "a field value has a control character, or white space at an end"}                         // §8.2.1
	errConnection    = &wire.Error{Status: 400, Text: "a field about the connection, which HTTP/2 does not have"}                                // §8.2.2
	errTE            = &wire.Error{Status: 400, Text: "TE says something other than trailers"}                                                   // §8.2.2
	errPseudo        = &wire.Error{Status: 400, Text: "a pseudo-header field that is unknown or not allowed here"}                               // §8.3
	errPseudoTwice   = &wire.Error{Status: 400, Text: "a pseudo-header field is given twice"}                                                    // §8.3
	errPseudoLate    = &wire.Error{Status: 400, Text: "a pseudo-header field behind other fields"}                                               // §8.3
	errPseudoMissing = &wire.Error{Status: 400, Text: "a pseudo-header field is missing"}                                                        // §8.3.1
	errMethod        = &wire.Error{Status: 400, Text: ":method is not a token"}
	errScheme        = &wire.Error{Status: 400, Text: ":scheme is not a scheme"}
	errOtherScheme   = &wire.Error{Status: 421, Text: ":scheme is neither http nor https, and no other is served here"} // RFC 9110 §7.4
	errPath          = &wire.Error{Status: 400, Text: ":path is not a path"}
	errAuthority     = &wire.Error{Status: 400, Text: ":authority or Host is not a host with an optional port"}
	errTwoHosts      = &wire.Error{Status: 400, Text: ":authority and Host name different hosts"} // §8.3.1
	errNoAuthority   = &wire.Error{Status: 400, Text: "the request names no authority"}
	errLength        = &wire.Error{Status: 400, Text: "Content-Length is not a single number"}
	errBodyLength    = &wire.Error{Status: 400, Text: "the content is not as long as Content-Length says"} // §8.1.1
	errExpect        = &wire.Error{Status: 417, Text: "only the expectation 100-continue is understood"}   // RFC 9110 §10.1.1
	errTrailers      = &wire.Error{Status: 400, Text: "the trailers are malformed or too large"}
	errManyTrailers  = &wire.Error{Status: 400, Text: "a second head that does not end the message"} // §8.1
	// RFC 9113 §8.5: other frames than DATA and those that manage streams "MUST be treated as
	// a stream error" where a tunnel is.
	errInTunnel      = &wire.Error{Status: 400, Text: "a head inside of a tunnel"}
	errNoHead        = &wire.Error{Status: 502, Text: "DATA before the response's head"}
	errStatus        = &wire.Error{Status: 502, Text: ":status is not a status"}
	errHeadTooLarge  = &wire.Error{Status: 431, Text: "the head is larger than the limit"}
	errTooManyFields = &wire.Error{Status: 431, Text: "the head has more fields than the limit"}
	errManyInterim   = &wire.Error{Status: 502, Text: "too many interim responses"}
	errUnsendable    = &wire.Error{Status: 500, Text: "the head cannot be written: it would not be read as it is meant"}
)
