package proxyproto

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

func end(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// block makes a header of version 2.
func block(command, family byte, body string) string {
	return signature + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

func tlv(kind byte, value string) string {
	return string([]byte{kind, byte(len(value) >> 8), byte(len(value))}) + value
}

// summed puts the checksum into a block whose last TLV it is.
func summed(s string) string {
	b := []byte(s)
	binary.BigEndian.PutUint32(b[len(b)-4:], checksum(b, len(b)-4))
	return string(b)
}

const (
	ends4 = "\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb"
	ends6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x50\x01\xbb"
)

type good struct {
	header              string
	version             Version
	source, destination string // "": not known
}

func goodHeaders() map[string]good {
	return map[string]good{
		"TCP4":                          {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", V1, "1.2.3.4:80", "5.6.7.8:443"},
		"TCP4, longest":                 {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", V1, "255.255.255.255:65535", "255.255.255.255:65535"},
		"TCP4, shortest":                {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", V1, "0.0.0.0:0", "0.0.0.0:0"},
		"TCP6":                          {"PROXY TCP6 2001:db8::1 2001:DB8::2 80 443\r\n", V1, "[2001:db8::1]:80", "[2001:db8::2]:443"},
		"TCP6, longest":                 {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", V1, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		"TCP6, shortest":                {"PROXY TCP6 :: :: 0 0\r\n", V1, "[::]:0", "[::]:0"},
		"UNKNOWN":                       {"PROXY UNKNOWN\r\n", V1, "", ""},
		"UNKNOWN with what is ignored":  {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", V1, "", ""},
		"UNKNOWN, as long as a line is": {"PROXY UNKNOWN " + strings.Repeat("x", maxV1-16) + "\r\n", V1, "", ""},
		"LOCAL":                         {block(commandLocal, unspecified, ""), V2, "", ""},
		"LOCAL with what is ignored":    {block(commandLocal, 0x77, "anything"), V2, "", ""},
		"UNSPEC":                        {block(commandProxy, unspecified, ""), V2, "", ""},
		"UNSPEC with a TLV":             {block(commandProxy, unspecified, tlv(0xe0, "x")), V2, "", ""},
		"binary TCP4":                   {block(commandProxy, tcp4, ends4), V2, "1.2.3.4:80", "5.6.7.8:443"},
		"binary TCP6":                   {block(commandProxy, tcp6, ends6), V2, "[2001:db8::1]:80", "[2001:db8::2]:443"},
		"binary UDP4":                   {block(commandProxy, udp4, ends4), V2, "", ""},
		"binary UDP6":                   {block(commandProxy, udp6, ends6), V2, "", ""},
		"UNIX stream":                   {block(commandProxy, unixStream, strings.Repeat("p", unixPaths)), V2, "", ""},
		"UNIX datagram":                 {block(commandProxy, unixDgram, strings.Repeat("p", unixPaths)+tlv(1, "")), V2, "", ""},
		"TLVs":                          {block(commandProxy, tcp4, ends4+tlv(1, "h2")+tlv(4, "")+tlv(2, "example.com")), V2, "1.2.3.4:80", "5.6.7.8:443"},
		"a checksum":                    {summed(block(commandProxy, tcp4, ends4+tlv(2, "example.com")+tlv(typeCRC32C, "0000"))), V2, "1.2.3.4:80", "5.6.7.8:443"},
		"as long as may be":             {block(commandProxy, tcp4, ends4+tlv(0xee, strings.Repeat("x", MaxV2-fixed-addresses-3))), V2, "1.2.3.4:80", "5.6.7.8:443"},
	}
}

func TestAHeaderIsReadAndNothingBehindIt(t *testing.T) {
	for name, test := range goodHeaders() {
		t.Run(name, func(t *testing.T) {
			const behind = "PROXY GET /"
			for how, wrap := range map[string]func(io.Reader) io.Reader{
				"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "in halves": iotest.HalfReader,
			} {
				whole := strings.NewReader(test.header + behind)
				h, err := Read(wrap(whole), 0)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if left, _ := io.ReadAll(whole); string(left) != behind {
					t.Errorf("%s: %q is left", how, left)
				}
				if h.Version != test.version || h.Known() != (test.source != "") {
					t.Errorf("%s: %+v", how, h)
				}
				if test.source != "" && (h.Source != end(test.source) || h.Destination != end(test.destination)) {
					t.Errorf("%s: %v to %v", how, h.Source, h.Destination)
				}
			}
		})
	}
}

func TestWhatIsNoHeaderIsRefusedWithWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct{ header, want string }{
		"another protocol":             {"GET / HTTP/1.1\r\n", "does not begin with a header"},
		"its first byte":               {"G", "does not begin with a header"},
		"in small letters":             {"proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n", "does not begin with a header"},
		"TLS":                          {"\x16\x03\x01\x02\x00\x01", "does not begin with a header"},
		"TCP5":                         {"PROXY TCP5", "does not begin with a header"},
		"two spaces behind PROXY":      {"PROXY  TCP4 1.2.3.4 5.6.7.8 80 443\r\n", "does not begin with a header"},
		"UNKNOWNS":                     {"PROXY UNKNOWNS\r\n", "none of TCP4, TCP6 and UNKNOWN"},
		"two spaces":                   {"PROXY TCP4 1.2.3.4  5.6.7.8 80 443\r\n", "each behind one space"},
		"a space at the end":           {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n", "each behind one space"},
		"a port too few":               {"PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n", "each behind one space"},
		"no end but the line's":        {"PROXY TCP4 1.2\r\n", "each behind one space"},
		"a line feed alone":            {"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n", "without a carriage return"},
		"a carriage return alone":      {"PROXY TCP4 1.2.3.4\r5.6.7.8 80 443\r\n", "without a line feed"},
		"a carriage return at the end": {"PROXY UNKNOWN \rx\r\n", "without a line feed"},
		"an IPv6 address in TCP4":      {"PROXY TCP4 ::1 ::2 80 443\r\n", "none of TCP4"},
		"an IPv4 address in TCP6":      {"PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n", "none of TCP6"},
		"an address with a zone":       {"PROXY TCP6 fe80::1%eth0 ::2 80 443\r\n", "none of TCP6"},
		"a heading zero in an address": {"PROXY TCP4 01.2.3.4 5.6.7.8 80 443\r\n", "none of TCP4"},
		"a heading zero in a port":     {"PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n", "not a number of 0 to 65535"},
		"a sign":                       {"PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n", "not a number of 0 to 65535"},
		"a port too large":             {"PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n", "not a number of 0 to 65535"},
		"a line too long":              {"PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n", "longer than 107 bytes"},
		"a line without end":           {"PROXY TCP4 " + strings.Repeat("1", 200), "longer than 107 bytes"},
		"version 1 in binary":          {block(0x11, tcp4, ends4), "version is not 2"},
		"another command":              {block(0x22, tcp4, ends4), "neither LOCAL nor PROXY"},
		"another family":               {block(commandProxy, 0x41, ends4), "none that there is"},
		"another transport":            {block(commandProxy, 0x13, ends4), "none that there is"},
		"a family without a transport": {block(commandProxy, 0x10, ends4), "none that there is"},
		"too short for IPv4":           {block(commandProxy, tcp4, ends4[1:]), "too short for its addresses"},
		"too short for IPv6":           {block(commandProxy, tcp6, ends4), "too short for its addresses"},
		"too short for UNIX":           {block(commandProxy, unixStream, ends6), "too short for its addresses"},
		"longer than may be":           {block(commandProxy, tcp4, ends4+strings.Repeat("x", MaxV2-fixed-addresses+1)), "more than 536"},
		"a TLV that is cut off":        {block(commandProxy, tcp4, ends4+"\x01\x00"), "a TLV is cut off"},
		"a TLV that is too long":       {block(commandProxy, tcp4, ends4+"\x01\x00\x05abcd"), "a TLV is longer than the header"},
		"another checksum":             {block(commandProxy, tcp4, ends4+tlv(typeCRC32C, "0000")), "not that of the header"},
		"a checksum of two bytes":      {block(commandProxy, tcp4, ends4+tlv(typeCRC32C, "00")), "not 4 bytes long"},
		"a byte changed under the sum": {strings.Replace(summed(block(commandProxy, tcp4, ends4+tlv(typeCRC32C, "0000"))), "\x05\x06", "\x05\x07", 1), "not that of the header"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(iotest.OneByteReader(strings.NewReader(test.header)), 0)
			var bad *Error
			if !errors.As(err, &bad) || !strings.Contains(bad.Text, test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if _, err = Read(strings.NewReader(test.header), 0); !errors.As(err, &bad) || !strings.Contains(bad.Text, test.want) {
				t.Errorf("at once: %v, want %q", err, test.want)
			}
		})
	}
}

func TestAHeaderThatEndsEarlyIsNotWhole(t *testing.T) {
	for name, test := range goodHeaders() {
		for n := range len(test.header) {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := Read(strings.NewReader(test.header[:n]), 0); !errors.Is(err, want) {
				t.Errorf("%s, %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestALargerLimitLetsALongerBlockIn(t *testing.T) {
	long := block(commandProxy, tcp4, ends4+tlv(0xee, strings.Repeat("x", 2000)))
	if h, err := Read(strings.NewReader(long), 4096); err != nil || h.Source != end("1.2.3.4:80") {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := Read(strings.NewReader(long), 2030); err == nil {
		t.Error("a block longer than the limit was read")
	}
}

func TestWhatIsWrittenIsReadTheSame(t *testing.T) {
	random := func() netip.AddrPort {
		var b [16]byte
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		ip := netip.AddrFrom16(b)
		if rand.IntN(2) == 0 {
			ip = netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrPortFrom(ip, uint16(rand.Uint32()))
	}
	for range 1000 {
		h := Header{Version: V1 + Version(rand.IntN(2)), Source: random(), Destination: random()}
		if rand.IntN(10) == 0 {
			h.Source, h.Destination = netip.AddrPort{}, netip.AddrPort{}
		}
		got, err := Read(strings.NewReader(string(h.Append(nil))), 0)
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		same := func(a, b netip.AddrPort) bool {
			return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap() && a.Addr().Is4In6() == (b.Addr().Is4() != got.Source.Addr().Is4())
		}
		if got.Version != h.Version || got.Known() != h.Known() || h.Known() && (!same(got.Source, h.Source) || !same(got.Destination, h.Destination)) {
			t.Errorf("%+v came back as %+v", h, got)
		}
	}
}

func TestAHeaderIsWrittenAsTheSpecificationSays(t *testing.T) {
	for _, test := range []struct {
		source, destination string
		v1, v2              string
	}{
		{"1.2.3.4:80", "5.6.7.8:443", "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", block(commandProxy, tcp4, ends4)},
		{"[::ffff:1.2.3.4]:80", "5.6.7.8:443", "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", block(commandProxy, tcp4, ends4)},
		{"[2001:db8::1]:80", "[2001:db8::2]:443", "PROXY TCP6 2001:db8::1 2001:db8::2 80 443\r\n", block(commandProxy, tcp6, ends6)},
		{"1.2.3.4:80", "[2001:db8::2]:443", "PROXY TCP6 ::ffff:1.2.3.4 2001:db8::2 80 443\r\n",
			block(commandProxy, tcp6, strings.Repeat("\x00", 10)+"\xff\xff\x01\x02\x03\x04"+ends6[16:])},
		{"", "", "PROXY UNKNOWN\r\n", block(commandLocal, unspecified, "")},
	} {
		var h Header
		if test.source != "" {
			h.Source, h.Destination = end(test.source), end(test.destination)
		}
		for version, want := range map[Version]string{V1: test.v1, V2: test.v2} {
			h.Version = version
			if got := string(h.Append([]byte("x"))); got != "x"+want {
				t.Errorf("%s version %d: %q", test.source, version, got)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, test := range goodHeaders() {
		f.Add([]byte(test.header), byte(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step byte) {
		whole := strings.NewReader(string(data))
		h, err := Read(whole, 0)
		used := len(data) - whole.Len()
		if used > MaxV2 {
			t.Fatalf("%d bytes were read", used)
		}
		again, errAgain := Read(&steps{data: data, step: int(step%7) + 1}, 0)
		if h != again || (err == nil) != (errAgain == nil) {
			t.Fatalf("%+v %v, in steps %+v %v", h, err, again, errAgain)
		}
		if err != nil || !h.Known() {
			return
		}
		back, err := Read(strings.NewReader(string(h.Append(nil))), 0)
		if err != nil || back.Source.Port() != h.Source.Port() || back.Source.Addr().Unmap() != h.Source.Addr().Unmap() {
			t.Fatalf("%+v came back as %+v, %v", h, back, err)
		}
	})
}

// steps reads a few bytes at a time.
type steps struct {
	data []byte
	step int
}

func (s *steps) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.data)
	s.data = s.data[n:]
	return n, nil
}
