package rpc

// Code is the status of a call (statuscodes.md).
type Code uint8

// The statuses, and NoCode for a call that has none, or none that is known.
const (
	OK Code = iota
	Cancelled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
	NoCode
)

// Codes is how many statuses there are.
const Codes = int(NoCode)

// String returns the status's name, such as DEADLINE_EXCEEDED; nothing for NoCode.
func (c Code) String() string {
	return [...]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
		"UNAUTHENTICATED", "",
	}[min(c, NoCode)]
}

// Names lists the statuses by number.
func Names() []string {
	names := make([]string, Codes)
	for c := range names {
		names[c] = Code(c).String()
	}
	return names
}

// Parse reads a grpc-status: "Status → 'grpc-status' 1*DIGIT ; 0-9". nil, where there is
// no such field, is NoCode; what is no status of gRPC's is Unknown.
func Parse(value []byte) Code {
	if value == nil {
		return NoCode
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' || n >= Codes {
			return Unknown
		}
		n = 10*n + int(c-'0')
	}
	if len(value) == 0 || n >= Codes {
		return Unknown
	}
	return Code(n)
}

// Append appends a status as a grpc-status says it.
func (c Code) Append(dst []byte) []byte {
	if c >= 10 {
		dst = append(dst, '0'+byte(c/10))
	}
	return append(dst, '0'+byte(c%10))
}

// FromHTTP returns how a call has ended that was answered with an HTTP status and no
// grpc-status (http-grpc-status-mapping.md).
func FromHTTP(status int) Code {
	switch status {
	case 400:
		return Internal
	case 401:
		return Unauthenticated
	case 403:
		return PermissionDenied
	case 404:
		return Unimplemented
	case 429, 502, 503, 504:
		return Unavailable
	}
	return Unknown
}

// FromReset returns how a call has ended whose stream was reset with an error code of
// HTTP/2 (PROTOCOL-HTTP2.md, Errors).
func FromReset(code uint32) Code {
	switch code {
	case 0x7: // REFUSED_STREAM
		return Unavailable
	case 0x8: // CANCEL
		return Cancelled
	case 0xb: // ENHANCE_YOUR_CALM
		return ResourceExhausted
	case 0xc: // INADEQUATE_SECURITY
		return PermissionDenied
	}
	return Internal
}

// AppendMessage appends a text as a grpc-message: "Percent-Byte-Unencoded → 1*( %x20-%x24
// / %x26-%x7E ) ; space and VCHAR, except %".
func AppendMessage(dst []byte, text string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(text) {
		c := text[i]
		if c < ' ' || c > '~' || c == '%' || (c == ' ' && (i == 0 || i == len(text)-1)) {
			// White space at an end would not survive as a field's value.
			dst = append(dst, '%', hex[c>>4], hex[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}
