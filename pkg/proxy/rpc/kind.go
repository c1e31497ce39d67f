package rpc

import "github.com/fairlead-mesh/fairlead/pkg/proxy/wire"

// Kind is what a request is, as far as gRPC goes.
type Kind uint8

// The kinds. The zero value is a request that is no call.
const (
	None    Kind = iota
	GRPC         // application/grpc, on HTTP/2
	Web          // application/grpc-web: the trailers come in the body
	WebText      // application/grpc-web-text: and the body is in base64
)

// IsWeb reports whether a call is one of gRPC-Web's.
func (k Kind) IsWeb() bool { return k >= Web }

const (
	typeGRPC = "application/grpc"
	typeWeb  = "application/grpc-web"
	typeText = "application/grpc-web-text"
)

// KindOf returns what a request is. "Request-Headers → Call-Definition …; Call-Definition
// → Method Scheme Path …; Method → ':method POST'; Content-Type → 'content-type'
// 'application/grpc' [('+proto' / '+json' / {custom})]".
func KindOf(method, contentType []byte) Kind {
	if len(contentType) < len(typeGRPC) || string(method) != "POST" {
		return None
	}
	return KindOfType(contentType)
}

// KindOfType returns what a message of a Content-Type is, a response's too.
func KindOfType(contentType []byte) Kind {
	switch {
	case !wire.EqualFold(contentType[:min(len(contentType), len(typeGRPC))], typeGRPC):
		return None
	case ends(contentType, typeGRPC):
		return GRPC
	case ends(contentType, typeWeb):
		return Web
	case ends(contentType, typeText):
		return WebText
	}
	return None // such as application/grpcx
}

// ends reports whether b is the type, with a format or parameters behind it or nothing.
func ends(b []byte, kind string) bool {
	if len(b) < len(kind) || !wire.EqualFold(b[:len(kind)], kind) {
		return false
	}
	if len(b) == len(kind) {
		return true
	}
	switch b[len(kind)] {
	case '+', ';', ' ', '\t':
		return true
	}
	return false
}

// AppendType appends the Content-Type of a kind with the format and the parameters that
// another one, of whatever kind but None, has.
func AppendType(dst []byte, k Kind, of []byte) []byte {
	rest := of
	switch KindOfType(of) {
	case GRPC:
		rest = of[len(typeGRPC):]
	case Web:
		rest = of[len(typeWeb):]
	case WebText:
		rest = of[len(typeText):]
	case None:
		rest = nil
	}
	switch k {
	case Web:
		dst = append(dst, typeWeb...)
	case WebText:
		dst = append(dst, typeText...)
	default:
		dst = append(dst, typeGRPC...)
	}
	return append(dst, rest...)
}
