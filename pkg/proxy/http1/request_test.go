package http1

import (
	"errors"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

const host = "Host: a\r\n"

// get is a request with the field lines given.
func get(fields string) string { return "GET / HTTP/1.1\r\n" + host + fields + "\r\n" }

// post is one with a body that may follow.
func post(fields string) string { return "POST / HTTP/1.1\r\n" + host + fields + "\r\n" }

// refusals are heads that are not taken, by the sentence that decides.
func refusals() []struct {
	rule string
	want *wire.Error
	raws []string
} {
	type rows = []string
	long := strings.Repeat("x", 9000)
	return []struct {
		rule string
		want *wire.Error
		raws []string
	}{
		{"RFC 9112 §3: request-line = method SP request-target SP HTTP-version", errRequestLine, rows{
			"GET\r\n\r\n",
			"GET /\r\n\r\n",
			"GET HTTP/1.1\r\nHost: a\r\n\r\n",
			" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", // a second empty line
			"\tGET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
			"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
			": value\r\n\r\n"[1:],
			"\x16\x03\x01\x02\x00\x01\r\n\r\n", // a TLS client
		}},
		{"RFC 9110 §5.6.2: method = token", errMethod, rows{
			"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GE\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
			"\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GÉT / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET\r / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET,POST / HTTP/1.1\r\nHost: a\r\n\r\n",
			"{GET} / HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9112 §3.2: request-target = origin-form / absolute-form / authority-form / asterisk-form, no white space", errTarget, rows{
			"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /\ta HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /é HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET ?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET ../a HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET \\ HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9112 §3.2.4: asterisk-form is only used for a server-wide OPTIONS request", errTarget, rows{
			"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
			"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n",
			"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9112 §3.2.2 and RFC 9110 §4.2.1: absolute-form = http://host[:port] path-abempty [?query], host not empty", errTarget, rows{
			"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http:a HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://?a HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET //a/ HTTP/1.1\r\n\r\n"[:4] + "http//a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://a:8X/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://a:80:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://[::1/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://[]/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://[::1]x/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://[fe80::1%25eth0]/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://a%2eb/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9110 §4.2.4: treat userinfo in a reference from an untrusted source as an error", errTarget, rows{
			"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9110 §9.3.6: reject a CONNECT request that targets an empty or invalid port number", errTarget, rows{
			"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT /a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT http://a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT [::1] HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT [::1]: HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n",
			"CONNECT u@a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9112 §2.3: HTTP-version = HTTP-name \"/\" DIGIT \".\" DIGIT, case-sensitive", errVersion, rows{
			"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
			"GET / http/1.1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.\r\nHost: a\r\n\r\n",
			"GET / HTTP/.1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
			"GET / HTTP/01.1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1,1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.x\r\nHost: a\r\n\r\n",
			"GET / HTTPS/1.1\r\nHost: a\r\n\r\n",
			"GET / ICE/1.0\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.1\x00\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9110 §15.6.6: 505 says that the major version is not supported", errVersionNumber, rows{
			"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
			"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
			"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
		}},
		{"RFC 9112 §5.1: whitespace between a field name and colon MUST be rejected; RFC 9110 §5.1: field-name = token", errFieldName, rows{
			get("X : 1\r\n"),
			get("X\t: 1\r\n"),
			get("Content-Length : 1\r\n"),
			get("Transfer-Encoding : chunked\r\n"),
			get(": 1\r\n"),
			get("X\x00Y: 1\r\n"),
			get("X\rY: 1\r\n"),
			get("X Y: 1\r\n"),
			get("X(Y): 1\r\n"),
			get("X/Y: 1\r\n"),
			get("X@Y: 1\r\n"),
			get("\"X\": 1\r\n"),
			get("Ünï: 1\r\n"),
			get("\x0bX: 1\r\n"),
			get("\x85Transfer-Encoding: chunked\r\n"),
		}},
		{"RFC 9112 §5: field-line = field-name \":\" OWS field-value OWS", errNoColon, rows{
			get("X\r\n"),
			get("Transfer-Encoding\r\n"),
		}},
		{"RFC 9112 §5.2: a server that receives an obs-fold MUST reject it or replace it", errFold, rows{
			get("X: 1\r\n 2\r\n"),
			get("X: 1\r\n\t2\r\n"),
			get("Transfer-Encoding:\r\n chunked\r\n"),
			get(" X: 1\r\n"),
			get("X: 1\r\n \r\n"),
			"GET / HTTP/1.1\r\n Host: a\r\n\r\n", // RFC 9112 §2.2: white space before the first field
			"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
		}},
		{"RFC 9110 §5.5: field values containing CR, LF or NUL are invalid; other controls too", errFieldValue, rows{
			get("X: a\x00b\r\n"),
			get("X: \x01\r\n"),
			get("X: \x7f\r\n"),
			get("X: \x1b[31m\r\n"),
			get("X: a\x0bb\r\n"),
			get("X: \x0cchunked\r\n"),
			get("Transfer-Encoding: \x0bchunked\r\n"),
			get("Content-Length: 1\x00\r\n"),
		}},
		{"RFC 9112 §2.2: a bare CR is invalid", errBareCR, rows{
			get("X: a\rb\r\n"),
			get("X: a\r\r\n"),
			get("X: \rTransfer-Encoding: chunked\r\n"),
			"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
		}},
		{"RFC 9112 §2.2: a recipient MAY take a single LF for a line's end, so others do not", errBareLF, rows{
			"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET / HTTP/1.1\nHost: a\r\n\r\n",
			"GET / HTTP/1.1\nHost: a\n\n",
			"GET / HTTP/1.1\r\nHost: a\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\n\r\n",
			get("X: a\nTransfer-Encoding: chunked\r\n"),
			get("X: a\n b\r\n"),
		}},
		{"RFC 9112 §3.2: 400 to any HTTP/1.1 request that lacks Host", errNoHost, rows{
			"GET / HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nX: 1\r\n\r\n",
			"GET http://a/ HTTP/1.1\r\n\r\n",
			"OPTIONS * HTTP/1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nXHost: a\r\n\r\n",
		}},
		{"RFC 9112 §3.2: 400 to any request with more than one Host", errManyHosts, rows{
			get("Host: a\r\n"),
			get("host: b\r\n"),
			"GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n\r\n",
		}},
		{"RFC 9112 §3.2: 400 to any request with an invalid Host", errHost, rows{
			"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a:8_0\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: :80\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: é\r\n\r\n",
			"GET / HTTP/1.0\r\nHost: a b\r\n\r\n",
		}},
		{"RFC 9110 §8.6: Content-Length = 1*DIGIT; RFC 9112 §6.3, 5: otherwise the framing is invalid", errContentLength, rows{
			post("Content-Length:\r\n"),
			post("Content-Length: a\r\n"),
			post("Content-Length: +1\r\n"),
			post("Content-Length: -1\r\n"),
			post("Content-Length: 0x1\r\n"),
			post("Content-Length: 1 2\r\n"),
			post("Content-Length: 1.0\r\n"),
			post("Content-Length: 1e1\r\n"),
			post("Content-Length: 1_0\r\n"),
			post("Content-Length: 1,1\r\n"),
			post("Content-Length: 1, 2\r\n"),
			post("Content-Length: \"1\"\r\n"),
			post("Content-Length: ١\r\n"),
			post("Content-Length: 9223372036854775808\r\n"),
			post("Content-Length: 99999999999999999999999\r\n"),
			post("Content-Length: 18446744073709551617\r\n"),
			post("Content-Length: 1\r\nContent-Length: 1\r\n"),
			post("Content-Length: 1\r\nContent-Length: 2\r\n"),
			post("content-length: 0\r\nCONTENT-LENGTH: 1\r\n"),
		}},
		{"RFC 9112 §6.1: Content-Length beside Transfer-Encoding ought to be handled as an error", errBothFramings, rows{
			post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
			post("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"),
			post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
			post("Transfer-Encoding: identity\r\nContent-Length: 1\r\n"),
			post("Transfer-Encoding:\r\nContent-Length: 1\r\n"),
		}},
		{"RFC 9112 §6.1: a transfer coding that is not understood: 501", errTransferCoding, rows{
			post("Transfer-Encoding:\r\n"),
			post("Transfer-Encoding: identity\r\n"),
			post("Transfer-Encoding: gzip\r\n"),
			post("Transfer-Encoding: gzip, chunked\r\n"),
			post("Transfer-Encoding: chunked, identity\r\n"),
			post("Transfer-Encoding: chunked, chunked\r\n"),
			post("Transfer-Encoding: chunked,\r\n"),
			post("Transfer-Encoding: ,chunked\r\n"),
			post("Transfer-Encoding: chunked;q=1\r\n"),
			post("Transfer-Encoding: xchunked\r\n"),
			post("Transfer-Encoding: \"chunked\"\r\n"),
			post("Transfer-Encoding: 'chunked'\r\n"),
			post("Transfer-Encoding: chun ked\r\n"),
			post("Transfer-Encoding: \xa0chunked\r\n"),
		}},
		{"RFC 9112 §6.1: chunked MUST NOT be applied more than once", errManyCodings, rows{
			post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
			post("Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n"),
			post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
		}},
		{"RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0 MUST be treated as faulty framing", errCodingIn10, rows{
			"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
			"POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n",
		}},
		{"RFC 9110 §10.1.1: 100-continue is the only expectation", errExpect, rows{
			get("Expect: 200-ok\r\n"),
			get("Expect:\r\n"),
			get("Expect: 100-continue, x\r\n"),
		}},
		{"RFC 9110 §15.5.15: 414 for a target longer than the server is willing to interpret", errLineTooLong, rows{
			"GET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n",
			"GET /" + long + long + long + long + long + long + long + long,
			long + long + long + long + long + long + long + long,
			"\r\nGET /" + long + " HTTP/1.1\r\nHost: a\r\n\r\n",
		}},
		{"RFC 6585 §5: 431 for fields that are too large, alone or together", errHeadTooLarge, rows{
			get("X: " + strings.Repeat("x", 61<<10) + "\r\n"),
			get("X: " + strings.Repeat("x", 200<<10)),
			get(strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 62)),
		}},
		{"RFC 6585 §5: 431 for too many fields", errTooManyFields, rows{
			get(strings.Repeat("X: 1\r\n", 100)),
			get(strings.Repeat("X:\r\n", 5000)),
		}},
	}
}

func TestHeadsThatAreRefused(t *testing.T) {
	rows := 0
	for _, group := range refusals() {
		for _, raw := range group.raws {
			rows++
			for how, pieces := range map[string][][]byte{"at once": split(raw), "dripped": dripped(raw)} {
				c := NewConn(&script{pieces: pieces}, Server, nil)
				var h wire.Head
				err := c.ReadRequest(&h)
				var refused *wire.Error
				switch {
				case !errors.As(err, &refused):
					t.Errorf("%.70q %s: %v, want %q\n\t%s", raw, how, err, group.want, group.rule)
				case how == "at once" && refused != group.want:
					t.Errorf("%.70q %s: %q, want %q\n\t%s", raw, how, err, group.want, group.rule)
				case refused.Status != group.want.Status:
					t.Errorf("%.70q %s: status %d, want %d\n\t%s", raw, how, refused.Status, group.want.Status, group.rule)
				}
				if err == nil {
					continue
				}
				if c.EndExchange() == nil {
					t.Errorf("%.70q %s: another request is looked for behind it", raw, how)
				}
				c.Release()
			}
		}
	}
	if rows < 120 {
		t.Errorf("only %d rows", rows)
	}
}

func TestHeadsThatAreTaken(t *testing.T) {
	fill := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct{ raw, want string }{
		// The four forms of the target (RFC 9112 §3.2).
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/|Host:a"},
		{"GET /a/b?c=d&e=%20/?x HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/a/b?c=d&e=%20/?x|Host:a"},
		{"GET //a HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|//a|Host:a"},
		{"GET /../../x HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/../../x|Host:a"},
		{"GET /\"<>{}|^`\\ HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/\"<>{}|^`\\|Host:a"},
		{"GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n", "GET|b|/c|Host:b"},
		{"GET http://b:80/c?d HTTP/1.1\r\nhOsT: a\r\n\r\n", "GET|b:80|/c?d|hOsT:b:80"},
		{"GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET|b|/|Host:b"},
		{"GET http://b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET|b|/?c|Host:b"},
		{"GET http://[::1]:80/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET|[::1]:80|/|Host:[::1]:80"},
		{"GET http://b/c HTTP/1.0\r\n\r\n", "GET|b|/c|Host:b"},
		{"OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS|b|*|Host:b"},
		{"OPTIONS http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS|b|/|Host:b"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS|a|*|Host:a"},
		{"CONNECT b:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT|b:80||Host:a"},
		{"CONNECT [::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT|[::1]:80||Host:a"},
		// Methods are any token, and keep their case (RFC 9110 §9.1).
		{"get / HTTP/1.1\r\nHost: a\r\n\r\n", "get|a|/|Host:a"},
		{"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\nHost: a\r\n\r\n", "!#$%&'*+-.^_`|~09azAZ|a|/|Host:a"},
		{"M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH|a|/|Host:a"},
		// Versions.
		{"GET / HTTP/1.0\r\n\r\n", "GET||/"},
		{"GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET|a|/|Host:a"},
		// One empty line before the request (RFC 9112 §2.2).
		{"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/|Host:a"},
		// Hosts (RFC 9110 §4.2.1, §7.2).
		{"GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET||/|Host:"},
		{"GET / HTTP/1.1\r\nHost: a.b-c:8080\r\n\r\n", "GET|a.b-c:8080|/|Host:a.b-c:8080"},
		{"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "GET|a:|/|Host:a:"},
		{"GET / HTTP/1.1\r\nHost: orders:http\r\n\r\n", "GET|orders:http|/|Host:orders:http"},
		{"GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", "GET|127.0.0.1:80|/|Host:127.0.0.1:80"},
		{"GET / HTTP/1.1\r\nHost: [::ffff:1.2.3.4]:80\r\n\r\n", "GET|[::ffff:1.2.3.4]:80|/|Host:[::ffff:1.2.3.4]:80"},
		// Fields: order and spelling stay, white space around values goes (RFC 9112 §5.1).
		{get("X:\r\n"), "GET|a|/|Host:a|X:"},
		{get("X: \t \r\n"), "GET|a|/|Host:a|X:"},
		{get("X:1\r\nx: 2\r\nX:\t3 \t\r\n"), "GET|a|/|Host:a|X:1|x:2|X:3"},
		{get("X: a  b\tc\r\n"), "GET|a|/|Host:a|X:a  b\tc"},
		{get("X: é\xff\x80\r\n"), "GET|a|/|Host:a|X:é\xff\x80"}, // obs-text
		{get("X: a: b:c\r\n"), "GET|a|/|Host:a|X:a: b:c"},
		{get("!#$%&'*+-.^_`|~09az: 1\r\n"), "GET|a|/|Host:a|!#$%&'*+-.^_`|~09az:1"},
		{get("Connection: close\r\n"), "GET|a|/|Host:a|Connection:close"},
		// The framing's fields are taken out, since the writer makes them anew.
		{post("Content-Length: 0\r\n"), "POST|a|/|Host:a"},
		{post("Content-Length: 0000000000000000\r\n"), "POST|a|/|Host:a"},
		{post("content-LENGTH:\t0\t\r\nX: 1\r\n"), "POST|a|/|Host:a|X:1"},
		{post("Transfer-Encoding: Chunked\r\n"), "POST|a|/|Host:a"},
		{post("Transfer_Encoding: chunked\r\n"), "POST|a|/|Host:a|Transfer_Encoding:chunked"}, // just another name
		// Close to the limits.
		{get("X: " + fill(60<<10-len(get("X: \r\n"))) + "\r\n"), "GET|a|/|Host:a|X:" + fill(60<<10-len(get("X: \r\n")))},
		{get(strings.Repeat("X:1\r\n", 99)), "GET|a|/|Host:a" + strings.Repeat("|X:1", 99)},
		{"GET /" + fill(8<<10-len("GET / HTTP/1.1")) + " HTTP/1.1\r\nHost: a\r\n\r\n", "GET|a|/" + fill(8<<10-len("GET / HTTP/1.1")) + "|Host:a"},
	} {
		for how, pieces := range map[string][][]byte{"at once": split(c.raw), "dripped": dripped(c.raw)} {
			conn := NewConn(&script{pieces: pieces}, Server, nil)
			var h wire.Head
			if err := conn.ReadRequest(&h); err != nil {
				t.Errorf("%.70q %s: %v", c.raw, how, err)
				continue
			}
			if got := textOf(&h); got != c.want {
				t.Errorf("%.70q %s:\n got %q\nwant %q", c.raw, how, got, c.want)
			}
			conn.Release()
		}
	}
}

func TestWhatTheHeadSaysOfBodyAndConnection(t *testing.T) {
	for _, c := range []struct {
		raw                    string
		length                 int64
		chunked, close, expect bool
	}{
		{get(""), wire.NoLength, false, false, false},
		{post("Content-Length: 7\r\n"), 7, false, false, false},
		{post("Content-Length: 999999999999999999\r\n"), 999999999999999999, false, false, false},
		{post("Transfer-Encoding: chunked\r\n"), wire.NoLength, true, false, false},
		{post("Transfer-Encoding: CHUNKED \r\n"), wire.NoLength, true, false, false},
		{get("Connection: close\r\n"), wire.NoLength, false, true, false},
		{get("Connection: x, Close ,y\r\n"), wire.NoLength, false, true, false},
		{get("Connection: keep-alive\r\nConnection: close\r\n"), wire.NoLength, false, true, false},
		{get("Connection: closed\r\n"), wire.NoLength, false, false, false},
		{"GET / HTTP/1.0\r\n\r\n", wire.NoLength, false, true, false},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", wire.NoLength, false, false, false},
		{"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", wire.NoLength, false, true, false},
		{post("Expect: 100-Continue\r\nContent-Length: 1\r\n"), 1, false, false, true},
		{"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n", 1, false, true, false}, // RFC 9110 §10.1.1
	} {
		var h wire.Head
		if err := whole(c.raw).ReadRequest(&h); err != nil {
			t.Errorf("%q: %v", c.raw, err)
			continue
		}
		if h.ContentLength != c.length || h.Streamed != c.chunked || h.Close != c.close || h.ExpectContinue != c.expect {
			t.Errorf("%q: length %d, chunked %t, close %t, expect %t", c.raw, h.ContentLength, h.Streamed, h.Close, h.ExpectContinue)
		}
	}
}

func TestLimitsAreThoseThatAreSet(t *testing.T) {
	limits := &Limits{RequestLine: 20, HeadBytes: 64, Fields: 2}
	for _, c := range []struct {
		raw  string
		want error
	}{
		{"GET /345678 HTTP/1.1\r\nHost: a\r\n\r\n", nil},
		{"GET /3456789 HTTP/1.1\r\nHost: a\r\n\r\n", errLineTooLong},
		{"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", nil},
		{"GET / HTTP/1.1\r\nHost: a\r\nX:\r\nX:\r\n\r\n", errTooManyFields},
		{get("X: " + strings.Repeat("x", 64-len(get("X: \r\n"))) + "\r\n"), nil},
		{get("X: " + strings.Repeat("x", 65-len(get("X: \r\n"))) + "\r\n"), errHeadTooLarge},
	} {
		for how, pieces := range map[string][][]byte{"at once": split(c.raw), "dripped": dripped(c.raw)} {
			var h wire.Head
			if err := NewConn(&script{pieces: pieces}, Server, limits).ReadRequest(&h); !errors.Is(err, c.want) {
				t.Errorf("%q %s: %v, want %v", c.raw, how, err, c.want)
			}
		}
	}
}
