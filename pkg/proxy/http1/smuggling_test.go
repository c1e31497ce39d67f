package http1

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// smuggled is the request that an attack wants to be found behind its own.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// attack is a class of request smuggling, or of what resembles it.
type attack struct {
	class string
	why   string // what is answered, and the sentence that decides
	raws  []string
}

// attacks are the classes. Each stream ends in what the attacker wants to be taken
// for a request; none of them may be.
func attacks() []attack {
	te := func(field string) string { return post(field) + "0\r\n\r\n" + smuggled }
	cl := func(value string) string { return post("Content-Length:"+value+"\r\n") + smuggled }
	chunks := func(body string) string { return chunkedHead + body + smuggled }
	return []attack{
		{"CL.TE and TE.CL", "RFC 9112 §6.1: both framings ought to be handled as an error", []string{
			post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + smuggled,
			post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n") + "23\r\n" + smuggled + "\r\n0\r\n\r\n",
			post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + smuggled,
			post("Content-Length: 6\r\nTransfer-Encoding: identity\r\n") + "0\r\n\r\n" + smuggled,
		}},
		{"TE.TE, a coding that only some understand", "RFC 9112 §6.1: 501 to a coding that is not understood", []string{
			te("Transfer-Encoding: xchunked\r\n"), te("Transfer-Encoding: chunked, identity\r\n"), te("Transfer-Encoding: identity, chunked\r\n"),
			te("Transfer-Encoding: chunked;q=1\r\n"), te("Transfer-Encoding: \"chunked\"\r\n"), te("Transfer-Encoding: chunked,\r\n"),
			te("Transfer-Encoding: ,chunked\r\n"), te("Transfer-Encoding:\r\n"), te("Transfer-Encoding: chunked\xa0\r\n"), te("Transfer-Encoding: ch\u212anked\r\n"),
		}},
		{"TE.TE, several lines", "RFC 9112 §6.1: chunked MUST NOT be applied more than once", []string{
			te("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
			te("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
			te("Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
		}},
		{"TE.TE, a value or name obfuscated", "RFC 9110 §5.5, §5.6.2, RFC 9112 §5.1: no controls, no white space before the colon", []string{
			te("Transfer-Encoding: \x0bchunked\r\n"), te("Transfer-Encoding: \x00chunked\r\n"), te("Transfer-Encoding: chunked\x0c\r\n"),
			te("Transfer-Encoding : chunked\r\n"), te("Transfer-Encoding\t: chunked\r\n"), te("\x00Transfer-Encoding: chunked\r\n"),
			te("Transfer-Encoding\x00: chunked\r\n"), te("Transfer Encoding: chunked\r\n"), te("Transfer-\rEncoding: chunked\r\n"),
		}},
		{"Content-Length given twice", "RFC 9112 §6.3, 5: invalid framing; equal ones too, since others may take either", []string{
			post("Content-Length: 0\r\nContent-Length: 35\r\n") + smuggled,
			post("Content-Length: 35\r\nContent-Length: 0\r\n") + smuggled,
			post("Content-Length: 35\r\ncontent-length: 35\r\n") + smuggled,
			cl(" 0, 35"), cl(" 35, 35"), cl(" 35,"), cl(" ,35"),
		}},
		{"Content-Length that is no number", "RFC 9110 §8.6: Content-Length = 1*DIGIT", []string{
			cl(""), cl(" +5"), cl(" -5"), cl(" 0x5"), cl(" 5 5"), cl(" 5.0"), cl(" 5e0"), cl(" 5_0"), cl(" '5'"), cl(" \"5\""), cl(" 5;"), cl(" \u0665"),
			cl(" 18446744073509551616"), cl(" 9223352036854775808"), cl(" 0000000000000000005"), cl(" NaN"),
		}},
		{"Content-Length obfuscated", "RFC 9112 §5.1, RFC 9110 §5.5", []string{
			post("Content-Length : 35\r\n") + smuggled, cl(" 5\x00"), cl(" \x0b5"), post("Content-Length: 5\r\n 0\r\n") + smuggled, post("Content-Length\r\n") + smuggled,
		}},
		{"fields folded", "RFC 9112 §5.2, §2.2: an obs-fold is rejected; so is white space before the first field", []string{
			te("X: 1\r\n Transfer-Encoding: chunked\r\n"), te("Transfer-Encoding:\r\n chunked\r\n"), te("X: 1\r\n\tY: 2\r\n"), te(" Transfer-Encoding: chunked\r\n"),
			"GET / HTTP/1.1\r\n Host: b\r\nHost: a\r\n\r\n" + smuggled,
		}},
		{"bare CR", "RFC 9112 §2.2: an element with a bare CR is invalid", []string{
			te("X: 1\rTransfer-Encoding: chunked\r\n"), te("X: 1\r\r\n"), te("Transfer-Encoding: chunked\r\r\n"), "GET / HTTP/1.1\rHost: b\r\nHost: a\r\n\r\n" + smuggled,
			"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, te("X: 1\r\n\rY: 1\r\n"),
		}},
		{"bare LF", "RFC 9112 §2.2: a lone LF MAY end a line, so that not all agree: 400", []string{
			te("X: 1\nTransfer-Encoding: chunked\r\n"), "GET / HTTP/1.1\nHost: a\n\n" + smuggled, get("X: 1\n") + smuggled,
			"GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\n" + smuggled, "\n" + smuggled, "GET / HTTP/1.1\r\nHost: a\r\n\n" + smuggled,
		}},
		{"NUL and other controls", "RFC 9110 §5.5, §5.6.2", []string{
			get("X: a\x00b\r\n") + smuggled, get("X\x00: 1\r\n") + smuggled, "GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
			"GET\x00 / HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET / HTTP/1.1\x00\r\nHost: a\r\n\r\n" + smuggled, get("X: \x7f\r\n") + smuggled,
		}},
		{"chunk sizes", "RFC 9112 §7.1: chunk-size = 1*HEXDIG, recipients MUST prevent overflow", []string{
			chunks("0x0\r\n\r\n"), chunks("+0\r\n\r\n"), chunks("-1\r\n\r\n"), chunks(" 0\r\n\r\n"), chunks("0 \r\n\r\n"), chunks("0\t\r\n\r\n"), chunks("0_0\r\n\r\n"),
			chunks("0.\r\n\r\n"), chunks("0,\r\n\r\n"), chunks("\r\n\r\n"), chunks("g\r\n\r\n"), chunks("0\x00\r\n\r\n"), chunks("0h\r\n\r\n"),
			chunks("10000000000000000\r\n\r\n"), chunks("ffffffffffffffff\r\n\r\n"), chunks("0000000000000000\r\n\r\n"),
		}},
		{"the line end behind a chunk's data", "RFC 9112 §7.1: chunk-data CRLF", []string{
			chunks("1\r\naX\r\n0\r\n\r\n"), chunks("1\r\na\n0\r\n\r\n"), chunks("1\r\na\r0\r\n\r\n"), chunks("1\r\na0\r\n\r\n"), chunks("2\r\na\r\n0\r\n\r\n"),
			chunks("1\na\r\n0\r\n\r\n"), chunks("1\r\na\r\n0\n\r\n"), chunks("1\r\na\r\n0\r\n\n"),
		}},
		{"chunk extensions", "RFC 9112 §7.1.1: ignored, but their line ends in CRLF and has a limit", []string{
			chunks("1;x\na\r\n0\r\n\r\n"), chunks("1;\n\r\na\r\n0\r\n\r\n"), chunks("0;x\r0\r\n\r\n"), chunks("0;\x00\r\n\r\n"), chunks("0 x\r\n\r\n"),
			chunks("0;" + strings.Repeat("x", maxChunkLine) + "\r\n\r\n"),
		}},
		{"HTTP/1.0 with Transfer-Encoding", "RFC 9112 §6.1: MUST be treated as faulty framing", []string{
			"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
			"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
			"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled,
		}},
		{"other versions", "RFC 9112 §2.3, RFC 9110 §15.6.6: 505 for versions not spoken, 400 for what is none", []string{
			"POST / HTTP/0.9\r\nHost: a\r\n\r\n" + smuggled, "GET / HTTP/1.2\r\nHost: a\r\n\r\n" + smuggled, "GET /\r\n\r\n" + smuggled, "GET / HTTP/1.10\r\nHost: a\r\n\r\n" + smuggled,
			"GET / http/1.1\r\nHost: a\r\n\r\n" + smuggled, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + smuggled,
		}},
		{"white space in the request line", "RFC 9112 §3: single spaces; §3.2: no white space in a target", []string{
			"GET  / HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
			" GET / HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n" + smuggled, "GET /x HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
			"GET /\x0b HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "\r\n\r\n" + smuggled,
		}},
		{"fragment in the target", "RFC 9112 §3.2: no form of the target has one", []string{
			"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET http://b#@a/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		}},
		{"userinfo in the authority", "RFC 9110 §4.2.4: to be treated as an error", []string{
			"GET http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET http://b:80@a/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
			"GET / HTTP/1.1\r\nHost: b@a\r\n\r\n" + smuggled, "CONNECT b@a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled,
		}},
		{"a body of CONNECT", "RFC 9110 §9.3.6: it has none", []string{
			"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n" + smuggled, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		}},
		{"Host missing, doubled or no host", "RFC 9112 §3.2: 400", []string{
			"GET / HTTP/1.1\r\n\r\n" + smuggled, get("Host: b\r\n") + smuggled, get("host: a\r\n") + smuggled, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n" + smuggled,
			"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n" + smuggled, "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n" + smuggled, "GET http://a/ HTTP/1.1\r\n\r\n" + smuggled,
			"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + smuggled, "GET / HTTP/1.1\r\nHost : a\r\n\r\n" + smuggled,
		}},
		{"what Connection names", "RFC 9110 §7.6.1: it is removed, so what is too much to look through is refused", []string{
			get("Connection: "+strings.Repeat("x,", wire.MaxConnectionOptions)+"y\r\n") + smuggled,
			get(strings.Repeat("Connection: x\r\n", wire.MaxConnectionOptions+1)) + smuggled,
		}},
		{"trailers that are no fields", "RFC 9112 §7.1.2: trailer-section = *( field-line CRLF )", []string{
			chunks("0\r\n"), chunks("0\r\nContent-Length : 5\r\n\r\n"), chunks("0\r\n Content-Length: 5\r\n\r\n"), chunks("0\r\nX: 1\n\r\n"), chunks("0\r\nX: 1\rY: 2\r\n\r\n"),
		}},
		{"a body that hides a request", "RFC 9112 §6.3: the framing alone says where it ends", []string{
			post(fmt.Sprintf("Content-Length: %d\r\n", len(smuggled))) + smuggled,
			chunkedHead + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled),
			post(fmt.Sprintf("Transfer_Encoding: chunked\r\nContent-Length: %d\r\n", len("0\r\n\r\n"+smuggled))) + "0\r\n\r\n" + smuggled,
			fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(smuggled)) + smuggled,
		}},
	}
}

// harmless are streams that resemble attacks and are taken: both requests are
// read, with nothing left of the first that could mislead who comes next.
func harmless() []attack {
	return []attack{
		{"Host differs from absolute-form", "RFC 9112 §3.2.2: the target's is taken, Host is replaced", []string{
			"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n" + smuggled, "GET http://b:80?x HTTP/1.1\r\nhost:\r\n\r\n" + smuggled,
		}},
		{"trailers that carry framing, routing or the mesh's words", "RFC 9110 §6.5.1: they are dropped", []string{
			chunkedHead + "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nConnection: close\r\nX: 1\r\n\r\n" + smuggled,
			chunkedHead + "0\r\nFairlead-Peer: 1\r\nFairlead-Peer-Failure: 1\r\nProxy-Authenticate: x\r\nX: 1\r\n\r\n" + smuggled,
		}},
		{"trailers that Connection names", "RFC 9110 §7.6.1: header and trailer fields of that name are removed", []string{
			post("Connection: keep-alive, X-Gone\r\nConnection: y\r\nTransfer-Encoding: chunked\r\n") + "0\r\nx-gone: 1\r\nX: 1\r\nY: 1\r\n\r\n" + smuggled,
		}},
		{"names that merely resemble the framing's", "RFC 9110 §5.1: another name is another field", []string{
			get("Transfer_Encoding: chunked\r\nContent_Length: 5\r\nX-Content-Length: 5\r\n") + smuggled,
		}},
		{"white space around a coding or length", "RFC 9112 §5.1: it is no part of the value", []string{
			post("Transfer-Encoding:\tchunked \t\r\n") + "0\r\n\r\n" + smuggled, post("Content-Length: \t0 \r\n") + smuggled,
		}},
		{"leading zeros, spelling of the coding", "RFC 9110 §8.6, RFC 9112 §7: both mean the same to everybody", []string{
			post("Content-Length: 00\r\n") + smuggled, post("Transfer-Encoding: cHUNKED\r\n") + "00\r\n\r\n" + smuggled,
		}},
		{"as many options in Connection as are looked at", "RFC 9110 §7.6.1", []string{
			get("Connection: "+strings.Repeat("x,,", wire.MaxConnectionOptions)+"\r\n") + smuggled,
		}},
		{"white space before a chunk extension", "RFC 9112 §7.1.1, RFC 9110 §5.6.3: it is removed with the extension", []string{
			chunkedHead + "0 ;x\r\n\r\n" + smuggled, chunkedHead + "0\t;x\r\n\r\n" + smuggled,
		}},
		{"one empty line before a request", "RFC 9112 §2.2: ignored, as old clients send it behind a body", []string{
			post("Content-Length: 1\r\n") + "x\r\n" + smuggled,
		}},
	}
}

// TestSmuggling is read with testdata/smuggling.golden, which has, for each class,
// every stream and what comes of it.
func TestSmuggling(t *testing.T) {
	var golden strings.Builder
	for _, a := range attacks() {
		fmt.Fprintf(&golden, "# %s\n# %s\n", a.class, a.why)
		for _, raw := range a.raws {
			outcome := outcomeOf(t, raw)
			if strings.Contains(outcome, "GET a /smuggled") {
				t.Errorf("%s: %q lets the second request through", a.class, raw)
			}
			fmt.Fprintf(&golden, "%s\n    %s\n", short(raw), outcome)
		}
		golden.WriteByte('\n')
	}
	for _, a := range harmless() {
		fmt.Fprintf(&golden, "# taken: %s\n# %s\n", a.class, a.why)
		for _, raw := range a.raws {
			outcome := outcomeOf(t, raw)
			if !strings.HasSuffix(outcome, "GET a /smuggled [Host: a] \"\"; EOF") {
				t.Errorf("%s: %q: %s", a.class, raw, outcome)
			}
			fmt.Fprintf(&golden, "%s\n    %s\n", short(raw), outcome)
		}
		golden.WriteByte('\n')
	}
	compareGolden(t, "smuggling.golden", golden.String())
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	have, expected := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range min(len(have), len(expected)) {
		if have[i] != expected[i] {
			t.Fatalf("%s:%d\n got %s\nwant %s\n(go test -update writes it anew)", path, i+1, have[i], expected[i])
		}
	}
	if len(have) != len(expected) {
		t.Fatalf("%s has %d lines, want %d", path, len(expected), len(have))
	}
}

// short is a stream as the golden file has it: quoted, the second request named.
func short(raw string) string {
	q := fmt.Sprintf("%q", strings.ReplaceAll(raw, smuggled, "<SMUGGLED>"))
	return strings.ReplaceAll(q, strings.Repeat("x", maxChunkLine), fmt.Sprintf("<%d × x>", maxChunkLine))
}

// outcomeOf is what is read of a stream: requests with their fields (those of this
// connection removed), body and trailers; then how it ended. It is the same however
// the stream comes in, but for which of two faults in a head is named.
func outcomeOf(t *testing.T, raw string) string {
	t.Helper()
	requests, end := outcome(NewConn(&script{pieces: split(raw)}, Server, nil))
	again, otherEnd := outcome(NewConn(&script{pieces: dripped(raw)}, Server, nil))
	if again != requests || statusOf(otherEnd) != statusOf(end) {
		t.Errorf("%q: %s%v, dripped %s%v", raw, requests, end, again, otherEnd)
	}
	if status := statusOf(end); status > 0 {
		return fmt.Sprintf("%s%d %v", requests, status, end)
	}
	return requests + end.Error()
}

func outcome(c *Conn) (requests string, end error) {
	defer c.Release()
	var h wire.Head
	for {
		if err := c.ReadRequest(&h); err != nil {
			return requests, err
		}
		wire.RemoveHopByHop(&h)
		var fields []string
		for _, f := range h.Fields {
			fields = append(fields, string(f.Name)+": "+string(f.Value))
		}
		requests += fmt.Sprintf("%s %s %s [%s] ", h.Method, h.Authority, h.Path, strings.Join(fields, ", "))
		body, err := readAll(c)
		if err != nil {
			return requests, err
		}
		requests += fmt.Sprintf("%q", strings.ReplaceAll(body, smuggled, "<SMUGGLED>"))
		for _, f := range c.Trailers() {
			requests += fmt.Sprintf(" +%s: %s", f.Name, f.Value)
		}
		requests += "; "
		if err := c.EndExchange(); err != nil {
			return requests, err
		}
	}
}

func statusOf(err error) int {
	var refused *wire.Error
	if errors.As(err, &refused) {
		return refused.Status
	}
	return 0
}
