package hpack

import "github.com/fairlead-mesh/fairlead/pkg/proxy/wire"

// overhead is what an entry counts for beside its text (RFC 7541 §4.1).
const overhead = 32

// table is a dynamic table (RFC 7541 §2.3.2): first in, first out. The text of its
// entries lies in one ring of bytes, each entry in one piece. Both rings grow with what
// is in them, up to twice max bytes of text and max/32 entries.
type table struct {
	entries  []entry // a ring; its length is a power of 2
	inserted uint64  // entries ever; the newest has this number
	count    int     // of those, the newest that are still there
	size     int     // of them, in the sense of RFC 7541 §4.1
	max      int     // of size

	text []byte // a ring
	pos  int    // where in text the next entry goes, if it fits there
}

// entry is a field of the table.
type entry struct {
	off, name, value uint32 // where its text begins, and how long the name and the value are
	hash             uint32 // of name and value; the encoder's
	older            uint64 // number of the entry that came into the same bucket before; the encoder's
	index            uint8  // of the name in the static table, or 0; the encoder's
	id               wire.ID
}

// at returns the i-th entry, 0 being the newest. It must exist.
func (t *table) at(i int) *entry { return t.numbered(t.inserted - uint64(i)) }

func (t *table) numbered(number uint64) *entry {
	return &t.entries[number&uint64(len(t.entries)-1)]
}

func (t *table) nameOf(e *entry) []byte {
	return t.text[e.off : e.off+e.name : e.off+e.name]
}

func (t *table) valueOf(e *entry) []byte {
	from := e.off + e.name
	return t.text[from : from+e.value : from+e.value]
}

// setMax changes the bound of the size (RFC 7541 §4.3).
func (t *table) setMax(bytes int) {
	t.max = bytes
	t.evict(bytes)
}

// evict removes the oldest entries until the others have at most so many bytes. What
// they held stays readable until the next insertion.
func (t *table) evict(bytes int) {
	for t.size > bytes {
		oldest := t.at(t.count - 1)
		t.size -= int(oldest.name) + int(oldest.value) + overhead
		t.count--
	}
}

// insert adds a field and returns its entry; nil if it is larger than the whole table,
// which is empty then (RFC 7541 §4.4). name may be that of an entry, even of one that
// has to go; value must lie elsewhere.
func (t *table) insert(name, value []byte, id wire.ID) *entry {
	n := len(name) + len(value)
	if n+overhead > t.max {
		t.evict(0)
		return nil
	}
	t.evict(t.max - n - overhead)
	if t.count == len(t.entries) {
		t.growEntries()
	}
	held := t.size - t.count*overhead
	// Text goes behind that of the entry before, or where that does not fit, to the
	// beginning. With a ring of twice what is held there is always room: without a wrap,
	// what does not fit behind leaves more than half of the ring free in front; with one,
	// the bytes left over at the end are fewer than those of the entry that wrapped.
	if 2*(held+n) > len(t.text) {
		t.growText(held, n)
	}
	if t.pos+n > len(t.text) {
		t.pos = 0
	}
	own := t.text[t.pos : t.pos+n]
	// The name first: where it is that of an entry which has just gone, value's new place
	// may overlap with it, and copy alone minds that of its own operands.
	copy(own, name)
	copy(own[len(name):], value)
	t.inserted++
	t.count++
	t.size += n + overhead
	e := t.at(0)
	*e = entry{off: uint32(t.pos), name: uint32(len(name)), value: uint32(len(value)), id: id}
	t.pos += n
	return e
}

func (t *table) growEntries() {
	larger := make([]entry, max(8, 2*len(t.entries)))
	for i := range t.count {
		number := t.inserted - uint64(i)
		larger[number&uint64(len(larger)-1)] = *t.numbered(number)
	}
	t.entries = larger
}

// growText makes room for n bytes beside those that are held.
func (t *table) growText(held, n int) {
	larger := make([]byte, max(2*(held+n), min(max(256, 2*len(t.text)), 2*t.max)))
	t.pos = 0
	for i := t.count - 1; i >= 0; i-- {
		e := t.at(i)
		n := copy(larger[t.pos:], t.text[e.off:e.off+e.name+e.value])
		e.off = uint32(t.pos)
		t.pos += n
	}
	t.text = larger
}
