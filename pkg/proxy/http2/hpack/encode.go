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
// table, and costs each end more than all the rest (see BenchmarkHuffman).
type Encoder struct {
	table table

	// A change to the table that the next block begins with (RFC 7541 §4.2): its size is
	// smallest for a moment, and then size.
	changed        bool
	smallest, size int

	seed    maphash.Seed
	newest  [64]uint64 // numbers of entries, by hash; older ones are linked to them
	once    [64]uint32 // hashes of fields that came and were not put into the table
	scratch []byte     // a name in lower case
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
	return e.append(dst, int(name), nil, value, wire.Other, false)
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
	return e.append(dst, index, name, value, id, sensitive)
}

// append appends a field whose name is that of an entry of the static table, or if index
// is 0, name.
func (e *Encoder) append(dst []byte, index int, name, value []byte, id wire.ID, sensitive bool) []byte {
	if e.changed {
		dst = e.appendChange(dst)
	}
	if sensitive || isSecret(index) {
		return appendLiteral(dst, 0x10, 0x0f, index, name, value)
	}
	if i := staticByValue(index, value); i != 0 {
		return append(dst, 0x80|byte(i))
	}
	if index != 0 {
		name = staticTable[index-1].name
	}
	// What takes much of the table would displace too much.
	if hardlyRepeats(index, id, value) || len(name)+len(value)+overhead > e.table.max/4 {
		return appendLiteral(dst, 0x00, 0x0f, index, name, value)
	}
	hash := e.hash(index, name, value)
	bucket := &e.newest[hash%uint32(len(e.newest))]
	if i := e.find(*bucket, hash, name, value); i != 0 {
		return appendInteger(dst, 0x80, 0x7f, i)
	}
	if once := &e.once[hash>>26]; *once != hash {
		*once = hash
		return appendLiteral(dst, 0x00, 0x0f, index, name, value)
	}
	entry := e.table.insert(name, value, id)
	entry.hash, entry.older = hash, *bucket
	*bucket = e.table.inserted
	return appendLiteral(dst, 0x40, 0x3f, index, name, value)
}

// find returns the index of a field in the table, 0 if it is not there, of the bucket
// whose newest entry has the number. Entries leave the table in the order in which they
// came, so where one is gone, all older ones are.
func (e *Encoder) find(number uint64, hash uint32, name, value []byte) int {
	t := &e.table
	for t.inserted-number < uint64(t.count) {
		entry := t.numbered(number)
		if entry.hash == hash && bytes.Equal(t.valueOf(entry), value) && bytes.Equal(t.nameOf(entry), name) {
			return len(staticTable) + 1 + int(t.inserted-number)
		}
		number = entry.older
	}
	return 0
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

// isSecret reports whether a field with the static table's name holds what nobody may
// guess by the size of blocks (RFC 7541 §7.1): on the way to a server, the fields of many
// clients share a table.
func isSecret(index int) bool {
	switch index {
	case 23, 32, 49, 55: // authorization, cookie, proxy-authorization, set-cookie
		return true
	}
	return false
}

// hardlyRepeats reports whether a field is none for the table.
func hardlyRepeats(index int, id wire.ID, value []byte) bool {
	switch index {
	case 0:
		switch id {
		case wire.Traceparent, wire.Tracestate, wire.B3, wire.XB3TraceID, wire.XB3SpanID, wire.XB3ParentSpanID:
			return true
		}
	case int(Path):
		return bytes.IndexByte(value, '?') >= 0
	// age, content-length, content-range, date, etag, expires, if-match, if-modified-since,
	// if-none-match, if-range, if-unmodified-since, last-modified, location
	case 21, 28, 30, 33, 34, 36, 39, 40, 41, 42, 43, 44, 46:
		return true
	}
	return false
}

// lower returns a name in lower case. If it is not, the copy is valid until the next call.
func (e *Encoder) lower(name []byte) []byte {
	if cap(e.scratch) > maxScratch {
		e.scratch = nil
	}
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			e.scratch = appendLower(e.scratch[:0], name)
			return e.scratch
		}
	}
	return name
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

func appendLong(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }
