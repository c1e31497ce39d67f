package hpack

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	oracle "golang.org/x/net/http2/hpack"
)

func TestBlocksThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		what, block string
		want        error
	}{
		{"index 0", "80", errIndexZero},
		{"an index behind an empty table", "be", errIndex},
		{"an index behind a table of one entry", "4001610162 bf", errIndex},
		{"a literal's name behind an empty table", "7e 00", errIndex},
		{"a literal's name behind the table, not to be indexed", "0f2f 00", errIndex},
		{"the largest index", "ff80ffffff0f", errIndex},
		{"an index of 2^32", "ff81ffffff0f", errInteger},
		{"an index in 5 octets behind the first", "ff8080808000", errIndex},
		{"an index in 6 octets behind the first", "ff808080808000", errInteger},
		{"a length of 2^32", "007f81ffffff0f", errInteger},
		{"a length in 6 octets behind the first", "007f808080808000", errInteger},
		{"a size of 2^32", "3fe1ffffff0f", errInteger},
		{"an index that is cut", "ff", errCut},
		{"an index that is cut later", "ff80", errCut},
		{"a literal that is cut behind its kind", "00", errCut},
		{"a literal that is cut behind its kind, to be indexed", "40", errCut},
		{"a literal that is cut behind its index", "04", errCut},
		{"a literal that is cut in its index", "0f", errCut},
		{"a literal that is cut in its name", "000361", errCut},
		{"a literal that is cut behind its name", "000161", errCut},
		{"a literal that is cut in the value's length", "0001617f80", errCut},
		{"a literal that is cut in its value", "0001610262", errCut},
		{"the largest length", "007f80ffffff0f", errCut},
		{"a size that is cut", "3f", errCut},
		{"a size above the limit", "3fe21f", errLargeUpdate},
		{"a size behind a field", "82 3fe11f", errLateUpdate},
		{"a size behind a size and a field", "20 82 20", errLateUpdate},
		{"the end within a name", "0084ffffffff 0161", errEOS},
		{"the end within a value", "000161 84ffffffff", errEOS},
		{"the end behind a symbol, in a long string", "000161 8a 1fffffffff 0000000000", errEOS},
		{"padding of 8 bits", "000161 81ff", errPadding},
		{"padding of 8 bits behind a symbol of 8", "000161 82f8ff", errPadding},
		{"padding of 11 bits", "000161 821fff", errPadding},
		{"padding of 29 bits behind a symbol of 11", "000161 85ff5fffffff", errPadding},
		{"padding of zeros", "000161 8118", errPadding},
		{"padding whose last bit is 0", "000161 811e", errPadding},
		{"a code that is cut", "000161 82fffe", errPadding},
	} {
		d := NewDecoder(DefaultTable)
		got, err := decoded(d, unhex(t, c.block), noLimit)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %q, %v, want %v", c.what, got, err, c.want)
		}
	}
}

func TestBlocksAtTheEdgeThatAreTaken(t *testing.T) {
	for _, c := range []struct {
		what, block string
		want        []string
	}{
		{"an empty block", "", nil},
		{"sizes alone", "20 3fe11f", nil},
		{"several sizes in front of a field", "20 3fe11f 3f00 82", []string{":method: GET"}},
		{"the last index", "4001610162 be", []string{"a: b", "a: b"}},
		{"a name by the last index", "4001610162 7e0163", []string{"a: b", "a: c"}},
		{"a length with octets that add nothing", "007f8280808000" + strings.Repeat("61", 129) + "00", []string{strings.Repeat("a", 129) + ": "}},
		{"empty strings", "000000", []string{": "}},
		{"empty strings in Huffman's code", "008080", []string{": "}},
		{"no padding", "000161 81f8", []string{"a: &"}},
		{"padding of 7 bits", "000161 83028aff", []string{"a: 0 %"}},
		{"padding of 3 bits", "000161 811f", []string{"a: a"}},
		{"the longest code", "000161 84fffffff3", []string{"a: \n"}},
	} {
		d := NewDecoder(DefaultTable)
		got, err := decoded(d, unhex(t, c.block), noLimit)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.what, got, err, c.want)
		}
	}
}

