package conformance_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// strictResponse is a message that a client understood, which takes one spelling of everything.
type strictResponse struct {
	status    int
	fields    map[string][]string
	body      string
	trailers  map[string][]string
	brokenOff bool
	bodyless  bool // whatever its fields say of one
	last      bool // the connection ends behind it
}

// String is one line that says what the response is: that of the proxy by its reason.
func (a strictResponse) String() string {
	if reason := a.fields["fairlead-reason"]; len(reason) > 0 {
		return fmt.Sprintf("refused %d %s", a.status, strings.Join(reason, ","))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d", a.status)
	if a.brokenOff {
		return b.String() + " broken off" // behind how much of it, no two tries agree
	}
	say := func(fields map[string][]string, as string) {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			switch name {
			case "date", "connection", "transfer-encoding":
				continue
			case "content-length":
				if !a.bodyless {
					continue // the body shows it
				}
			}
			for _, v := range fields[name] {
				fmt.Fprintf(&b, ", %s%s: %s", as, escaped(name), escaped(v))
			}
		}
	}
	say(a.fields, "")
	if a.body != "" {
		fmt.Fprintf(&b, `, "%s"`, escaped(a.body))
	}
	say(a.trailers, "trailer ")
	return b.String()
}

// escaped is a text in ASCII; of a long one it tells how long it is.
func escaped(s string) string {
	if len(s) > 100 {
		return fmt.Sprintf("%.10s... %d bytes", s, len(s))
	}
	return strings.Trim(strconv.QuoteToASCII(s), `"`)
}

// hasNoBody reports whether a response has none, whatever its fields say (RFC 9112 §6.3, 1).
func hasNoBody(status int, method string) bool {
	return method == "HEAD" || status < 200 || status == 204 || status == 304
}

// checkFields finds what may not be in a response of either version, for status and method.
func checkFields(fields map[string][]string, status int, method string) error {
	for _, name := range []string{"proxy-connection", "keep-alive", "te", "host", "fairlead-peer-failure", "fairlead-case", "proxy-authenticate"} {
		if len(fields[name]) > 0 && name != "host" {
			return fmt.Errorf("%s: %q was for the next hop only", name, fields[name])
		}
	}
	lengths := fields["content-length"]
	if len(lengths) > 1 || len(lengths) == 1 && (lengths[0] == "" || len(lengths[0]) > 18 || strings.Trim(lengths[0], "0123456789") != "") {
		return fmt.Errorf("lengths %q", lengths)
	}
	if len(lengths) > 0 && (status < 200 || status == 204) { // RFC 9110 §8.6
		return fmt.Errorf("%d has a length", status)
	}
	return nil
}

// checkTrailers finds what may not be behind a body.
func checkTrailers(trailers map[string][]string) error {
	for _, name := range []string{"content-length", "transfer-encoding", "host", "connection", "trailer", "te", "upgrade", "keep-alive", "content-type", "fairlead-reason"} {
		if len(trailers[name]) > 0 {
			return fmt.Errorf("a trailer %s", name)
		}
	}
	return nil
}

// readStrictly reads a response of HTTP/1.1 to a method, an interim one too. io.EOF: none has
// begun.
func readStrictly(in *bufio.Reader, method string) (a strictResponse, err error) {
	line, err := strictLine(in, true)
	if err != nil {
		return a, err
	}
	version, rest, _ := strings.Cut(line, " ")
	status, _, hasReason := strings.Cut(rest, " ")
	a.status, err = strconv.Atoi(status)
	if version != "HTTP/1.1" || err != nil || !hasReason || len(status) != 3 || a.status < 100 || a.status > 599 {
		return a, fmt.Errorf("%q is no status line", line)
	}
	a.bodyless = hasNoBody(a.status, method)
	if a.fields, err = strictFields(in); err != nil {
		return a, err
	}
	if err := checkFields(a.fields, a.status, method); err != nil {
		return a, err
	}
	for _, option := range strings.Split(strings.Join(a.fields["connection"], ","), ",") {
		switch option = strings.TrimSpace(option); {
		case option == "close":
			a.last = true
		case option != "" && option != "keep-alive" && (a.status != 101 || option != "Upgrade"):
			return a, fmt.Errorf("the connection's option %q was for the next hop only", option)
		}
	}
	if len(a.fields["upgrade"]) > 0 && a.status != 101 {
		return a, errors.New("Upgrade was for the next hop only")
	}
	codings, lengths := a.fields["transfer-encoding"], a.fields["content-length"]
	switch {
	case len(codings) > 0 && (len(lengths) > 0 || len(codings) > 1 || codings[0] != "chunked"):
		return a, fmt.Errorf("lengths %q, codings %q", lengths, codings)
	case len(codings) > 0 && (a.status < 200 || a.status == 204): // RFC 9112 §6.1
		return a, fmt.Errorf("%d has a coding", a.status)
	case a.bodyless:
		return a, nil
	case len(codings) == 0 && len(lengths) == 0:
		b, err := io.ReadAll(in)
		a.body, a.last = string(b), true
		if err != nil {
			return a, err
		}
		return a, errors.New("a body that only the end of its connection ends")
	}
	length := int64(-1)
	if len(codings) == 0 {
		length, _ = strconv.ParseInt(lengths[0], 10, 64)
	}
	a.body, a.trailers, err = strictContent(in, length)
	if errors.Is(err, errBroken) {
		a.brokenOff = true
		return a, nil
	}
	if err != nil {
		return a, err
	}
	return a, checkTrailers(a.trailers)
}

