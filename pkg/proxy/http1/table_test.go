package http1

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// TestTableOfRequests is read with testdata/requests.txt, which has a row for every case.
func TestTableOfRequests(t *testing.T) {
	runTable(t, "requests.txt", 380, func(_ *http1test.Row, pieces [][]byte, whole bool) []string {
		return readRequests(NewConn(&script{pieces: pieces}, Server, nil), whole)
	})
}

func TestOnlyAMeshNamesPorts(t *testing.T) {
	for _, raw := range []string{"GET / HTTP/1.1\r\nHost: orders:http\r\n\r\n", "GET http://orders:http/ HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT orders:http HTTP/1.1\r\nHost: orders:http\r\n\r\n"} {
		for _, named := range []bool{true, false} {
			var h wire.Head
			err := NewConn(&script{pieces: [][]byte{[]byte(raw)}}, Server, &Limits{PortNames: named}).ReadRequest(&h)
			if (err == nil) != named || named && string(h.Authority) != "orders:http" {
				t.Errorf("%q where ports have names, %t: %v, of %q", raw, named, err, h.Authority)
			}
		}
	}
}

// TestNothingIsFoundBehindWhatIsRefused: a request that follows is not looked for, for
// nobody knows whose it is.
func TestNothingIsFoundBehindWhatIsRefused(t *testing.T) {
	for _, r := range http1test.Read(t, filepath.Join("testdata", "requests.txt")) {
		if r.Refused() == 0 {
			continue
		}
		told := readRequests(NewConn(&script{pieces: split(r.Raw + smuggled)}, Server, nil), true)
		for _, line := range told {
			if strings.HasPrefix(line, "accepted GET /smuggled") {
				t.Errorf("%s\n%s\n%q", r.Name, r.Rule, told)
			}
		}
	}
}

// TestTableOfResponses is read with testdata/responses.txt.
func TestTableOfResponses(t *testing.T) {
	runTable(t, "responses.txt", 140, func(r *http1test.Row, pieces [][]byte, _ bool) []string {
		return readResponses(NewConn(&script{pieces: pieces}, Client, nil), r.To == "HEAD")
	})
}

// runTable reads each stream of a table: at once, where the verdict is to be the table's
// word for word; and byte by byte and cut in two at every place, where it may name another
// of several faults in a head, but with the same status. whole asks for bodies by Whole
// first.
func runTable(t *testing.T, name string, atLeast int, read func(r *http1test.Row, pieces [][]byte, whole bool) []string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	rows := http1test.Read(t, path)
	if len(rows) < atLeast {
		t.Errorf("only %d rows", len(rows))
	}
	named := map[string]bool{}
	for i := range rows {
		r := &rows[i]
		if named[r.Name] || !strings.HasPrefix(r.Rule, "RFC ") {
			t.Errorf("%s: there are two of this name, or no sentence decides", r.Name)
		}
		named[r.Name] = true
		got := read(r, split(r.Raw), false)
		if *update {
			r.Verdict = got
		}
		if !slices.Equal(got, r.Verdict) {
			t.Errorf("%s\n%s\n got %s\nwant %s", r.Name, r.Rule, strings.Join(got, "\n     "), strings.Join(r.Verdict, "\n     "))
		}
		want := withoutSentence(got)
		if other := read(r, split(r.Raw), true); !slices.Equal(other, got) {
			t.Errorf("%s, by Whole\n got %q\nwant %q", r.Name, other, got)
		}
		if cut := read(r, dripped(r.Raw), true); !slices.Equal(withoutSentence(cut), want) {
			t.Errorf("%s, byte by byte\n got %q\nwant %q", r.Name, cut, want)
		}
		for at := 1; at < len(r.Raw); at += 1 + len(r.Raw)/2000 {
			if cut := read(r, split(r.Raw, at), true); !slices.Equal(withoutSentence(cut), want) {
				t.Errorf("%s, cut at %d\n got %q\nwant %q", r.Name, at, cut, want)
			}
		}
	}
	if *update {
		http1test.Write(t, path, rows)
	}
}

// withoutSentence is a verdict with nothing but the status of a refusal.
func withoutSentence(verdict []string) []string {
	last := len(verdict) - 1
	if fields := strings.Fields(verdict[last]); fields[0] == "refused" {
		return append(verdict[:last:last], "refused "+fields[1])
	}
	return verdict
}

