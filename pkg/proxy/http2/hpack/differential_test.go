package hpack

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	oracle "golang.org/x/net/http2/hpack"
)

// FuzzDecode: several blocks on one connection, each behind an octet with its length, are
// taken or refused as x/net does, and have the same fields. Known differences:
//
//   - x/net takes an integer in up to 9 octets behind the first;
//   - it takes a change of the table's size behind a field while the table is empty, and
//     refuses a second change before the first field while it is not.
func FuzzDecode(f *testing.F) {
	for _, x := range examples(f) {
		f.Add(append([]byte{byte(len(x.block))}, x.block...))
	}
	var all []byte
	for _, x := range examples(f) {
		all = append(append(all, byte(len(x.block))), x.block...)
	}
	f.Add(all)
	for _, text := range []string{
		"80", "be", "ff80ffffff0f", "ff808080808000", "3fe11f 82", "82 20", "20 3fe11f", "0084ffffffff 0161", "000161 82fe7f", "000161 821fff",
		"4001610131 4001620132 4001630133 be bf c0 7e0134", "3f25 4001610131 4001620132 7f00 20",
	} {
		block := unhex(f, text)
		f.Add(append([]byte{byte(len(block))}, block...))
		f.Add(slices.Concat([]byte{5}, unhex(f, "4001610162"), []byte{byte(len(block))}, block))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4<<10 {
			return
		}
		const size = 300 // small, for evictions
		ours := NewDecoder(size)
		theirs := oracle.NewDecoder(size, nil)
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			block := data[1 : 1+n]
			data = data[1+n:]
			got, err := decoded(ours, block, noLimit)
			list, theirErr := theirs.DecodeFull(block)
			switch {
			case errors.Is(err, errInteger), errors.Is(err, errLateUpdate), theirErr != nil && err == nil && isSecondUpdate(theirErr):
				return
			case (err == nil) != (theirErr == nil):
				t.Fatalf("%x: %v, x/net: %v", block, err, theirErr)
			case err != nil:
				return
			}
			if want := linesOf(list); !slices.Equal(got, want) {
				t.Fatalf("%x: %q, x/net: %q", block, got, want)
			}
			if ours.table.size > size {
				t.Fatalf("a table of %d bytes", ours.table.size)
			}
		}
	})
}

func isSecondUpdate(err error) bool {
	return strings.Contains(err.Error(), "dynamic table size update MUST occur at the beginning")
}

// linesOf are fields of x/net's in the spelling of decoded.
func linesOf(list []oracle.HeaderField) []string {
	var lines []string
	for _, f := range list {
		line := f.Name + ": " + f.Value
		if f.Sensitive {
			line = "!" + line
		}
		lines = append(lines, line)
	}
	return lines
}

// FuzzEncode: what is encoded, x/net and this package decode to the same fields, names in
// lower case, whatever becomes of the table. Each line of the text is a field or, if it
// begins with "=", a size of the table in letters; an empty one ends a block.
func FuzzEncode(f *testing.F) {
	request := ":method: GET\n:path: /a\n:authority: a\nUser-Agent: test\nX-Other: 1\nAuthorization: secret\n\n"
	f.Add(strings.Repeat(request, 4))
	f.Add(strings.Repeat(request+"=\n=zzzz\n", 4))
	f.Add(strings.Repeat(request+"=zz\n", 3) + strings.Repeat(request+"=b\n=zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\n", 3))
	f.Add(strings.Repeat("!a: b\ncookie: a\nset-cookie: b\n:status: 404\n:status: 201\n:path: /?\naccept-encoding: gzip, deflate\n", 3))
	f.Add(strings.Repeat(strings.Repeat("a: "+strings.Repeat("long", 60)+"\n"+"b: "+strings.Repeat("longer", 50)+"\n", 2)+"c: d\n\n", 3))
	f.Add("=cc\na: b\na: b\na: b\nTraceparent: 1\ntraceparent: 1\ntraceparent: 1\n=\na: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 {
			return
		}
		e := NewEncoder()
		ours := NewDecoder(DefaultTable)
		theirs := oracle.NewDecoder(DefaultTable, nil)
		asked := true // x/net still
		for block := range strings.SplitSeq(text, "\n\n") {
			var dst []byte
			var want []string
			for line := range strings.SplitSeq(block, "\n") {
				if size, ok := strings.CutPrefix(line, "="); ok && len(want) == 0 {
					n := uint32(0)
					for _, c := range []byte(size) {
						n += uint32(c)
					}
					e.SetMaxTable(n)
					ours.SetMaxTable(n)
					theirs.SetAllowedMaxDynamicTableSize(n)
					continue
				}
				if !strings.Contains(strings.TrimPrefix(line, "!"), ": ") || strings.HasPrefix(line, "!:") || strings.HasPrefix(line, ": ") {
					continue
				}
				list := fields(line)
				f := &list[0]
				dst = appendField(e, dst, f)
				f.Name = appendLower(nil, f.Name)
				if treatments[staticByName(f.Name)] == secret {
					f.Sensitive = true
				}
				name := string(f.Name)
				if f.Sensitive {
					name = "!" + name
				}
				want = append(want, name+": "+string(f.Value))
			}
			if got, err := decoded(ours, dst, noLimit); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%x: %q, %v, want %q", dst, got, err, want)
			}
			if a, b := contents(&e.table), contents(&ours.table); !slices.Equal(a, b) || e.table.size != ours.table.size {
				t.Fatalf("%x: tables of %q and %q", dst, a, b)
			}
			if !asked {
				continue
			}
			list, err := theirs.DecodeFull(dst)
			if err != nil && isSecondUpdate(err) {
				asked = false
				continue
			}
			if got := linesOf(list); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%x: x/net reads %q, %v, want %q", dst, got, err, want)
			}
		}
	})
}

// xnet is a peer that encodes as x/net does: most of what it sends goes into the table.
type xnet struct {
	buf     bytes.Buffer
	encoder *oracle.Encoder
}

func newXnet() *xnet {
	x := &xnet{}
	x.encoder = oracle.NewEncoder(&x.buf)
	return x
}

// block encodes a list.
func (x *xnet) block(list []Field) []byte {
	x.buf.Reset()
	for i := range list {
		_ = x.encoder.WriteField(theirs(&list[i])) // into memory
	}
	return bytes.Clone(x.buf.Bytes())
}
