// Package http1test reads the tables of raw HTTP/1 messages that lie in
// pkg/proxy/http1/testdata, for the tests of the parser and of the engine.
//
// A table is a text. A line that begins with "# " is the sentence of an RFC that decides
// the rows below it. A row begins with its name; below it, indented, are the bytes,
// each line of which begins with "> ", and then the verdict: what is read of them, or the
// status and the sentence by which they are refused. Bytes are escaped as in Go; "<9000 × x>"
// is 9,000 times x; a line's end in the file is none of the message. A row of responses
// may say before its bytes what they answer: "to HEAD".
package http1test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Row is one stream of bytes and what is to come of it.
type Row struct {
	Rule, Name string
	To         string // method of the request that a response answers; empty: GET
	Raw        string
	Lines      []string // Raw, as the file's lines part it
	Verdict    []string // its lines, without indentation

	source []string // the bytes as the file has them
}

// Refused returns the status that the stream ends in being refused with, 0 if it is not.
func (r *Row) Refused() int {
	last := r.Verdict[len(r.Verdict)-1]
	if !strings.HasPrefix(last, "refused ") {
		return 0
	}
	status, _ := strconv.Atoi(strings.Fields(last)[1])
	return status
}

// Accepted returns how many messages are read of the stream to their ends.
func (r *Row) Accepted() int {
	n := 0
	for _, line := range r.Verdict {
		if strings.HasPrefix(line, "accepted ") {
			n++
		}
	}
	return n
}

// Read reads a table. A table that is malformed ends the test.
func Read(t testing.TB, path string) []Row {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return rows
}

// parse reads a table's text.
func parse(text string) ([]Row, error) {
	var rows []Row
	rule := ""
	for number, line := range strings.Split(text, "\n") {
		indented, isIndented := strings.CutPrefix(line, "  ")
		sentence, isRule := strings.CutPrefix(line, "# ")
		switch {
		case line == "":
		case isRule:
			rule = sentence
		case !isIndented:
			rows = append(rows, Row{Rule: rule, Name: line})
		case len(rows) == 0:
			return nil, fmt.Errorf("line %d: it belongs to no row", number+1)
		default:
			if err := rows[len(rows)-1].take(indented); err != nil {
				return nil, fmt.Errorf("line %d: %w", number+1, err)
			}
		}
	}
	return rows, nil
}

func (r *Row) take(line string) error {
	if method, ok := strings.CutPrefix(line, "to "); ok && len(r.source) == 0 {
		r.To = method
		return nil
	}
	escaped, ok := strings.CutPrefix(line, "> ")
	if !ok {
		r.Verdict = append(r.Verdict, line)
		return nil
	}
	raw, err := unescape(escaped)
	if err != nil {
		return err
	}
	r.source = append(r.source, line)
	r.Raw += raw
	r.Lines = append(r.Lines, raw)
	return nil
}

// times is "<n × text>".
var times = regexp.MustCompile(`<(\d+) × ([^>]*)>`)

func unescape(line string) (string, error) {
	raw, err := strconv.Unquote(`"` + strings.ReplaceAll(line, `"`, `\"`) + `"`)
	if err != nil {
		return "", fmt.Errorf("%q: %w", line, err)
	}
	return times.ReplaceAllStringFunc(raw, func(s string) string {
		parts := times.FindStringSubmatch(s)
		n, _ := strconv.Atoi(parts[1]) // digits, and few
		return strings.Repeat(parts[2], n)
	}), nil
}

// Write writes a table with the verdicts that its rows have.
func Write(t testing.TB, path string, rows []Row) {
	t.Helper()
	var b strings.Builder
	rule := ""
	for _, r := range rows {
		if r.Rule != rule {
			rule = r.Rule
			fmt.Fprintf(&b, "# %s\n\n", rule)
		}
		fmt.Fprintf(&b, "%s\n", r.Name)
		if r.To != "" {
			fmt.Fprintf(&b, "  to %s\n", r.To)
		}
		for _, line := range append(r.source, r.Verdict...) {
			fmt.Fprintf(&b, "  %s\n", line)
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
