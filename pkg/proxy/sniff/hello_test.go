package sniff

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// catch returns what a client of crypto/tls sends first.
func catch(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, config).Handshake()
	}()
	b := make([]byte, MaxHello)
	n, err := far.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = far.Close(), near.Close()
	<-done
	return b[:n]
}

func modern(tb testing.TB) []byte {
	return catch(tb, &tls.Config{ServerName: "Shop.Example.com", NextProtos: []string{"h2", "http/1.1"}})
}

func old(tb testing.TB) []byte {
	return catch(tb, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
}

// spread cuts the handshake of one record into records of n bytes.
func spread(hello []byte, n int) []byte {
	var all []byte
	for part := range slices.Chunk(hello[recordHeader:], n) {
		all = append(all, hello[0], hello[1], hello[2])
		all = binary.BigEndian.AppendUint16(all, uint16(len(part)))
		all = append(all, part...)
	}
	return all
}

// standard is what crypto/tls reads in the same bytes; nil if it refuses them before it
// would answer.
func standard(data []byte) *tls.ClientHelloInfo {
	var got *tls.ClientHelloInfo
	stop := errors.New("that was all")
	_ = tls.Server(bytesConn{bytes.NewReader(data)}, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		got = info
		return nil, stop
	}}).Handshake()
	return got
}

// bytesConn is a connection that has been recorded.
type bytesConn struct{ io.Reader }

func (bytesConn) Write(p []byte) (int, error)      { return len(p), nil }
func (bytesConn) Close() error                     { return nil }
func (bytesConn) LocalAddr() net.Addr              { return nil }
func (bytesConn) RemoteAddr() net.Addr             { return nil }
func (bytesConn) SetDeadline(time.Time) error      { return nil }
func (bytesConn) SetReadDeadline(time.Time) error  { return nil }
func (bytesConn) SetWriteDeadline(time.Time) error { return nil }

func protocols(h *Hello) []string {
	var all []string
	for p := range h.Protocols() {
		all = append(all, string(p))
	}
	return all
}

func TestServerNameAndProtocolsAreRead(t *testing.T) {
	for name, test := range map[string]struct {
		data      []byte
		server    string
		protocols []string
	}{
		"TLS 1.3":              {modern(t), "Shop.Example.com", []string{"h2", "http/1.1"}},
		"neither":              {old(t), "", nil},
		"two records":          {spread(modern(t), 200), "Shop.Example.com", []string{"h2", "http/1.1"}},
		"records of a byte":    {spread(modern(t), 1), "Shop.Example.com", []string{"h2", "http/1.1"}},
		"something behind it":  {append(modern(t), "GET /"...), "Shop.Example.com", []string{"h2", "http/1.1"}},
		"records, and behind":  {append(spread(modern(t), 300), 23, 3, 3, 0, 1, 0), "Shop.Example.com", []string{"h2", "http/1.1"}},
		"no extensions at all": {hello(nil), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := bytes.Clone(test.data)
			h, err := Parse(test.data)
			if err != nil || string(h.ServerName) != test.server || !slices.Equal(protocols(&h), test.protocols) {
				t.Errorf("%q %q, %v", h.ServerName, protocols(&h), err)
			}
			if !bytes.Equal(before, test.data) {
				t.Error("the bytes were changed")
			}
		})
	}
}

func TestAHelloIsShortUntilItIsWhole(t *testing.T) {
	for _, data := range [][]byte{modern(t), spread(old(t), 10)} {
		for n := range data {
			if _, err := Parse(data[:n]); !errors.Is(err, ErrShort) {
				t.Fatalf("%d of %d bytes: %v", n, len(data), err)
			}
		}
	}
}

// hello makes a ClientHello with extensions; nil for none, not even of length 0.
func hello(extensions []byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	if extensions != nil {
		body = binary.BigEndian.AppendUint16(body, uint16(len(extensions)))
		body = append(body, extensions...)
	}
	return framed(body)
}

func framed(body []byte) []byte {
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(message) >> 8), byte(len(message))}, message...)
}

func extension(kind uint16, contents string) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(contents)))
	return append(b, contents...)
}

func names(list string) []byte {
	return extension(extServerName, string(binary.BigEndian.AppendUint16(nil, uint16(len(list))))+list)
}

func name(kind byte, s string) string {
	return string([]byte{kind, byte(len(s) >> 8), byte(len(s))}) + s
}