// overStrictHTTP1 sends a request and returns what comes for it, and then, behind what then
// does, the canary's answer, if the connection goes on.
func overStrictHTTP1(nc net.Conn, head, method string, then func()) (all []strictResponse, canaryToo bool, err error) {
	in := bufio.NewReader(nc)
	if _, err := io.WriteString(nc, head); err != nil {
		return nil, false, err
	}
	for {
		a, err := readStrictly(in, method)
		if err != nil {
			return all, false, err
		}
		if all = append(all, a); a.status >= 200 || a.status == 101 {
			break
		}
	}
	then()
	last := all[len(all)-1]
	if last.brokenOff {
		return all, false, nil
	}
	if n := in.Buffered(); n > 0 {
		b, _ := in.Peek(n)
		return all, false, fmt.Errorf("%q comes behind the end of the answer", b)
	}
	// Whether or not the connection was to end, what comes now can only be the canary's.
	_, _ = io.WriteString(nc, canary)
	a, err := readStrictly(in, "GET")
	switch {
	case err != nil && a.status == 0: // its end
		return all, false, nil
	case err != nil:
		return all, false, err
	case last.last:
		return all, false, fmt.Errorf("%q comes behind the last answer", a)
	case a.body != canaryEcho:
		return all, false, fmt.Errorf("the canary is answered %q", a)
	}
	rest, _ := io.ReadAll(in)
	if len(rest) > 0 {
		return all, false, fmt.Errorf("%q comes behind the canary's answer", rest)
	}
	return all, true, nil
}

// h2Client is a client's connection of HTTP/2.
type h2Client struct {
	nc      net.Conn
	in      *h2.Framer
	out     *h2.Framer
	encoder *hpack.Encoder
	block   *strings.Builder
}

func newH2Client(nc net.Conn) (*h2Client, error) {
	c := &h2Client{nc: nc, in: h2.NewFramer(io.Discard, nc), out: h2.NewFramer(nc, nil), block: &strings.Builder{}}
	c.in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(c.block)
	if _, err := io.WriteString(nc, h2.ClientPreface); err != nil {
		return nil, err
	}
	return c, errors.Join(c.out.WriteSettings(), c.out.WriteSettingsAck())
}

// ask sends a request that has no body.
func (c *h2Client) ask(id uint32, fields ...string) error {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.out.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: []byte(c.block.String()), EndHeaders: true, EndStream: fields[1] != "CONNECT"})
}

// read reads what comes on a stream until that has ended, and on no other.
func (c *h2Client) read(id uint32, method string) (all []strictResponse, err error) {
	final := false
	for {
		frame, err := c.in.ReadFrame()
		if err != nil {
			return all, err
		}
		if on := frame.Header().StreamID; on != id && on != 0 {
			// RFC 9113 §8.1: what of a request was not sent is not wanted, once its answer is whole.
			if reset, ok := frame.(*h2.RSTStreamFrame); ok && on < id && reset.ErrCode == h2.ErrCodeNo {
				continue
			}
			return all, fmt.Errorf("%v comes on stream %d", frame, on)
		}
		switch frame := frame.(type) {
		case *h2.MetaHeadersFrame:
			fields, err := decodedFields(frame)
			if err != nil {
				return all, err
			}
			if final {
				last := &all[len(all)-1]
				if last.trailers = fields; !frame.StreamEnded() || len(frame.PseudoFields()) > 0 {
					return all, fmt.Errorf("%v comes for trailers", frame)
				}
				return all, errors.Join(checkTrailers(fields), wholeBody(last, method))
			}
			status, _ := strconv.Atoi(frame.PseudoValue("status"))
			a := strictResponse{status: status, fields: fields, bodyless: hasNoBody(status, method)}
			all = append(all, a)
			final = status >= 200
			if len(frame.PseudoFields()) != 1 || status < 102 && status != 100 || status > 599 || !final && frame.StreamEnded() {
				return all, fmt.Errorf("%v comes for a head", frame)
			}
			if err := checkFields(fields, status, method); err != nil {
				return all, err
			}
			if frame.StreamEnded() {
				return all, wholeBody(&all[len(all)-1], method)
			}
		case *h2.DataFrame:
			if !final {
				return all, errors.New("DATA comes before a head")
			}
			last := &all[len(all)-1]
			if last.body += string(frame.Data()); frame.StreamEnded() {
				return all, wholeBody(last, method)
			}
			if n := uint32(len(frame.Data())); n > 0 {
				_ = errors.Join(c.out.WriteWindowUpdate(0, n), c.out.WriteWindowUpdate(id, n))
			}
		case *h2.RSTStreamFrame:
			if !final {
				return append(all, strictResponse{}), fmt.Errorf("reset %v before an answer", frame.ErrCode)
			}
			all[len(all)-1].brokenOff = true
			return all, nil
		case *h2.GoAwayFrame:
			return all, fmt.Errorf("the connection ends: %v", frame.ErrCode)
		}
	}
}

