package http1

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// told is all that a connection says of what comes in: requests with their bodies
// and trailers, and how it ended. A refusal is told by its status, since which of
// several faults is found first depends on how many bytes were there.
func told(s *script, useWhole, toLimits bool) string {
	var limits *Limits
	if toLimits {
		limits = &Limits{RequestLine: 40, HeadBytes: 120, Fields: 4}
	}
	c := NewConn(s, Server, limits)
	defer c.Release()
	var all strings.Builder
	for range 50 {
		var h wire.Head
		err := c.ReadRequest(&h)
		for os.IsTimeout(err) {
			err = c.ReadRequest(&h)
		}
		if err != nil {
			fmt.Fprintf(&all, "END %s", ending(err))
			break
		}
		fmt.Fprintf(&all, "%s|%d|%d|%t|%t\n", textOf(&h), h.Proto, h.ContentLength, h.Streamed, h.Close)
		var body string
		if useWhole {
			p, _ := c.Whole()
			body = string(p)
		}
		rest, err := readAll(c)
		if err != nil {
			// How much of a broken body was passed on before does depend on the reads.
			fmt.Fprintf(&all, "BODY %s", ending(err))
			break
		}
		fmt.Fprintf(&all, "%q", body+rest)
		for _, f := range c.Trailers() {
			fmt.Fprintf(&all, "|%s:%s", f.Name, f.Value)
		}
		if err := c.EndExchange(); err != nil {
			fmt.Fprintf(&all, "EXCHANGE %v", err)
			break
		}
	}
	return all.String()
}

func ending(err error) string {
	var refused *wire.Error
	switch {
	case !errors.As(err, &refused):
		return err.Error()
	case refused.Status == 414 || refused.Status == 431:
		return "refused" // a head with two faults: too large, and something else
	default:
		return "refused"
	}
}

// pipeline is what the tests below cut up: each way of framing, one after the other.
const pipeline = "\r\nGET /1 HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n" +
	"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" +
	"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n" +
	"HEAD http://b/4 HTTP/1.1\r\nHost: a\r\n\r\n" +
	"GET /5 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"

func TestPipelineIsReadTheSameWhereverItIsCut(t *testing.T) {
	want := told(&script{pieces: split(pipeline)}, false, false)
	if n := strings.Count(want, "\n"); n != 5 || !strings.HasSuffix(want, "END EOF") {
		t.Fatalf("%s", want)
	}
	check := func(how string, pieces func() [][]byte) {
		t.Helper()
		for _, useWhole := range []bool{false, true} {
			if got := told(&script{pieces: pieces()}, useWhole, false); got != want {
				t.Errorf("%s, whole %t:\n got %s\nwant %s", how, useWhole, got, want)
			}
		}
	}
	check("dripped", func() [][]byte { return dripped(pipeline) })
	for i := range len(pipeline) {
		check(fmt.Sprintf("cut at %d", i), func() [][]byte { return split(pipeline, i) })
		check(fmt.Sprintf("a time-out at %d", i), func() [][]byte {
			return [][]byte{[]byte(pipeline[:i]), nil, []byte(pipeline[i:])}[min(1, 1-min(i, 1)):]
		})
		for j := i; j < len(pipeline); j += 7 {
			check(fmt.Sprintf("cut at %d and %d", i, j), func() [][]byte { return split(pipeline, i, j) })
		}
	}
}

func TestTimeOutInTheMiddleLosesNothing(t *testing.T) {
	var pieces [][]byte
	for _, p := range dripped(pipeline) {
		pieces = append(pieces, nil, p)
	}
	want := told(&script{pieces: split(pipeline)}, false, false)
	if got := told(&script{pieces: pieces}, false, false); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// FuzzSplit: any division of the input into reads gives the same parse, and what
// Whole takes is what Next gives.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(pipeline), uint64(0x9e3779b97f4a7c15))
	for _, r := range http1test.Read(f, "testdata/requests.txt") {
		if len(r.Raw) < 300 {
			f.Add([]byte(r.Raw+pipeline), uint64(len(r.Raw)))
		}
	}
	for _, a := range append(attacks(), harmless()...) {
		for _, raw := range a.raws {
			f.Add([]byte(raw), uint64(len(raw)*17))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		if len(raw) > 200_000 {
			return
		}
		for _, limited := range []bool{false, true} {
			want := told(&script{pieces: split(string(raw))}, false, limited)
			var pieces [][]byte
			for i, state := 0, seed|1; i < len(raw); {
				state = state*6364136223846793005 + 1442695040888963407
				n := min(int(state>>60)+1, len(raw)-i)
				if state>>50&3 == 0 {
					pieces = append(pieces, nil)
				}
				pieces = append(pieces, raw[i:i+n:i+n])
				i += n
			}
			if got := told(&script{pieces: pieces}, false, limited); got != want {
				t.Fatalf("limited %t, cut up:\n got %s\nwant %s", limited, got, want)
			}
			if got := told(&script{pieces: split(string(raw))}, true, limited); got != want {
				t.Fatalf("limited %t, by Whole:\n got %s\nwant %s", limited, got, want)
			}
		}
	})
}

// FuzzResponse: an answer is read the same however it is cut, and never past its end.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), uint64(3))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: 1\r\n\r\n"), uint64(5))
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nuntil the end"), uint64(7))
	for _, r := range http1test.Read(f, "testdata/responses.txt") {
		if len(r.Raw) < 300 {
			f.Add([]byte(r.Raw), uint64(len(r.Raw)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, seed uint64) {
		read := func(pieces [][]byte) string {
			c := NewConn(&script{pieces: pieces}, Client, nil)
			defer c.Release()
			var h wire.Head
			var all strings.Builder
			for range 20 {
				if err := c.ReadResponse(&h, seed&1 == 0); err != nil {
					return all.String() + ending(err)
				}
				fmt.Fprintf(&all, "%d|%s|%s|%d|%t\n", h.Status, h.Reason, textOf(&h), h.ContentLength, h.Close)
				if h.Status >= 200 {
					break
				}
			}
			body, err := readAll(c)
			if err != nil {
				return all.String() + ending(err)
			}
			return all.String() + body
		}
		var at []int
		for i := 0; i < len(raw); i += int(seed%7) + 1 {
			at = append(at, i)
		}
		want := read(split(string(raw)))
		if got := read(split(string(raw), at...)); got != want {
			t.Fatalf("got %q\nwant %q", got, want)
		}
	})
}

func TestEndOfTheStreamInAHead(t *testing.T) {
	var h wire.Head
	if err := whole("").ReadRequest(&h); !errors.Is(err, io.EOF) {
		t.Errorf("before the first byte: %v", err)
	}
	for i := 1; i < len(get("X: 1\r\n")); i++ {
		if err := whole(get("X: 1\r\n")[:i]).ReadRequest(&h); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v", i, err)
		}
	}
}