func TestWhatIsNoHelloIsRefusedWithWhatIsWrong(t *testing.T) {
	join := func(all ...[]byte) []byte { return bytes.Join(all, nil) }
	body := hello(nil)[recordHeader+handshakeHeader:]
	for what, test := range map[string]struct {
		data []byte
		want string
	}{
		"HTTP":                       {[]byte("GET / HTTP/1.1\r\n"), "does not begin with a TLS handshake"},
		"SSL 2":                      {[]byte("\x80\x2e\x01\x00\x02"), "does not begin with a TLS handshake"},
		"another version":            {[]byte("\x16\x02"), "does not begin with a TLS handshake"},
		"an alert":                   {[]byte("\x15\x03\x01\x00\x02\x01\x00"), "does not begin with a TLS handshake"},
		"an empty record":            {[]byte("\x16\x03\x01\x00\x00"), "a record is empty"},
		"a record too long":          {[]byte("\x16\x03\x01\x40\x01"), "longer than 16 kB"},
		"a message too long":         {[]byte("\x16\x03\x01\x00\x04\x01\x00\x40\x00"), "longer than 16 kB"},
		"a ServerHello":              {[]byte("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), "another message"},
		"something between records":  {append(spread(modern(t), 100)[:105], 23, 3, 3, 0, 1, 0), "does not begin with"},
		"a length in records":        {bytes.Repeat([]byte("\x16\x03\x01\x00\x01\x01"), 4), "longer than 16 kB"},
		"a long one in many records": {spread(append([]byte("\x16\x03\x01\x00\x00\x01\x00\x30\x00"), make([]byte, 0x3000)...), 1)[:MaxHello], "with its records"},
		"an empty body":              {framed(nil), "before its extensions"},
		"a session id too long":      {framed(join(body[:34], []byte{33}, make([]byte, 33), body[35:])), "before its extensions"},
		"half a cipher suite":        {framed(join(body[:35], []byte{0, 3, 0, 0, 0, 1, 0})), "before its extensions"},
		"no cipher suite":            {framed(join(body[:35], []byte{0, 0, 1, 0})), "before its extensions"},
		"no compression":             {framed(join(body[:39], []byte{0})), "before its extensions"},
		"something behind":           {framed(join(body, []byte{0, 0, 1})), "something comes behind them"},
		"extensions cut off":         {framed(join(body, []byte{0, 9, 1})), "its extensions are cut off"},
		"an extension cut off":       {hello([]byte{0, 5, 0, 9, 1}), "an extension is cut off"},
		"half a head":                {hello([]byte{0, 5, 0}), "an extension is cut off"},
		"an extension twice":         {hello(join(extension(5, ""), extension(9, ""), extension(5, ""))), "there twice"},
		"no names":                   {hello(names("")), "is empty"},
		"names cut off":              {hello(extension(0, "\x00\x09\x00")), "cut off"},
		"something behind names":     {hello(extension(0, "\x00\x04"+name(0, "a")+"x")), "something comes behind it"},
		"an empty name":              {hello(names(name(0, ""))), "empty or cut off"},
		"a name cut off":             {hello(names("\x00\x00\x05abc")), "empty or cut off"},
		"two names":                  {hello(names(name(0, "a") + name(0, "b"))), "two server names"},
		"a dot at the end":           {hello(names(name(0, "example.com."))), "none of a host"},
		"a space":                    {hello(names(name(0, "example com"))), "none of a host"},
		"a zero byte":                {hello(names(name(0, "example.com\x00"))), "none of a host"},
		"a name too long":            {hello(names(name(0, strings.Repeat("a", 256)))), "none of a host"},
		"no protocols":               {hello(extension(extALPN, "\x00\x00")), "is empty"},
		"an empty protocol":          {hello(extension(extALPN, "\x00\x04\x02h2\x00")), "empty or cut off"},
		"a protocol cut off":         {hello(extension(extALPN, "\x00\x03\x03h2")), "empty or cut off"},
		"something behind protocols": {hello(extension(extALPN, "\x00\x03\x02h2x")), "something comes behind it"},
	} {
		if _, err := Parse(test.data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", what, err, test.want)
		}
	}
}

func TestANameOfAnotherTypeIsPassedOver(t *testing.T) {
	h, err := Parse(hello(names(name(7, "\x00") + name(0, "a_b-c.example"))))
	if err != nil || string(h.ServerName) != "a_b-c.example" {
		t.Errorf("%q, %v", h.ServerName, err)
	}
}

func TestReadingAHelloDoesNotAllocate(t *testing.T) {
	data := modern(t)
	if n := testing.AllocsPerRun(100, func() {
		if h, err := Parse(data); err != nil || len(h.ServerName) == 0 {
			t.Error(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// What this package reads, crypto/tls reads the same; what crypto/tls reads, it refuses only
// for its name, or for the length of a session id or a list before the extensions, which
// crypto/tls does not look at.
func FuzzParse(f *testing.F) {
	for _, data := range [][]byte{
		modern(f), old(f), spread(modern(f), 100), hello(nil), hello([]byte{}), hello(names(name(0, "a"))),
		hello(names(name(0, "a") + name(0, "b"))), hello(extension(extALPN, "\x00\x03\x02h2")), []byte("GET / HTTP/1.1\r\n"),
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Parse(data)
		if len(data) > MaxHello {
			return
		}
		info := standard(data)
		switch {
		case err == nil && info != nil:
			if info.ServerName != string(h.ServerName) || !slices.Equal(info.SupportedProtos, protocols(&h)) {
				t.Errorf("%q %q, crypto/tls reads %q %q", h.ServerName, protocols(&h), info.ServerName, info.SupportedProtos)
			}
		case err == nil || info == nil: // crypto/tls looks at more, and both may refuse
		case errors.Is(err, ErrNotTLS): // crypto/tls takes versions that never were
		case !strings.Contains(err.Error(), "none of a host") && !strings.Contains(err.Error(), "of a wrong length"):
			t.Errorf("%v, crypto/tls reads %q %q", err, info.ServerName, info.SupportedProtos)
		}
	})
}