// decodedFields returns the fields of a head, of which the framer has checked the names' form.
func decodedFields(frame *h2.MetaHeadersFrame) (map[string][]string, error) {
	fields := map[string][]string{}
	for _, f := range frame.RegularFields() {
		switch f.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade": // RFC 9113 §8.2.2
			return nil, fmt.Errorf("%s is for a connection of HTTP/1.1", f.Name)
		}
		if strings.Trim(f.Value, " \t") != f.Value || strings.ContainsAny(f.Value, "\x00\r\n") {
			return nil, fmt.Errorf("the value of %s: %q", f.Name, f.Value)
		}
		fields[f.Name] = append(fields[f.Name], f.Value)
	}
	return fields, nil
}

// wholeBody finds fault with a body that has come to its end.
func wholeBody(a *strictResponse, method string) error {
	if a.bodyless {
		if a.body != "" {
			return fmt.Errorf("%d to %s has the body %q", a.status, method, a.body)
		}
		return nil
	}
	if n := a.fields["content-length"]; len(n) > 0 && n[0] != strconv.Itoa(len(a.body)) {
		return fmt.Errorf("%s bytes are said to come, %d do", n[0], len(a.body))
	}
	return nil
}

// overStrictHTTP2 is overStrictHTTP1 over HTTP/2.
func overStrictHTTP2(nc net.Conn, method string, then func()) (all []strictResponse, canaryToo bool, err error) {
	c, err := newH2Client(nc)
	if err != nil {
		return nil, false, err
	}
	fields := []string{":method", method, ":scheme", "http", ":authority", "a", ":path", attackPath}
	if method == switching {
		fields = append(fields, ":protocol", "chat")
		fields[1] = "CONNECT"
	}
	if err := c.ask(1, fields...); err != nil {
		return nil, false, err
	}
	all, err = c.read(1, method)
	then()
	if err != nil {
		return all, false, err
	}
	if err := c.ask(3, ":method", "GET", ":scheme", "http", ":authority", "canary", ":path", "/canary"); err != nil {
		return all, false, err
	}
	a, err := c.read(3, "GET")
	if err == nil && (len(a) != 1 || a[0].body != canaryEcho) {
		err = fmt.Errorf("the canary is answered %q", a)
	}
	return all, err == nil, err
}

// The client is of use only if it takes nothing that could be read in two ways.
func TestStrictClientRefusesWhatCouldBeReadInTwoWays(t *testing.T) {
	const head, chunked = "HTTP/1.1 200 OK\r\nDate: x\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, raw := range []string{
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", head + "Content-Length: 0\n\r\n", head + "X: a\x00b\r\nContent-Length: 0\r\n\r\n", head + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n", head + "X : a\r\nContent-Length: 0\r\n\r\n",
		head + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", head + "Content-Length: +0\r\n\r\n", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", head + "\r\n",
		head + "Connection: x\r\nContent-Length: 0\r\n\r\n", head + "Keep-Alive: x\r\nContent-Length: 0\r\n\r\n", head + "Upgrade: x\r\nContent-Length: 0\r\n\r\n", head + "TE: trailers\r\nContent-Length: 0\r\n\r\n", head + "Fairlead-Peer-Failure: not_delivered\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n",
		chunked + "0;x\r\n\r\n", chunked + "0\r\nContent-Length: 0\r\n\r\n", chunked + "1\r\nxx\r\n0\r\n\r\n", chunked + "0\n\r\n",
	} {
		if a, err := readStrictly(bufio.NewReader(strings.NewReader(raw)), "GET"); err == nil {
			t.Errorf("%q is taken for %q", raw, a)
		}
	}
	for raw, want := range map[string]string{
		head + "X: y\r\nContent-Length: 5\r\n\r\nhello":                     `200, x: y, "hello"`,
		head + "Content-Length: 5\r\n\r\nhell":                              `200 broken off`,
		chunked + "5\r\nhello\r\n0\r\nX: y\r\n\r\n":                         `200, "hello", trailer x: y`,
		chunked + "5\r\nhello\r\n0\r\n":                                     `200 broken off`,
		"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n":                       `304, content-length: 5`,
		"HTTP/1.1 502 X\r\nFairlead-Reason: a\r\nContent-Length: 0\r\n\r\n": `refused 502 a`,
	} {
		if a, err := readStrictly(bufio.NewReader(strings.NewReader(raw)), "GET"); err != nil || a.String() != want {
			t.Errorf("%q is %q, %v", raw, a, err)
		}
	}
}
