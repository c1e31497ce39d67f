package hpack

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	oracle "golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestTheStaticTableIsTheOneOfTheRFC(t *testing.T) {
	d := oracle.NewDecoder(DefaultTable, nil)
	for i, e := range staticTable {
		list, err := d.DecodeFull([]byte{0x80 | byte(i+1)})
		if err != nil || list[0].Name != string(e.name) || list[0].Value != string(e.value) {
			t.Errorf("%d is %s: %s, and not %v", i+1, e.name, e.value, list)
		}
		if id := wire.Lookup(e.name); e.id != id {
			t.Errorf("%s is %d in the table, and %d for wire.Lookup: staticTable and staticByID know the names that wire does", e.name, e.id, id)
		}
		first := slices.IndexFunc(staticTable[:], func(o staticEntry) bool { return bytes.Equal(o.name, e.name) }) + 1
		if got := staticByName(e.name); got != first {
			t.Errorf("%s begins at %d, and not %d", e.name, first, got)
		}
		if got := int(staticByID[e.id]); e.id != wire.Other && got != first {
			t.Errorf("%s begins at %d, and not %d", e.name, first, got)
		}
		if got := staticByValue(first, e.value); len(e.value) > 0 && got != i+1 {
			t.Errorf("%s: %s is %d, and not %d", e.name, e.value, i+1, got)
		}
		if got := treatments[first] == valued; len(e.value) > 0 && !got {
			t.Errorf("%s: %s would not be looked for", e.name, e.value)
		}
	}
	if i := slices.IndexFunc(staticByID[:], func(i uint8) bool { return i > 0 }); staticByID[wire.Other] != 0 || i < 0 {
		t.Error("a name that is not known has an index")
	}
}

// What the table does with a field that comes three times.
func TestWhatRepeatsIsIndexed(t *testing.T) {
	const never, literal, inserted, index = "never to be indexed", "literal", "inserted", "index"
	for _, c := range []struct {
		field string
		want  [3]string
	}{
		{":method: GET", [3]string{index, index, index}},
		{":method: PUT", [3]string{literal, inserted, index}},
		{":authority: orders", [3]string{literal, inserted, index}},
		{":path: /", [3]string{index, index, index}},
		{":path: /orders", [3]string{literal, inserted, index}},
		{":path: /orders?limit=1", [3]string{literal, literal, literal}},
		{":status: 404", [3]string{index, index, index}},
		{":status: 503", [3]string{literal, inserted, index}},
		{"accept-encoding: gzip, deflate", [3]string{index, index, index}},
		{"accept-encoding: gzip", [3]string{literal, inserted, index}},
		{"user-agent: test", [3]string{literal, inserted, index}},
		{"content-type: application/json", [3]string{literal, inserted, index}},
		{"x-any: 1", [3]string{literal, inserted, index}},
		{"fairlead-hops: 1", [3]string{literal, inserted, index}},
		{"content-length: 100", [3]string{literal, literal, literal}},
		{"date: today", [3]string{literal, inserted, index}}, // for a second
		{"etag: 1", [3]string{literal, literal, literal}},
		{"traceparent: 1", [3]string{literal, literal, literal}},
		{"x-b3-traceid: 1", [3]string{literal, literal, literal}},
		{"x-any: " + strings.Repeat("v", 1024-32-5), [3]string{literal, inserted, index}},
		{"x-any: " + strings.Repeat("v", 1024-32-4), [3]string{literal, literal, literal}},
		{"authorization: a", [3]string{never, never, never}},
		{"proxy-authorization: a", [3]string{never, never, never}},
		{"cookie: a", [3]string{never, never, never}},
		{"set-cookie: a", [3]string{never, never, never}},
		{"!x-any: a", [3]string{never, never, never}},
		{"!x-any: ", [3]string{never, never, never}},
		{"!accept-encoding: gzip, deflate", [3]string{never, never, never}},
	} {
		e := NewEncoder()
		list := fields(c.field)
		for i, want := range c.want {
			block := appendFields(e, nil, list)
			got := literal
			switch {
			case block[0]&0x80 != 0:
				got = index
			case block[0]&0xc0 == 0x40:
				got = inserted
			case block[0]&0xf0 == 0x10:
				got = never
			}
			if got != want || (got == index) != (len(block) == 1) {
				t.Errorf("%.40s: time %d: %s, %x, want %s", c.field, i+1, got, block, want)
			}
		}
		if want := min(1, slices.Index(c.want[:], inserted)); e.table.count != max(0, want) {
			t.Errorf("%.40s: %d entries", c.field, e.table.count)
		}
	}
}

func TestWhatNeverComesAgainDisplacesNothing(t *testing.T) {
	e := NewEncoder()
	d := NewDecoder(DefaultTable)
	steady := fields(":authority: orders", "user-agent: test", "accept: */*", "x-tenant: 1")
	var block []byte
	for i := range 1000 {
		list := append(fields(fmt.Sprintf("x-request-id: %d", i), fmt.Sprintf("x-other-id: %d", i)), steady...)
		block = appendFields(e, block[:0], list)
		if got, err := decoded(d, block, noLimit); err != nil || len(got) != len(list) {
			t.Fatal(got, err)
		}
	}
	if got := contents(&e.table); len(got) != len(steady) {
		t.Errorf("the table has %q", got)
	}
}

