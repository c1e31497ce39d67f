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
