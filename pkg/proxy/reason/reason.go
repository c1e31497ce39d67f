// Package reason is the closed list of why the proxy answered itself, or failed
// a response that had begun. Each has a stable code, for metrics, logs, spans and
// programs, the status that is answered, and a plain sentence for people.
package reason

// Reason is an index into the list; the zero value says that the instance's own
// answer was passed on.
type Reason uint8

// The reasons. Their order is not part of any interface; their codes are.
const (
	None Reason = iota
	BadRequest
	HeadTooLarge
	HeadTimeout
	BodyTimeout
	UnsupportedProtocol
	NotAMeshName
	UnknownService
	NoRoute
	NotLearnedInTime
	ControlPlaneGone
	TooManyWaiting
	TooManyDestinations
	NoEndpoints
	NoUsableEndpoint
	RequestLimit
	ConnectFailed
	ConnectTimeout
	TLSFailed
	TooManyConnecting
	NoSocket
	Loop
	NotDelivered
	UpstreamReset
	UpstreamProtocol
	RequestTimeout
	ResponseBroken
	ClientGone
	Stopped
	DirectResponse
	BadPreface
	NoFilterChain
	IdleTimeout
	ExternalRefused
	UpgradeUnsupported
	NoHTTPPort
	count // of reasons
)

type entry struct {
	code   string
	status int // 0: nothing can be answered
	text   string
}

func (r Reason) entry() entry {
	switch r {
	case None:
		return entry{"none", 0, "the instance answered"}
	case BadRequest:
		return entry{"bad_request", 400, "the request is malformed"}
	case HeadTooLarge:
		return entry{"head_too_large", 431, "the request's head is larger than the limits allow"}
	case HeadTimeout:
		return entry{"head_timeout", 408, "the request's head did not arrive in time"}
	case BodyTimeout:
		return entry{"body_timeout", 408, "the request's body did not arrive within the request timeout, or stopped coming in"}
	case UnsupportedProtocol:
		return entry{"unsupported_protocol", 501, "the request asks for a protocol feature that is not supported"}
	case NotAMeshName:
		return entry{"not_a_mesh_name", 404, "the authority is not the name of a service: call http://<service>.<namespace>"}
	case UnknownService:
		return entry{"unknown_service", 404, "no service of this name was ever registered, or none with a port of this name or number"}
	case NoRoute:
		return entry{"no_route", 404, "no route matches the request's authority and path"}
	case NotLearnedInTime:
		return entry{"not_learned_in_time", 503, "the configuration of this service did not arrive in time"}
	case ControlPlaneGone:
		return entry{"control_plane_gone", 503, "this service was not called before, and the control plane, which knows where it is, cannot be reached"}
	case TooManyWaiting:
		return entry{"too_many_waiting", 503, "too many requests wait for the configuration of services that were not called before"}
	case TooManyDestinations:
		return entry{"too_many_destinations", 503, "this service was not called before, and as many others as can be known are in use"}
	case NoEndpoints:
		return entry{"no_endpoints", 503, "the service is known, but has no instances"}
	case NoUsableEndpoint:
		return entry{"no_usable_endpoint", 503, "the service has instances, but none can be used: all are unhealthy, draining or have an open circuit breaker"}
	case RequestLimit:
		return entry{"request_limit", 503, "the limit of requests in flight to the service is reached"}
	case ConnectFailed:
		return entry{"connect_failed", 503, "the instance could not be connected to"}
	case ConnectTimeout:
		return entry{"connect_timeout", 503, "the instance did not accept the connection in time"}
	case TLSFailed:
		return entry{"tls_failed", 503, "the instance was connected to, and the TLS handshake failed"}
	case TooManyConnecting:
		return entry{"too_many_connecting", 503, "too many requests wait for a connection to the instance"}
	case NoSocket:
		return entry{"no_socket", 503, "the proxy has no file descriptor or local port left to connect to the instance with"}
	case Loop:
		return entry{"loop", 508, "an instance of the service is registered at a sidecar's port for outgoing requests: the request would go round for ever"}
	case NotDelivered:
		return entry{"not_delivered", 503, "the sidecar of the instance could not reach its application: the request was not delivered"}
	case UpstreamReset:
		return entry{"upstream_reset", 502, "the instance closed the connection before it answered"}
	case UpstreamProtocol:
		return entry{"upstream_protocol", 502, "the instance answered something that is not HTTP"}
	case RequestTimeout:
		return entry{"request_timeout", 504, "the instance did not answer within the request timeout"}
	case ResponseBroken:
		return entry{"response_broken", 0, "the instance's response broke off"}
	case ClientGone:
		return entry{"client_gone", 0, "the client went away before it was answered"}
	case Stopped:
		return entry{"stopped", 0, "the proxy stopped before the request was answered"}
	case DirectResponse:
		return entry{"direct_response", 0, "the route answers itself"}
	case BadPreface:
		return entry{"bad_preface", 0, "the connection did not begin as its listener wants it to, with a PROXY protocol header or a TLS ClientHello, or not in time"}
	case NoFilterChain:
		return entry{"no_filter_chain", 0, "the connection names a server that no filter chain of its listener is for, or none, and no chain is for all others"}
	case IdleTimeout:
		return entry{"idle_timeout", 0, "no byte moved on the connection for as long as it may be idle"}
	case ExternalRefused:
		return entry{"external_refused", 403, "the destination is no service of the mesh, or none with a port of this name or number, and this sidecar does not connect to others: --allow-external-connect lets it"}
	case UpgradeUnsupported:
		return entry{"upgrade_unsupported", 501, "the instance does not switch to the protocol that the client asks for"}
	default: // NoHTTPPort
		return entry{"no_http_port", 503, "the destination is no HTTP port, but one for TCP: --tcp-upstream and CONNECT lead to it"}
	}
}

// Code returns the stable code, such as unknown_service.
func (r Reason) Code() string { return r.entry().code }

// Status returns the HTTP status that is answered; 0 if nothing can be.
func (r Reason) Status() int { return r.entry().status }

// Text returns a plain sentence, without a full stop.
func (r Reason) Text() string { return r.entry().text }

// Parse returns the reason of a code, None if there is none.
func Parse(code []byte) Reason {
	for r := range count {
		if r.Code() == string(code) {
			return r
		}
	}
	return None
}

// Codes lists the codes by index.
func Codes() []string {
	codes := make([]string, count)
	for r := range count {
		codes[r] = r.Code()
	}
	return codes
}
