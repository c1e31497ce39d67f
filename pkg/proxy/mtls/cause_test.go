package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestFailuresAreSaidInAWordAndInASentence(t *testing.T) {
	refused := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	seen := map[string]bool{}
	for _, one := range []struct {
		err           error
		cause, saying string
	}{
		{os.ErrDeadlineExceeded, "timeout", "it did not end in time"},
		{context.DeadlineExceeded, "timeout", "it did not end in time"},
		{errBusy, "busy", "too many other handshakes"},
		{errLong, "too_long", "longer than 64 kB"},
		{tls.RecordHeaderError{Msg: "x"}, "not_tls", "the instance does not speak TLS"},
		{errName, "name", "none of the names"},
		{refused(errName), "name", "none of the names"},
		{refused(x509.UnknownAuthorityError{}), "certificate", "no authority of trusted_ca has signed"},
		{refused(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "a.example"}), "certificate", "is not of the name a.example"},
		{refused(x509.CertificateInvalidError{Reason: x509.Expired}), "certificate", "has expired, or is not valid yet"},
		{refused(x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}), "certificate", "not one for this use"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, "alert", "the instance refused: tls: bad certificate"},
		{&net.OpError{Op: "local error", Err: errors.New("tls: bad certificate")}, "other", "could not be accepted"},
		{io.EOF, "closed", "the instance ended the connection"},
		{io.ErrUnexpectedEOF, "closed", "the instance ended the connection"},
		{net.ErrClosed, "closed", "the instance ended the connection"},
		{context.Canceled, "closed", "the instance ended the connection"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "closed", "the instance ended the connection"},
		{&net.OpError{Op: "write", Err: syscall.EPIPE}, "closed", "the instance ended the connection"},
		{errors.New("tls: client didn't provide a certificate"), "no_certificate", "the instance has shown no certificate"},
		{errors.New("tls: client offered only unsupported versions: [301]"), "version", "no version that both sides speak"},
		{errors.New("tls: server selected unsupported protocol version 301"), "version", "no version that both sides speak"},
		{errors.New("tls: client requested unsupported application protocols ([x])"), "alpn", "no protocol (ALPN) that both sides speak"},
		{errors.New("tls: no cipher suite supported by both client and server"), "cipher", "could not be accepted"},
		{errors.New("tls: no supported elliptic curves"), "cipher", "could not be accepted"},
		{errors.New("x"), "other", "could not be accepted"},
	} {
		seen[one.cause] = true
		for _, err := range []error{one.err, fmt.Errorf("wrapped: %w", one.err)} {
			if got := Cause(err); got != one.cause {
				t.Errorf("%v: %s, want %s", err, got, one.cause)
			}
			if got := Explain(err); !strings.Contains(got, one.saying) {
				t.Errorf("%v: %q, want %q", err, got, one.saying)
			}
			if got, want := ExplainClient(err), strings.ReplaceAll(Explain(err), "instance", "client"); got != want {
				t.Errorf("%v of a client: %q, want %q", err, got, want)
			}
		}
	}
	for _, cause := range Causes() {
		if !seen[cause] {
			t.Errorf("nothing leads to %s", cause)
		}
	}
}

// What a row of docs/tls.md says helps is said in the log, and nothing where nobody can do anything.
func TestWhatHelpsIsSaidWhereSomethingDoes(t *testing.T) {
	text, err := os.ReadFile("../../../docs/tls.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| cause at a listener | what helps |")
	if !ok {
		t.Fatal("docs/tls.md has no table of what helps")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	said := map[string]string{}
	for _, cause := range Causes() {
		help := Advise(cause)
		if documented := strings.Contains(table, "`"+cause+"`"); documented != (help != "") {
			t.Errorf("%s: documented: %t, and the log says %q", cause, documented, help)
		}
		if other := said[help]; help != "" && other != "" {
			t.Errorf("%s and %s have the same help", cause, other)
		}
		said[help] = cause
	}
}

func TestEveryMethodOfHTTP1IsRecognisedWhereItCanBeAnswered(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	for _, one := range []struct {
		request string
		want    bool
	}{
		{"GET / HTTP/1.1", true}, {"GET http://a/ HTTP/1.1", true}, {"HEAD / HTTP/1.1", true}, {"POST / HTTP/1.1", true}, {"PUT / HTTP/1.1", true},
		{"OPTIONS * HTTP/1.1", true}, {"DELETE / HTTP/1.1", true}, {"PATCH / HTTP/1.1", true}, {"CONNECT a:1 HTTP/1.1", true}, {"TRACE / HTTP/1.1", true},
		{"GETTY", false}, {"PRI * HTTP/2.0", false}, {"\x15\x03\x01\x00\x02", false},
	} {
		err := tls.RecordHeaderError{RecordHeader: [5]byte([]byte(one.request)[:5]), Conn: a}
		if got := LooksLikeHTTP(fmt.Errorf("wrapped: %w", err)); got != one.want {
			t.Errorf("%q: %t", one.request, got)
		}
		err.Conn = nil // crypto/tls has begun to answer
		if LooksLikeHTTP(err) {
			t.Errorf("%q, which cannot be answered, is to be", one.request)
		}
	}
	if LooksLikeHTTP(io.EOF) {
		t.Error("an end is taken for a request")
	}
}
