package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Cause says in a word why a handshake failed, for metrics: one of those that [Causes]
// returns.
func Cause(err error) string {
	var (
		verification *tls.CertificateVerificationError
		notTLS       tls.RecordHeaderError
		op           *net.OpError
	)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, errBusy):
		return "busy"
	case errors.Is(err, errLong):
		return "too_long"
	case errors.As(err, &notTLS):
		return "not_tls"
	case errors.Is(err, errName):
		return "name"
	case errors.As(err, &verification):
		return "certificate"
	case errors.As(err, &op) && op.Op == "remote error":
		return "alert" // the peer refused
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed"
	}
	// crypto/tls has no types for these; a test holds the sentences.
	switch text := err.Error(); {
	case strings.Contains(text, "client didn't provide a certificate"):
		return "no_certificate"
	case strings.Contains(text, "unsupported versions"), strings.Contains(text, "unsupported protocol version"):
		return "version"
	case strings.Contains(text, "unsupported application protocols"):
		return "alpn"
	case strings.Contains(text, "no cipher suite"), strings.Contains(text, "no supported"):
		return "cipher"
	}
	return "other"
}

// Explain says why a handshake with a host failed, in words for people. Of what the host has
// sent it says nothing but which alert.
func Explain(err error) string { return explain(err, "the instance") }

// ExplainClient is Explain for a handshake with a client.
func ExplainClient(err error) string { return explain(err, "the client") }

func explain(err error, peer string) string {
	var (
		op        *net.OpError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, errName):
		return errName.Error()
	case errors.Is(err, errBusy):
		return errBusy.Error()
	case errors.Is(err, errLong):
		return errLong.Error()
	case errors.As(err, &authority):
		return "no authority of trusted_ca has signed the certificate"
	case errors.As(err, &name):
		return "the certificate is not of the name " + name.Host
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	case errors.As(err, &op) && op.Op == "remote error":
		return peer + " refused: " + op.Err.Error()
	}
	switch Cause(err) {
	case "not_tls":
		return peer + " does not speak TLS"
	case "certificate":
		return "the certificate is not one for this use"
	case "no_certificate":
		return peer + " has shown no certificate"
	case "closed":
		return peer + " ended the connection"
	case "version":
		return "there is no version that both sides speak"
	case "alpn":
		return "there is no protocol (ALPN) that both sides speak"
	case "timeout":
		return "it did not end in time"
	default:
		return "what " + peer + " sent could not be accepted"
	}
}

// Advise says what can be done where a client's handshake with a listener failed by a cause; "" if
// nothing can, or there is nothing to do.
func Advise(cause string) string {
	switch cause {
	case "not_tls":
		return "the client does not speak TLS: call this port with https"
	case "no_certificate":
		return "give the client a certificate that an authority of trusted_ca has signed, or take require_client_certificate away"
	case "certificate":
		return "the client's certificate has to be signed by an authority of trusted_ca, with the intermediates behind it, valid now, and for client authentication"
	case "name":
		return "give the client a certificate with one of the names in match_typed_subject_alt_names, or add its name there"
	case "alert":
		return "the client refused, and its log says why: it may not know the authority of this listener's certificate, or call it by a name that is not in it"
	case "version":
		return "let tls_minimum_protocol_version and tls_maximum_protocol_version meet what the client speaks"
	case "alpn":
		return "add the client's protocol to alpn_protocols, or let the client offer one of them"
	case "too_long":
		return "leave out of the client's chain what does not lead to an authority of trusted_ca"
	default:
		return ""
	}
}

// The results of handshakes that end well.
const (
	resultOK      = "ok"
	resultResumed = "resumed"
)

// Results returns how a handshake may end, as [Status] counts them: well, with a session
// resumed, or by one of the causes.
func Results() []string { return append([]string{resultOK, resultResumed}, Causes()...) }

// Causes returns all that Cause may say.
func Causes() []string {
	return []string{"timeout", "not_tls", "name", "certificate", "alert", "closed", "no_certificate", "version", "alpn", "cipher", "busy", "too_long", "other"}
}

// LooksLikeHTTP reports whether a handshake failed because the client speaks HTTP/1 in the
// clear. The connection is open then, and may be answered.
func LooksLikeHTTP(err error) bool {
	var notTLS tls.RecordHeaderError
	if !errors.As(err, &notTLS) || notTLS.Conn == nil {
		return false
	}
	switch string(notTLS.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH", "CONNE", "TRACE", "GET h":
		return true
	}
	return false
}