func TestNamesAreWrittenInLowerCase(t *testing.T) {
	var every []byte
	for c := range 256 {
		every = append(every, byte(c))
	}
	for _, name := range []string{"A", "Z", "a", "User-Agent", "USER-AGENT", "X-Any", "x_any", "X^Any_Thing", "x-a-name-of-more-than-sixteen-byteS",
		"Content-LENGTH", "x-a-namE-of-more-than-sixteen-bytes", "TE", "Traceparent", string(every)} {
		e := NewEncoder()
		d := NewDecoder(DefaultTable)
		for range 3 {
			list := fields(name + ": Value")
			got, err := decoded(d, appendFields(e, nil, list), noLimit)
			want := []byte(name)
			for i, c := range want {
				if 'A' <= c && c <= 'Z' {
					want[i] += 'a' - 'A'
				}
			}
			if err != nil || !slices.Equal(got, []string{string(want) + ": Value"}) {
				t.Errorf("%q: %q, %v", name, got, err)
			}
			if string(list[0].Name) != name {
				t.Errorf("the caller's %q became %q", name, list[0].Name)
			}
		}
	}
}

// RFC 7541 §4.2: what happened to the size between two blocks is said by at most two
// changes, the smallest and the last.
func TestSettingsOfThePeerChangeTheTable(t *testing.T) {
	const block, name, max = "be", "400161", 4096
	for _, c := range []struct {
		what  string
		sizes [][]uint32 // by settings, between blocks
		want  []string   // what the blocks begin with
	}{
		{"the same", [][]uint32{{max}}, []string{""}},
		{"more than is used", [][]uint32{{max + 1}, {1 << 31}, {1<<32 - 1}}, []string{"", "", ""}},
		{"nothing", [][]uint32{{0}, {}}, []string{"20", ""}},
		{"less", [][]uint32{{100}, {100}}, []string{"3f45", ""}},
		{"less and back, and again what it is", [][]uint32{{100, max}, {max}}, []string{"3f453fe11f", ""}},
		{"less and less", [][]uint32{{100, 50}}, []string{"3f13"}},
		{"less and back", [][]uint32{{100, max}, {}}, []string{"3f453fe11f", ""}},
		{"less and less and more", [][]uint32{{100, 50, 200}}, []string{"3f133fa901"}},
		{"less and, later, back", [][]uint32{{100}, {max}}, []string{"3f45", "3fe11f"}},
		{"nothing and, later, all", [][]uint32{{0}, {1 << 20}, {}}, []string{"20", "3fe11f", ""}},
		{"less and, later, less and back", [][]uint32{{100}, {50, 100}}, []string{"3f45", "3f133f45"}},
		{"less and, later, more and back", [][]uint32{{100}, {200, 100}}, []string{"3f45", ""}},
	} {
		e := NewEncoder()
		for i, sizes := range c.sizes {
			for _, n := range sizes {
				e.SetMaxTable(n)
			}
			got := fmt.Sprintf("%x", appendFields(e, nil, fields(":method: GET", ":scheme: http")))
			if want := c.want[i] + "8286"; got != want {
				t.Errorf("%s: block %d is %s, want %s", c.what, i, got, want)
			}
		}
	}
}

func TestATableOfNoSizeHoldsNothing(t *testing.T) {
	e := NewEncoder()
	e.SetMaxTable(0)
	list := fields("a: b", "user-agent: c")
	appendFields(e, nil, list)
	for range 3 {
		if got := fmt.Sprintf("%x", appendFields(e, nil, list)); got != "00016101620f2b0163" {
			t.Error(got)
		}
	}
}

func TestASmallerTableKeepsTheNewest(t *testing.T) {
	e := NewEncoder()
	list := fields("a: 1", "b: 2", "c: 3", "d: 4", "e: 5")
	for range 2 {
		appendFields(e, nil, list)
	}
	e.SetMaxTable(4 * 34)
	if got := fmt.Sprintf("%x", appendFields(e, nil, fields("e: 5", "b: 2", "a: 1"))); got != "3f69"+"be"+"c1"+"4001610131" {
		t.Error(got)
	}
	if got := contents(&e.table); !slices.Equal(got, []string{"a: 1", "e: 5", "d: 4", "c: 3"}) {
		t.Errorf("%q", got)
	}
}

// Hashes of 32 bits meet sometimes.
func TestAFieldIsFoundByMoreThanItsHash(t *testing.T) {
	e := NewEncoder()
	list := fields("a: 1", "user-agent: 1")
	for range 2 {
		appendFields(e, nil, list)
	}
	for _, c := range []struct {
		entry       int // the newest is 0
		index       int
		name, value string
		want        int
	}{
		{1, 0, "a", "1", 63},
		{1, 0, "b", "1", 0},
		{1, 0, "a", "2", 0},
		{1, 58, "user-agent", "1", 0},
		{0, 58, "user-agent", "1", 62},
		{0, 58, "user-agent", "2", 0},
		{0, 31, "content-type", "1", 0},
		{0, 0, "a", "1", 0},
	} {
		entry := e.table.at(c.entry)
		number := e.table.inserted - uint64(c.entry)
		entry.older = 0
		if got := e.find(number, entry.hash, c.index, []byte(c.name), []byte(c.value)); got != c.want {
			t.Errorf("%s: %s has index %d, want %d", c.name, c.value, got, c.want)
		}
	}
}

func TestALongNameLeavesNoLargeMemoryBehind(t *testing.T) {
	e := NewEncoder()
	for _, n := range []int{maxScratch + 1, 1} {
		appendFields(e, nil, fields(strings.Repeat("N", n)+": v"))
	}
	if cap(e.scratch) > maxScratch {
		t.Errorf("%d bytes are kept", cap(e.scratch))
	}
}
