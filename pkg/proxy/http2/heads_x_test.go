package http2_test

import (
	"net"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
)

// requestHeads are heads of requests, as the specification's files write them, and what
// becomes of them: a status, or malformed, which RFC 9113 §8.1.1 answers with a stream
// error of type PROTOCOL_ERROR.
var requestHeads = []headTest{
	{":method=GET :scheme=http :authority=a :path=/", "200", "§8.3.1: all that a request must have"},
	{":path=/ :authority=a :scheme=https :method=GET", "200", "§8.3: pseudo-header fields have no order"},
	{":method=GET :scheme=http :path=/ host=a", "200", "§8.3.1: an intermediary that made it of HTTP/1.1 may have left :authority out"},
	{":method=GET :scheme=http :authority=a :path=/ host=a", "200", "§8.3.1: Host may name the same"},
	{":method=GET :scheme=http :authority=a:80 :path=/ host=A:80", "200", "RFC 3986 §3.2.2: hosts are the same in either case"},
	{":method=GET :scheme=http :authority=a :path=/ host=b", "malformed", "§8.3.1: a Host that names another than :authority"},
	{":method=GET :scheme=http :authority=a :path=/ host=a host=a", "malformed", "RFC 9112 §3.2: more than one Host"},
	{":method=GET :scheme=http :path=/ host=a%20b", "malformed", "RFC 9110 §7.2: Host is a host with an optional port"},
	{":method=GET :scheme=http :authority=a%20b :path=/", "malformed", "RFC 3986 §3.2: as is :authority"},
	{":method=GET :scheme=http :authority=me@a :path=/", "malformed", "§8.3.1: :authority MUST NOT include the deprecated userinfo subcomponent"},
	{portNamed, "malformed", "RFC 9110 §7.2: a port is a number, but in a mesh"},
	{":method=GET :scheme=http :path=/ host=a:http", "malformed", "as in Host"},
	{":method=GET :scheme=http :authority= :path=/", "malformed", "RFC 9110 §4.2.1: an http URI has a host"},
	{":method=GET :scheme=http :path=/", "200", "§8.3.1: an intermediary MUST NOT generate :authority where HTTP/1.0 named none"},
	{":scheme=http :authority=a :path=/", "malformed", "§8.3.1: no :method"},
	{":method=GET :authority=a :path=/", "malformed", "§8.3.1: no :scheme"},
	{":method=GET :scheme=http :authority=a", "malformed", "§8.3.1: no :path"},
	{":method=GET :method=GET :scheme=http :authority=a :path=/", "malformed", "§8.3: The same pseudo-header field name MUST NOT appear more than once"},
	{":method=GET :scheme=http :scheme=http :authority=a :path=/", "malformed", "§8.3, as before"},
	{":method=GET :scheme=http :authority=a :authority=a :path=/", "malformed", "§8.3, as before"},
	{":method=GET :scheme=http :authority=a :path=/ :path=/", "malformed", "§8.3, as before"},
	{":method=GET :scheme=http :authority=a x=y :path=/", "malformed", "§8.3: All pseudo-header fields MUST appear before all regular field lines"},
	{":method=GET :scheme=http :authority=a :path=/ :status=200", "malformed", "§8.3: those of responses MUST NOT appear in requests"},
	{":method=GET :scheme=http :authority=a :path=/ :other=1", "malformed", "§8.3: undefined pseudo-header fields are malformed"},
	{":method=GET :scheme=http :authority=a :path=/ :=1", "malformed", "§8.3, as before"},
	{":method=G%20T :scheme=http :authority=a :path=/", "malformed", "RFC 9110 §9.1: a method is a token"},
	{":method= :scheme=http :authority=a :path=/", "malformed", "RFC 9110 §9.1, as before"},
	{":method=brew :scheme=http :authority=a :path=/", "200", "RFC 9110 §9.1: any token, in any case"},
	{":method=GET :scheme=h%20ttp :authority=a :path=/", "malformed", "RFC 3986 §3.1: a scheme has letters, digits and + - ."},
	{":method=GET :scheme=1http :authority=a :path=/", "malformed", "RFC 3986 §3.1: and begins with a letter"},
	{":method=GET :scheme= :authority=a :path=/", "malformed", "RFC 3986 §3.1, as before"},
	{":method=GET :scheme=HTTPS :authority=a :path=/", "200", "RFC 3986 §3.1: schemes are the same in either case"},
	{":method=GET :scheme=ftp :authority=a :path=/", "421", "§8.3.1: :scheme is not restricted to http and https; RFC 9110 §7.4: but others need not be served"},
	{":method=GET :scheme=http :authority=a :path=", "malformed", "§8.3.1: :path MUST NOT be empty for http or https URIs"},
	{":method=GET :scheme=http :authority=a :path=x", "malformed", "§8.3.1: a path starts with /"},
	{":method=GET :scheme=http :authority=a :path=http://a/", "malformed", "§8.3.1: it is the path and query parts of the target URI"},
	{":method=OPTIONS :scheme=http :authority=a :path=*", "200", "§8.3.1: OPTIONS without a path has *"},
	{":method=GET :scheme=http :authority=a :path=*", "malformed", "§8.3.1: and nothing else has"},
	{":method=GET :scheme=http :authority=a :path=/a%20b", "malformed", "RFC 3986 §3.3: no space in a path"},
	{":method=GET :scheme=http :authority=a :path=/a%0d%0ab", "malformed", "RFC 3986 §3.3: nor a line's end"},
	{":method=GET :scheme=http :authority=a :path=/%00", "malformed", "RFC 3986 §3.3: nor a zero octet"},
	{":method=CONNECT :authority=a:80", "200", "§8.5: CONNECT names but an authority"},
	{":method=CONNECT :authority=a:80 :path=/", "malformed", "§8.5: The :scheme and :path pseudo-header fields MUST be omitted"},
	{":method=CONNECT :authority=a:80 :scheme=http", "malformed", "§8.5, as before"},
	{":method=CONNECT", "malformed", "§8.5: :authority contains the host and port to connect to"},
	{":method=CONNECT :authority=[::1]:65535", "200", "§8.5: as in the authority-form of HTTP/1.1"},
	{":method=CONNECT host=a:80", "200", "§8.3.1: an intermediary that made it of HTTP/1.1 may have left :authority out"},
	{":method=CONNECT :authority=a", "malformed", "§8.5: a host alone is nothing to connect to"},
	{":method=CONNECT :authority=[::1]", "malformed", "§8.5, as before"},
	{":method=CONNECT host=a", "malformed", "§8.5, as before"},
	{":method=CONNECT :authority=a:", "malformed", "RFC 9110 §9.3.6: A server MUST reject a CONNECT request that targets an empty or invalid port number"},
	{":method=CONNECT :authority=a:0", "malformed", "RFC 9110 §9.3.6, as before"},
	{":method=CONNECT :authority=a:65536", "malformed", "RFC 9110 §9.3.6, as before"},
	{":method=CONNECT :protocol=websocket :scheme=http :authority=a :path=/", "200", "RFC 8441 §4: an extended CONNECT has all"},
	{":method=CONNECT :protocol=websocket :authority=a", "malformed", "RFC 8441 §4: On requests that contain the :protocol pseudo-header field, the :scheme and :path … MUST also be included"},
	{":method=GET :protocol=websocket :scheme=http :authority=a :path=/", "malformed", "RFC 8441 §4: :protocol is for CONNECT"},
	{"request x=y X-A=b", "malformed", "§8.2.1: a field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff"},
	{"request x%20y=z", "malformed", "§8.2.1, as before"},
	{"request x%00=z", "malformed", "§8.2.1, as before"},
	{"request x%ff=z", "malformed", "§8.2.1, as before"},
	{"request hex:0000 hex:0178", "malformed", "§8.2.1: a field name is not empty"},
	{"request x:y=z", "malformed", "§8.2.1: no colon but as the first octet of a pseudo-header field"},
	{"request x=", "200", "RFC 9110 §5.5: a value may be empty"},
	{"request x=%00", "malformed", "§8.2.1: A field value MUST NOT contain the zero value"},
	{"request x=a%0ab", "malformed", "§8.2.1: nor line feed"},
	{"request x=a%0db", "malformed", "§8.2.1: nor carriage return"},
	{"request x=%20a", "malformed", "§8.2.1: A field value MUST NOT start or end with an ASCII whitespace character"},
	{"request x=a%09", "malformed", "§8.2.1, as before"},
	{"request x=a%09b%20c", "200", "§8.2.1: white space between is as good as in HTTP/1.1"},
	{"request x=%c3%a4", "200", "RFC 9110 §5.5: obs-text is passed on"},
	{"request connection=close", "malformed", "§8.2.2: An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields"},
	{"request keep-alive=1", "malformed", "§8.2.2, as before"},
	{"request proxy-connection=close", "malformed", "§8.2.2, as before"},
	{"request transfer-encoding=chunked", "malformed", "§8.2.2, as before"},
	{"request upgrade=h2c", "malformed", "§8.2.2, as before"},
	{"request te=trailers", "200", "§8.2.2: TE MAY be present"},
	{"request te=gzip", "malformed", "§8.2.2: and MUST NOT contain any value other than trailers"},
	{"request te=trailers,gzip", "malformed", "§8.2.2, as before"},
	{"request cookie=a cookie=b", "200", "§8.2.3: cookies may be split"},
	{"request content-length=0", "200", "§8.1.1: no content is as long as 0"},
	{"request content-length=+0", "malformed", "RFC 9110 §8.6: a Content-Length is digits"},
	{"request content-length=", "malformed", "RFC 9110 §8.6, as before"},
	{"request content-length=0 content-length=0", "malformed", "RFC 9110 §8.6: more than one may be refused"},
	{"request content-length=99999999999999999999", "malformed", "RFC 9110 §8.6: a value that is too large for any body"},
	{"request expect=100-continue", "200", "RFC 9110 §10.1.1"},
	{"request expect=more", "417", "RFC 9110 §10.1.1: A server that receives an Expect field value containing a member other than 100-continue MAY respond with 417"},
	{"request a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1", "200", "ours: 20 fields here"},
	{"request a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1 a=1", "431", "RFC 6585 §5: and not more"},
	{"request a=4000*x", "431", "RFC 6585 §5: nor longer ones"},
}

