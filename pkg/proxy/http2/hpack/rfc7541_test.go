package hpack

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// example is a block of RFC 7541 Appendix C.
type example struct {
	section string
	first   bool // on its connection
	max     int  // of the connection's table
	block   []byte
	fields  []string
	table   []string // behind it, the newest first
	size    int      // of the table
}

func examples(t testing.TB) []example {
	t.Helper()
	text, err := os.ReadFile("testdata/rfc7541-c.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	var conn example
	var list *[]string
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.HasPrefix(line, "\t"):
			*list = append(*list, line[1:])
		case word == "connection":
			section, size, _ := strings.Cut(rest, " ")
			conn = example{section: section, first: true, max: number(size)}
		case word == "block":
			all = append(all, conn)
			conn.first = false
			e := &all[len(all)-1]
			e.block, list = unhex(t, rest), &e.fields
		case word == "table":
			e := &all[len(all)-1]
			e.size, list = number(rest), &e.table
		case word != "" && word != "#":
			t.Fatalf("%q", line)
		}
	}
	if len(all) != 16 {
		t.Fatalf("%d blocks", len(all))
	}
	return all
}

func TestExamplesOfTheRFCAreDecoded(t *testing.T) {
	var d *Decoder
	for i, x := range examples(t) {
		if x.first {
			d = NewDecoder(uint32(x.max))
		}
		got, err := decoded(d, x.block, noLimit)
		if x.section == "C.2.3" {
			x.fields[0] = "!" + x.fields[0]
		}
		if err != nil || !slices.Equal(got, x.fields) {
			t.Errorf("%s, block %d: %q, %v, want %q", x.section, i, got, err, x.fields)
		}
		if table := contents(&d.table); !slices.Equal(table, x.table) || d.table.size != x.size {
			t.Errorf("%s, block %d: a table of %d bytes: %q, want %d: %q", x.section, i, d.table.size, table, x.size, x.table)
		}
	}
}

// The RFC's encoder indexes what comes for the first time; this one has to have seen it
// once. And it codes nothing by Huffman, nor would it index some of the responses.
func TestExamplesOfTheRFCAreEncoded(t *testing.T) {
	var e *Encoder
	for i, x := range examples(t) {
		if x.first {
			e = NewEncoder()
		}
		if x.section == "C.2.3" {
			x.fields[0] = "!" + x.fields[0]
		}
		list := fields(x.fields...)
		switch x.section {
		case "C.2.1", "C.3":
			for _, f := range list {
				e.again(e.hash(staticByName(f.Name), f.Name, f.Value))
			}
		case "C.2.2", "C.2.3", "C.2.4":
		default:
			continue
		}
		if got := appendFields(e, nil, list); !slices.Equal(got, x.block) {
			t.Errorf("%s, block %d: %x, want %x", x.section, i, got, x.block)
		}
		if table := contents(&e.table); !slices.Equal(table, x.table) || e.table.size != x.size {
			t.Errorf("%s, block %d: a table of %d bytes: %q, want %d: %q", x.section, i, e.table.size, table, x.size, x.table)
		}
	}
}

func TestIntegersOfTheRFC(t *testing.T) {
	for _, c := range []struct {
		section      string
		kind, prefix byte
		n            uint32
		octets       string
	}{
		{"C.1.1", 0, 0x1f, 10, "0a"},
		{"C.1.2", 0, 0x1f, 1337, "1f9a0a"},
		{"C.1.3", 0, 0xff, 42, "2a"},
	} {
		want := unhex(t, c.octets)
		if got := appendInteger(nil, c.kind, c.prefix, int(c.n)); !slices.Equal(got, want) {
			t.Errorf("%s: %x, want %x", c.section, got, want)
		}
		d := Decoder{block: want}
		if got, err := d.integer(c.prefix); got != c.n || err != nil || d.pos != len(want) {
			t.Errorf("%s: %d, %v, %d octets read; want %d", c.section, got, err, d.pos, c.n)
		}
	}
}