func TestHuffmanCodesOfEverySymbol(t *testing.T) {
	for symbol := range 256 {
		for _, n := range []int{1, 2, 3, 9, 40} {
			want := strings.Repeat(string([]byte{byte(symbol)}), n) + "x"
			got, err := appendHuffman([]byte("-"), oracle.AppendHuffmanString(nil, want))
			if err != nil || string(got) != "-"+want {
				t.Fatalf("%q: %q, %v", want, got, err)
			}
		}
	}
	for first := range 256 {
		var want []byte
		for second := range 256 {
			want = append(want, byte(first), byte(second))
		}
		got, err := appendHuffman(nil, oracle.AppendHuffmanString(nil, string(want)))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q: %q, %v", want, got, err)
		}
	}
}

func TestSettingsThatShrinkTheTableHaveToBeFollowed(t *testing.T) {
	for _, c := range []struct {
		what  string
		sizes []uint32 // by settings, one after the other
		block string
		want  error
	}{
		{"the same", []uint32{4096}, "82", nil},
		{"larger", []uint32{8192}, "82", nil},
		{"larger, taken up", []uint32{8192}, "3fe13f 82", nil},
		{"smaller", []uint32{100}, "82", errMissingUpdate},
		{"smaller, and an update that follows", []uint32{100}, "3f45 82", nil},
		{"smaller, and an update to less", []uint32{100}, "20 82", nil},
		{"smaller, and an update to more", []uint32{100}, "3f46 82", errLargeUpdate},
		{"smaller and back", []uint32{100, 4096}, "82", errMissingUpdate},
		{"smaller and back, and the last one only", []uint32{100, 4096}, "3fe11f 82", errMissingUpdate},
		{"smaller and back, and both", []uint32{100, 4096}, "3f45 3fe11f 82", nil},
		{"the smallest of several", []uint32{100, 50, 200}, "3f45 82", errMissingUpdate},
		{"the smallest of several, followed", []uint32{100, 50, 200}, "3f13 82", nil},
		{"smaller, and no fields", []uint32{100}, "", nil},
	} {
		d := NewDecoder(DefaultTable)
		for _, n := range c.sizes {
			d.SetMaxTable(n)
		}
		if _, err := decoded(d, unhex(t, c.block), noLimit); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestAnUpdateEvicts(t *testing.T) {
	d := NewDecoder(DefaultTable)
	for _, c := range []struct {
		block string
		want  []string
	}{
		{"4001610131 4001620132 4001630133", []string{"c: 3", "b: 2", "a: 1"}},
		{"3f25", []string{"c: 3", "b: 2"}}, // 68 bytes, two entries
		{"3f24", []string{"c: 3"}},         // 67
		{"3fe11f", []string{"c: 3"}},       // 4096
		{"20 3fe11f", nil},
	} {
		if _, err := decoded(d, unhex(t, c.block), noLimit); err != nil {
			t.Fatal(err)
		}
		if got := contents(&d.table); !slices.Equal(got, c.want) {
			t.Errorf("behind %s: %q, want %q", c.block, got, c.want)
		}
	}
}

// RFC 7541 §4.4: "a new entry can reference the name of an entry in the dynamic table that
// will be evicted when adding this new entry", and an entry larger than the table "is not
// an error", and empties it.
func TestANameOutlivesTheEntryThatItIsTakenFrom(t *testing.T) {
	d := NewDecoder(100)
	name := strings.Repeat("n", 30)
	first := append([]byte{0x40, 30}, name...)
	first = append(first, 0)
	if _, err := decoded(d, first, noLimit); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		value := fmt.Sprintf("%038d", i)
		got, err := decoded(d, append([]byte{0x7e, 38}, value...), noLimit)
		want := []string{name + ": " + value}
		if err != nil || !slices.Equal(got, want) || !slices.Equal(contents(&d.table), want) {
			t.Fatalf("%q, %v, table %q, want %q", got, err, contents(&d.table), want)
		}
	}
	value := strings.Repeat("v", 39)
	got, err := decoded(d, append([]byte{0x7e, 39}, value...), noLimit)
	if err != nil || !slices.Equal(got, []string{name + ": " + value}) || d.table.count != 0 || d.table.size != 0 {
		t.Errorf("%q, %v, table %q", got, err, contents(&d.table))
	}
}

func TestAListPastItsLimitIsDecodedAndHandedOutNoFurther(t *testing.T) {
	block := unhex(t, "4001610131 4001620132 4001630133 0001640134 82")
	for _, c := range []struct {
		limit    int
		want     []string
		tooLarge bool
	}{
		{4*34 + 42, []string{"a: 1", "b: 2", "c: 3", "d: 4", ":method: GET"}, false},
		{4*34 + 41, []string{"a: 1", "b: 2", "c: 3", "d: 4"}, true},
		{2*34 + 33, []string{"a: 1", "b: 2"}, true},
		{2 * 34, []string{"a: 1", "b: 2"}, true},
		{33, nil, true},
		{0, nil, true},
	} {
		d := NewDecoder(DefaultTable)
		got, err := decoded(d, block, c.limit)
		if err != nil || !slices.Equal(got, c.want) || d.TooLarge() != c.tooLarge {
			t.Errorf("limit %d: %q, too large: %t, %v", c.limit, got, d.TooLarge(), err)
		}
		if got := contents(&d.table); !slices.Equal(got, []string{"c: 3", "b: 2", "a: 1"}) {
			t.Errorf("limit %d: a table of %q", c.limit, got)
		}
		if got, err := decoded(d, unhex(t, "be"), c.limit); err != nil || (c.limit >= 34) != slices.Equal(got, []string{"c: 3"}) {
			t.Errorf("limit %d, the next block: %q, %v", c.limit, got, err)
		}
	}
}

func TestAFaultBehindTheLimitIsStillOne(t *testing.T) {
	d := NewDecoder(DefaultTable)
	if _, err := decoded(d, unhex(t, "82 000161 81ff"), 0); !errors.Is(err, errPadding) {
		t.Error(err)
	}
}

// A field of 4 kB in the table, and a block of nothing but its index: what is handed out
// is bounded by the limit, what is kept by the table's size.
func TestABombIsBoundedByTheLimitOfTheList(t *testing.T) {
	d := NewDecoder(DefaultTable)
	value := strings.Repeat("v", 4000)
	block := append([]byte{0x40, 1, 'a', 0x7f, 0xa1, 0x1e}, value...)
	block = append(block, slices.Repeat([]byte{0xbe}, 16_000)...)
	// And one of as many literals that take the name of an entry of 4 kB.
	names := append([]byte{0x40, 0x7f, 0xa1, 0x1e}, value...)
	names = append(names, 0)
	names = append(names, slices.Repeat([]byte{0x7e, 0}, 8_000)...)
	for what, block := range map[string][]byte{"indices": block, "names": names} {
		got, err := decoded(d, block, 64<<10)
		if err != nil || !d.TooLarge() || len(got) != 16 {
			t.Errorf("%s: %d fields, too large: %t, %v", what, len(got), d.TooLarge(), err)
		}
		if len(d.table.text) > 2*DefaultTable || len(d.table.entries) > DefaultTable/overhead || cap(d.scratch) > maxScratch {
			t.Errorf("%s: %d bytes of text, %d entries, %d of scratch", what, len(d.table.text), len(d.table.entries), cap(d.scratch))
		}
	}
}

func TestALongHuffmanStringLeavesNoLargeMemoryBehind(t *testing.T) {
	d := NewDecoder(DefaultTable)
	text := oracle.AppendHuffmanString(nil, strings.Repeat("a", 40_000))
	block := append(appendInteger([]byte{0, 1, 'a'}, 0x80, 0x7f, len(text)), text...)
	if got, err := decoded(d, block, noLimit); err != nil || len(got[0]) != 40_003 {
		t.Fatal(err)
	}
	if d.Begin(nil, 0); cap(d.scratch) > maxScratch {
		t.Errorf("%d bytes are kept", cap(d.scratch))
	}
}

func TestMemoryGrowsWithTheTableAndNoFurther(t *testing.T) {
	d := NewDecoder(DefaultTable)
	if _, err := decoded(d, unhex(t, "4001610162"), noLimit); err != nil || len(d.table.text) > 256 || len(d.table.entries) > 8 {
		t.Errorf("%d bytes of text, %d entries, %v", len(d.table.text), len(d.table.entries), err)
	}
	for i := range 10_000 {
		if _, err := decoded(d, fmt.Appendf([]byte{0x40, 4}, "%04d\x00", i), noLimit); err != nil {
			t.Fatal(err)
		}
	}
	if d.table.count != DefaultTable/(overhead+4) || len(d.table.text) > 2*DefaultTable || len(d.table.entries) > DefaultTable/overhead {
		t.Errorf("%d entries, %d bytes of text, room for %d entries", d.table.count, len(d.table.text), len(d.table.entries))
	}
}
