package http1

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestResponseHeadsThatAreRefused(t *testing.T) {
	for _, group := range []struct {
		rule string
		want *wire.Error
		raws []string
	}{
		{"RFC 9112 §4: status-line = HTTP-version SP 3DIGIT SP [ reason-phrase ]", errStatusLine, []string{
			"\r\n\r\n",
			"200 OK\r\n\r\n",
			"HTTP/1.1\r\n\r\n",
			"HTTP/1.1 \r\n\r\n",
			"HTTP/1.1 20\r\n\r\n",
			"HTTP/1.1 2000 OK\r\n\r\n",
			"HTTP/1.1 20x OK\r\n\r\n",
			"HTTP/1.1 -20 OK\r\n\r\n",
			"HTTP/1.1  200 OK\r\n\r\n",
			"HTTP/1.1\t200 OK\r\n\r\n",
			"HTTP/1.1 200OK\r\n\r\n",
			"HTTP/1.1 200\tOK\r\n\r\n",
			"HTTP/1.1 200 O\x00K\r\n\r\n",
			"HTTP/1.1 200 O\rK\r\n\r\n",
			"HTTP/1.1 200 OK\r\r\n\r\n",
			"\r\nHTTP/1.1 200 OK\r\n\r\n",
			"<html>this is not HTTP</html>\r\n\r\n",
		}},
		{"RFC 9110 §15: values outside 100..599 are invalid", errStatusLine, []string{
			"HTTP/1.1 000 \r\n\r\n",
			"HTTP/1.1 099 \r\n\r\n",
			"HTTP/1.1 600 \r\n\r\n",
			"HTTP/1.1 999 \r\n\r\n",
		}},
		{"RFC 9112 §2.3: HTTP-version", errVersion, []string{
			"http/1.1 200 OK\r\n\r\n",
			"HTTP/1,1 200 OK\r\n\r\n",
			"ICECAST1 200 OK\r\n\r\n",
		}},
		{"RFC 9112 §2.3: only 1.0 and 1.1", errVersionNumber, []string{"HTTP/2.0 200 OK\r\n\r\n"}},
		{"RFC 9112 §2.2: CRLF", errBareLF, []string{
			"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nX: 1\n\n",
			"\nHTTP/1.1 200 OK\r\n\r\n",
		}},
		{"RFC 9112 §5.1: no white space before the colon (a proxy MUST remove it; this one refuses)", errFieldName, []string{
			"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
		}},
		{"RFC 9112 §5.2: obs-fold", errFold, []string{"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n"}},
		{"RFC 9112 §6.3, 5: invalid Content-Length in a response", errContentLength, []string{
			"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
			"HTTP/1.1 304 Not Modified\r\nContent-Length: -5\r\n\r\n",
		}},
		{"RFC 9112 §6.3, 3: both are response splitting", errBothFramings, []string{
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		}},
		{"RFC 9112 §6.1: Transfer-Encoding in HTTP/1.0", errCodingIn10, []string{
			"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		}},
		{"RFC 9112 §6.1: a coding nobody asked for by TE", errTransferCoding, []string{
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
		}},
		{"a bound on what an instance can make the proxy keep", errHeadTooLarge, []string{
			"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 61<<10) + "\r\n\r\n",
			"HTTP/1.1 200 " + strings.Repeat("x", 100<<10),
		}},
		{"a bound on what is looked through to remove it (RFC 9110 §7.6.1)", errManyOptions, []string{
			"HTTP/1.1 200 OK\r\nConnection: " + strings.Repeat("x,", wire.MaxConnectionOptions+1) + "\r\n\r\n",
		}},
		{"a bound on fields", errTooManyFields, []string{"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: 1\r\n", 101) + "\r\n"}},
	} {
		for _, raw := range group.raws {
			for how, pieces := range map[string][][]byte{"at once": split(raw), "dripped": dripped(raw)} {
				c := NewConn(&script{pieces: pieces}, Client, nil)
				var h wire.Head
				if err := c.ReadResponse(&h, false); !errors.Is(err, group.want) {
					t.Errorf("%.60q %s: %v, want %q\n\t%s", raw, how, err, group.want, group.rule)
				}
				if c.EndExchange() == nil {
					t.Errorf("%.60q %s: the connection is used again", raw, how)
				}
				c.Release()
			}
		}
	}
}

func TestEndOfAResponse(t *testing.T) {
	const next = "HTTP/1.1 206 Next\r\nContent-Length: 0\r\n\r\n"
	for _, c := range []struct {
		rule   string
		raw    string
		toHead bool
		body   string
		close  bool // nothing can follow
	}{
		{"§6.3, 1: HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, "", false},
		{"§6.3, 1: HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, "", false},
		{"§6.3, 1: HEAD", "HTTP/1.1 200 OK\r\n\r\n", true, "", false},
		{"§6.3, 1: 1xx", "HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 5\r\n\r\n", false, "", false},
		{"§6.3, 1: 204", "HTTP/1.1 204 No Content\r\n\r\n", false, "", false},
		{"§6.3, 1: 204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, "", false},
		{"§6.3, 1: 304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, "", false},
		{"§6.3, 1: 304", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false, "", false},
		{"§6.3, 4: chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", false, "hello", false},
		{"§6.3, 6: length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, "hello", false},
		{"§6.3, 6: length", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, "", false},
		{"§6.3, 6: length", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", false, "hello", false},
		{"§9.3: 1.0 closes", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, "hello", true},
		{"§9.6: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", false, "hello", true},
		{"§6.3, 8: until close", "HTTP/1.1 200 OK\r\n\r\nhello" + next, false, "hello" + next, true},
		{"§6.3, 8: until close", "HTTP/1.1 200\r\n\r\n", false, next, true},
		{"§6.3, 8: until close", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nx", false, "x" + next, true},
	} {
		raw := c.raw
		if !strings.Contains(raw, next) {
			raw += next
		}
		for how, pieces := range map[string][][]byte{"at once": split(raw), "dripped": dripped(raw)} {
			conn := NewConn(&script{pieces: pieces}, Client, nil)
			var h wire.Head
			if err := conn.ReadResponse(&h, c.toHead); err != nil {
				t.Errorf("%s: %q %s: %v", c.rule, c.raw, how, err)
				continue
			}
			if body, err := readAll(conn); err != nil || body != c.body || h.Close != c.close {
				t.Errorf("%s: %q %s: body %q, %v, close %t", c.rule, c.raw, how, body, err, h.Close)
				continue
			}
			if c.close {
				continue
			}
			if h.Status >= 200 {
				if err := conn.EndExchange(); err != nil {
					t.Errorf("%s: %q %s: %v", c.rule, c.raw, how, err)
				}
			}
			if err := conn.ReadResponse(&h, false); err != nil || h.Status != 206 {
				t.Errorf("%s: %q %s: the next one: %d, %v", c.rule, c.raw, how, h.Status, err)
			}
		}
	}
}

func TestResponseUntilCloseIsTheLastOnItsConnection(t *testing.T) {
	c := answers("HTTP/1.1 200 OK\r\n\r\nhello")
	var h wire.Head
	if err := c.ReadResponse(&h, false); err != nil {
		t.Fatal(err)
	}
	if body, err := readAll(c); body != "hello" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := c.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if c.EndExchange() == nil || c.Alive() {
		t.Error("the connection could be used again")
	}
}

func TestReasonPhraseIsKeptOrMissing(t *testing.T) {
	for raw, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n":              "OK",
		"HTTP/1.1 200 \r\n\r\n":                "",
		"HTTP/1.1 200\r\n\r\n":                 "",
		"HTTP/1.1 200 All  is\twell é\r\n\r\n": "All  is\twell é",
	} {
		var h wire.Head
		if err := answers(raw).ReadResponse(&h, true); err != nil || string(h.Reason) != want {
			t.Errorf("%q: %q, %v", raw, h.Reason, err)
		}
	}
}

func TestExpectInAResponseMeansNothing(t *testing.T) {
	var h wire.Head
	if err := answers("HTTP/1.1 200 OK\r\nExpect: x\r\nContent-Length: 0\r\n\r\n").ReadResponse(&h, false); err != nil || h.ExpectContinue {
		t.Errorf("%v, expect %t", err, h.ExpectContinue)
	}
}

func TestInterimResponsesComeBeforeTheFinalOne(t *testing.T) {
	raw := "HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 3) +
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
	for how, pieces := range map[string][][]byte{"at once": split(raw), "dripped": dripped(raw)} {
		c := NewConn(&script{pieces: pieces}, Client, nil)
		var h wire.Head
		var statuses []int
		for h.Status < 200 {
			if err := c.ReadResponse(&h, false); err != nil {
				t.Fatal(how, err)
			}
			statuses = append(statuses, h.Status)
		}
		if body, err := readAll(c); len(statuses) != 5 || body != "hi" || err != nil {
			t.Errorf("%s: %v, %q, %v", how, statuses, body, err)
		}
	}
}

func TestEndOfTheStreamInsideAResponseIsNoEnd(t *testing.T) {
	var h wire.Head
	if err := answers("").ReadResponse(&h, false); !errors.Is(err, io.EOF) {
		t.Errorf("before the first byte: %v", err)
	}
	for _, raw := range []string{"H", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nX: 1\r\n"} {
		if err := answers(raw).ReadResponse(&h, false); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", raw, err)
		}
	}
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n",
	} {
		c := answers(raw)
		if err := c.ReadResponse(&h, false); err != nil {
			t.Fatal(err)
		}
		if body, err := readAll(c); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %q, %v", raw, body, err)
		}
		if c.EndExchange() == nil {
			t.Errorf("%q: the connection is used again", raw)
		}
	}
}
