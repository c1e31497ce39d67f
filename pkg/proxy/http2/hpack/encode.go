package hpack

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// maxEncoderTable is how large an encoder's table becomes, however large a one the peer
// allows, in bytes (RFC 7541 §4.1).
const maxEncoderTable = DefaultTable

// Encoder encodes the blocks that are sent to a peer, in their order. A block is what is
// appended for its fields; nothing begins or ends it.
//
// What is worth an entry of the dynamic table is found out: a field goes in when it comes
// for the second time while the first one is remembered, so values that never come again
// displace nothing. Left out are fields that hold secrets, which go as never to be indexed
// (RFC 7541 §7.1.3), and those whose values hardly repeat, on which hashing would be wasted.
//
// Strings are not Huffman-coded: that saves a quarter of the few bytes that are not in the
// table, and costs each end more than all the rest (see BenchmarkHuffman). For the same reason
// a name that is not in the static table is written in full with each new value: to find an
// entry of that name would take a second index.
type Encoder struct {
	table table

	// A change to the table that the next block begins with (RFC 7541 §4.2): its size is
	// smallest for a moment, and then size.
	changed        bool
	smallest, size int

	seed    maphash.Seed
	newest  [64]uint64   // numbers of entries, by hash; older ones are linked to them
	once    [8][8]uint32 // hashes of fields that came and were not put into the table, by hash, the latest first
	scratch []byte       // a name in lower case
}

// Pseudo is a pseudo-header field: its index in the static table.
type Pseudo uint8

// The pseudo-header fields of RFC 9113 §8.3. (:protocol of RFC 8441 has no index: it is a
// field like others.)
const (
	Authority Pseudo = 1
	Method    Pseudo = 2
	Path      Pseudo = 4
	Scheme    Pseudo = 6
	Status    Pseudo = 8
)

// NewEncoder returns an encoder for a peer that has not sent settings yet.
func NewEncoder() *Encoder {
	return &Encoder{
		table:    table{max: maxEncoderTable},
		smallest: maxEncoderTable,
		size:     maxEncoderTable,
		seed:     maphash.MakeSeed(),
	}
}

// SetMaxTable takes the peer's SETTINGS_HEADER_TABLE_SIZE. It is called between blocks.
func (e *Encoder) SetMaxTable(maxTable uint32) {
	e.size = int(min(maxTable, maxEncoderTable))
	e.smallest = min(e.smallest, e.size)
	e.changed = e.smallest != e.table.max || e.size != e.table.max
}

// AppendPseudo appends a pseudo-header field.
func (e *Encoder) AppendPseudo(dst []byte, name Pseudo, value []byte) []byte {
	return e.append(dst, treatments[name], int(name), nil, value)
}

// AppendField appends a field. The name may be in any spelling, and is written in lower
// case (RFC 9113 §8.2.1); id is its wire.Lookup. A sensitive one is written as one never
// to be indexed; so are fields that are known to be.
func (e *Encoder) AppendField(dst, name, value []byte, id wire.ID, sensitive bool) []byte {
	index := int(staticByID[id])
	if index == 0 {
		name = e.lower(name)
		if id == wire.Other {
			index = staticByName(name)
		}
	}
	how := treatments[index]
	switch {
	case sensitive:
		how = secret
	case hardlyRepeats(id):
		how = passing
	}
	return e.append(dst, how, index, name, value)
}

// append appends a field whose name is that of an entry of the static table, or if index
// is 0, name.
func (e *Encoder) append(dst []byte, how treatment, index int, name, value []byte) []byte {
	if e.changed {
		dst = e.appendChange(dst)
	}
	switch how {
	case secret:
		return appendLiteral(dst, 0x10, 0x0f, index, name, value)
	case valued:
		if i := staticByValue(index, value); i != 0 {
			return append(dst, 0x80|byte(i))
		}
		if index == int(Path) && bytes.IndexByte(value, '?') >= 0 {
			how = passing
		}
	}
	if index != 0 {
		name = staticTable[index-1].name
	}
	// What takes much of the table would displace too much.
	if how == passing || len(name)+len(value)+overhead > e.table.max/4 {
		return appendLiteral(dst, 0x00, 0x0f, index, name, value)
	}
	hash := e.hash(index, name, value)
	bucket := &e.newest[hash%uint32(len(e.newest))]
	if i := e.find(*bucket, hash, index, name, value); i != 0 {
		return appendInteger(dst, 0x80, 0x7f, i)
	}
	if !e.again(hash) {
		return appendLiteral(dst, 0x00, 0x0f, index, name, value)
	}
	entry := e.table.insert(name, value, wire.Other)
	entry.hash, entry.index, entry.older = hash, uint8(index), *bucket
	*bucket = e.table.inserted
	return appendLiteral(dst, 0x40, 0x3f, index, name, value)
}