// portNamed names a port.
const portNamed = ":method=GET :scheme=http :authority=a:http :path=/"

type headTest = struct{ fields, want, why string }

func TestHeadsOfRequestsAreWhatRFC9113SaysOrAreRefused(t *testing.T) {
	testHeads(t, http2.Config{HeadBytes: 4000, Fields: 20}, requestHeads)
	testHeads(t, http2.Config{PortNames: true}, []headTest{{portNamed, "200", "a mesh has names of ports"}})
}

func testHeads(t *testing.T, config http2.Config, heads []headTest) {
	t.Helper()
	h := &specServer{held: map[uint32]*http2.Stream{}}
	addr := serve(t, h, config)
	for _, test := range heads {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		p := newSpecPeer(nc)
		out := append([]byte(h2.ClientPreface), buildFrame(t, "SETTINGS 0")...)
		out = append(out, buildFrame(t, "HEADERS 1 +END_STREAM "+test.fields)...)
		_, _ = nc.Write(append(out, buildFrame(t, "HEADERS 3 +END_STREAM request")...))
		want := "< HEADERS 1 END_STREAM :status=" + test.want
		switch test.want {
		case "malformed":
			want = "< RST_STREAM 1 PROTOCOL_ERROR"
		case "431", "417", "421":
			want += "\n< RST_STREAM 1 NO_ERROR" // the rest is not wanted
		}
		want += "\n< HEADERS 3 END_STREAM :status=200" // others go on
		if got := strings.Join(p.until("spec end"), "\n"); got != want {
			t.Errorf("%s (%s)\ngot\n%s\nwant\n%s", test.fields, test.why, got, want)
		}
		_ = nc.Close()
	}
}