// readRequests tells of requests until the stream ends.
func readRequests(c *Conn, whole bool) (told []string) {
	defer c.Release()
	for {
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			if told = append(told, ended(err)); isRefused(err) && c.EndExchange() == nil {
				told = append(told, "and another is looked for behind it")
			}
			return told
		}
		line := fmt.Sprintf("%s %s of %s, %s", h.Method, orNone(h.Path), orNone(h.Authority), h.Proto)
		if h.ExpectContinue {
			line += ", expects 100 Continue"
		}
		message, ok := readRest(c, &h, line, false, whole)
		if told = append(told, message...); !ok {
			return told
		}
	}
}

// readResponses tells of responses until the stream ends, as if there had been a request
// for each.
func readResponses(c *Conn, toHead bool) (told []string) {
	defer c.Release()
	for {
		var h wire.Head
		if err := c.ReadResponse(&h, toHead); err != nil {
			if told = append(told, of502(ended(err))); isRefused(err) && c.EndExchange() == nil {
				told = append(told, "and another is looked for behind it")
			}
			return told
		}
		bodyless := toHead || h.Status < 200 || h.Status == 204 || h.Status == 304
		message, ok := readRest(c, &h, fmt.Sprintf("%d %q, %s", h.Status, h.Reason, h.Proto), bodyless, false)
		if told = append(told, message...); !ok {
			told[len(told)-1] = of502(told[len(told)-1])
			return told
		}
		toHead = false
	}
}

// of502 is a refusal of a response: whatever is wrong with it, the client is answered 502.
func of502(verdict string) string {
	if fields := strings.Fields(verdict); fields[0] == "refused" {
		return "refused 502 " + strings.Join(fields[2:], " ")
	}
	return verdict
}

// readRest tells of a message of which the head was read, with its first line. Of a body
// that does not come to its end it tells only why: how much of it comes before the fault
// depends on how it is read. ok says that another message may follow.
func readRest(c *Conn, h *wire.Head, line string, bodyless, whole bool) (told []string, ok bool) {
	told = append(told, "accepted "+line)
	for _, f := range h.Fields {
		told = append(told, fmt.Sprintf("  %s: %s", f.Name, strings.Trim(fmt.Sprintf("%q", shorten(string(f.Value))), `"`)))
	}
	framing := "no body"
	switch {
	case bodyless:
	case h.Streamed:
		framing = "in chunks"
	case h.ContentLength >= 0:
		framing = fmt.Sprintf("length %d", h.ContentLength)
	case h.Status > 0:
		framing = "until the end"
	}
	if h.Close {
		framing += ", the last of its connection"
	}
	told = append(told, framing)
	body := ""
	if whole {
		p, _ := c.Whole()
		body = string(p)
	}
	rest, err := readAll(c)
	if err != nil {
		told[0] = "begun " + line
		if told = append(told, ended(err)); c.EndExchange() == nil {
			told = append(told, "and another is looked for behind it")
		}
		if _, again := c.Next(); !errors.Is(again, err) {
			told = append(told, "and then "+ended(again))
		}
		return told, false
	}
	if body += rest; body != "" {
		told = append(told, fmt.Sprintf("body %q", shorten(body)))
	}
	for _, f := range c.Trailers() {
		told = append(told, fmt.Sprintf("trailer %s: %s", f.Name, shorten(string(f.Value))))
	}
	if h.Status > 0 && h.Status < 200 {
		return told, true
	}
	return told, c.EndExchange() == nil
}

func orNone(b []byte) string {
	if len(b) == 0 {
		return "(none)"
	}
	return shorten(string(b))
}

// shorten tells of a long text how long it is.
func shorten(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%s… (%d bytes)", s[:20], len(s))
	}
	return s
}

func isRefused(err error) bool {
	var refused *wire.Error
	return errors.As(err, &refused)
}

// ended tells how a stream ended.
func ended(err error) string {
	var refused *wire.Error
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("refused %d %s", refused.Status, refused.Text)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "broken off"
	case errors.Is(err, io.EOF):
		return "the end"
	default:
		return err.Error()
	}
}