// find returns the index of a field in the table, 0 if it is not there, of the bucket
// whose newest entry has the number. Entries leave the table in the order in which they
// came, so where one is gone, all older ones are.
func (e *Encoder) find(number uint64, hash uint32, index int, name, value []byte) int {
	t := &e.table
	for t.inserted-number < uint64(t.count) {
		entry := t.numbered(number)
		if entry.hash == hash && int(entry.index) == index && bytes.Equal(t.valueOf(entry), value) &&
			(index != 0 || bytes.Equal(t.nameOf(entry), name)) {
			return len(staticTable) + 1 + int(t.inserted-number)
		}
		number = entry.older
	}
	return 0
}

// again reports whether a field came before and is remembered, and remembers it.
func (e *Encoder) again(hash uint32) bool {
	set := &e.once[hash>>29]
	for _, h := range set {
		if h == hash {
			return true
		}
	}
	copy(set[1:], set[:])
	set[0] = hash
	return false
}

// hash returns a hash of a field, which nobody outside can foresee.
func (e *Encoder) hash(index int, name, value []byte) uint32 {
	h := maphash.Bytes(e.seed, value)
	if index != 0 {
		h += uint64(index) * 0x9e3779b97f4a7c15
	} else {
		h += maphash.Bytes(e.seed, name) * 0x9e3779b97f4a7c15
	}
	return uint32(h >> 32)
}

// hardlyRepeats reports whether the values of a field that the static table does not know
// are hardly ever the same.
func hardlyRepeats(id wire.ID) bool {
	switch id {
	case wire.Traceparent, wire.Tracestate, wire.B3, wire.XB3TraceID, wire.XB3SpanID, wire.XB3ParentSpanID, wire.GRPCTimeout, wire.GRPCMessage:
		return true
	}
	return false
}

// lower returns a name in lower case. If it is not, the copy is valid until the next call.
func (e *Encoder) lower(name []byte) []byte {
	if cap(e.scratch) > maxScratch {
		e.scratch = nil
	}
	if !mayHaveUpper(name) {
		return name
	}
	e.scratch = appendLower(e.scratch[:0], name)
	return e.scratch
}

// mayHaveUpper reports whether a name has a letter in upper case, or one of the few other
// characters that have, like those, bit 6 and not bit 5.
func mayHaveUpper(name []byte) bool {
	const bit6 = 0x4040404040404040
	var found uint64
	for len(name) >= 8 {
		eight := binary.NativeEndian.Uint64(name)
		found |= eight &^ (eight << 1)
		name = name[8:]
	}
	for _, c := range name {
		found |= uint64(c &^ (c << 1))
	}
	return found&bit6 != 0
}

func appendLower(dst, name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func (e *Encoder) appendChange(dst []byte) []byte {
	if e.smallest < min(e.size, e.table.max) {
		dst = appendInteger(dst, 0x20, 0x1f, e.smallest)
		e.table.setMax(e.smallest)
	}
	dst = appendInteger(dst, 0x20, 0x1f, e.size)
	e.table.setMax(e.size)
	e.smallest, e.changed = e.size, false
	return dst
}

// appendLiteral appends a literal (RFC 7541 §6.2) of the kind: a name by index or, if that
// is 0, in full, and a value.
func appendLiteral(dst []byte, kind, prefix byte, index int, name, value []byte) []byte {
	dst = appendInteger(dst, kind, prefix, index)
	if index == 0 {
		dst = append(appendInteger(dst, 0, 0x7f, len(name)), name...)
	}
	return append(appendInteger(dst, 0, 0x7f, len(value)), value...)
}

// appendInteger appends an integer (RFC 7541 §5.1) below the bits of kind.
func appendInteger(dst []byte, kind, prefix byte, n int) []byte {
	if n < int(prefix) {
		return append(dst, kind|byte(n))
	}
	return appendLong(append(dst, kind|prefix), uint64(n-int(prefix)))
}

// appendLong appends what does not fit into the prefix. It is apart so that appendInteger can be
// inlined.
func appendLong(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }
