package sniff

import (
	"errors"
	"strings"
	"testing"
)

func TestWhatSpeaksHTTPIsKnownByItsFirstBytes(t *testing.T) {
	for _, test := range []struct {
		data string
		is   Speech
		at   int // bytes after which it is known
	}{
		{"GET / HTTP/1.1\r\n", HTTP1, 5},
		{"\r\nGET / HTTP/1.1\r\n", HTTP1, 7},
		{"OPTIONS * HTTP/1.1\r\n", HTTP1, 9},
		{"POST http://a/ HTTP/1.1\r\n", HTTP1, 10},
		{"GET HTTPS://a/ HTTP/1.1\r\n", HTTP1, 10},
		{"CONNECT a:443 HTTP/1.1\r\n", HTTP1, 9},
		{"CONNECT [::1]:443 HTTP/1.1\r\n", HTTP1, 9},
		{"PROPFIND / HTTP/1.1\r\n", HTTP1, 10},
		{"UPDATEREDIRECTREF / HTTP/1.1\r\n", HTTP1, 19},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", HTTP2, 24},
		{"PRI / HTTP/1.1\r\n", Opaque, 5},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx", Opaque, 24},
		{"get / HTTP/1.1\r\n", Opaque, 1},
		{"get key\r\n", Opaque, 1},
		{"GET key\r\n", Opaque, 5},
		{"GET httq", Opaque, 8},
		{"GET httpx:", Opaque, 9},
		{"GET httpss:", Opaque, 10},
		{"GET *", Opaque, 5},
		{"CONNECT /", Opaque, 9},
		{"GETS /", Opaque, 4},
		{"EHLO a\r\n", Opaque, 1},
		{"LOGIN a\r\n", Opaque, 3},
		{" GET /", Opaque, 1},
		{"\r\n\r\nGET /", Opaque, 3},
		{"\r\r", Opaque, 2},
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", Opaque, 1}, // PostgreSQL's SSLRequest
		{"\x16\x03\x01", Opaque, 1},
		{"*1\r\n$4\r\nPING\r\n", Opaque, 1},
	} {
		for n := range test.data {
			is, err := HTTP([]byte(test.data[:n]))
			if n < test.at && !errors.Is(err, ErrShort) {
				t.Errorf("%q is known as %d", test.data[:n], is)
			}
			if n >= test.at && (err != nil || is != test.is) {
				t.Errorf("%q is %d, %v, want %d", test.data[:n], is, err, test.is)
			}
		}
	}
}

func TestKnowingHTTPAllocatesNothing(t *testing.T) {
	data := [][]byte{[]byte("OPTIONS http:"), []byte(preface), []byte("VERSION-CONTRO"), []byte("opaque")}
	if n := testing.AllocsPerRun(100, func() {
		for _, d := range data {
			_, _ = HTTP(d)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is known does not change with more bytes, and is known in time.
func FuzzHTTP(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", preface, "\r\nOPTIONS *", "CONNECT [", "PUT https:", "PRI *", "VERSION-CONTROL /", "\r\n\r\n", "\x16\x03\x01"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		is, err := HTTP(data)
		for n := range data {
			if early, short := HTTP(data[:n]); short == nil && (err != nil || early != is) {
				t.Fatalf("%q is %d, and %q %d, %v", data[:n], early, data, is, err)
			}
		}
		switch {
		case err != nil && (!errors.Is(err, ErrShort) || len(data) >= MaxHTTP):
			t.Errorf("%q: %v", data, err)
		case is == HTTP2 && !strings.HasPrefix(string(data), preface):
			t.Errorf("%q is HTTP/2", data)
		}
	})
}
