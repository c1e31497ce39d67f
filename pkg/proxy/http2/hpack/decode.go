package hpack

import (
	"math"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// Field is a decoded field.
type Field struct {
	Name, Value []byte // to read only; both are valid until the next call of the decoder
	ID          wire.ID

	// Sensitive says that the field came as one never to be indexed, and goes on as one
	// (RFC 7541 §6.2.3: "Intermediaries MUST use the same representation for encoding
	// this header field").
	Sensitive bool
}

// Size is what a field counts for in a list of fields (RFC 9113 §6.5.2), in bytes.
func (f *Field) Size() int { return len(f.Name) + len(f.Value) + overhead }

// Decoder decodes the blocks that a peer sends, in their order:
//
//	d.Begin(block, limit)
//	for {
//		more, err := d.Next(&f)
//		…
//	}
//
// What it does is bounded by what it is given. A field that is but an index costs one
// step and no copy, however long it is, and the list's limit bounds how much of such is
// handed out. A literal costs its length, 8/5 of that where it is Huffman-coded, and a copy
// where it goes into the dynamic table. Only there a name may be longer than what came in,
// and at most as long as the table; a peer that sends nothing else has its block decoded at
// 36 MB/s (see BenchmarkBomb), which is more than it reaches with requests.
type Decoder struct {
	table table
	limit int // of table.max, by our settings

	// shrink is the size that the next block has to reduce the table to before anything
	// else, for our settings did; noShrink if there is none.
	shrink int

	block []byte
	pos   int
	begun bool // a field of the block was there
	room  int  // what is left of the list's limit; below 0 behind it

	scratch []byte // of the field that is being decoded
}

const noShrink = -1

// DefaultTable is the size of a dynamic table before settings, in bytes (RFC 9113
// §6.5.2).
const DefaultTable = 4096

// maxDecoderTable keeps sums of a table's sizes within an int.
const maxDecoderTable = 1 << 30

// maxScratch is how much memory an idle decoder keeps beside its table.
const maxScratch = 16 << 10

// NewDecoder returns a decoder with an empty dynamic table. maxTable is the size in bytes
// that the table may have (RFC 7541 §4.1) until SetMaxTable: DefaultTable in HTTP/2, 1 GB
// at most. Its memory grows with use, up to four times that.
func NewDecoder(maxTable uint32) *Decoder {
	n := int(min(maxTable, maxDecoderTable))
	return &Decoder{table: table{max: n}, limit: n, shrink: noShrink}
}

// SetMaxTable says that the peer has acknowledged our SETTINGS_HEADER_TABLE_SIZE. It is called
// between blocks. If the table has to shrink, the next block must begin by saying so
// (RFC 7541 §4.2).
func (d *Decoder) SetMaxTable(maxTable uint32) {
	d.limit = int(min(maxTable, maxDecoderTable))
	if d.limit < d.table.max && (d.shrink == noShrink || d.limit < d.shrink) {
		d.shrink = d.limit
	}
}

// Begin starts with a block, all of it, which must not change until its last field. Of
// the list only the fields up to the first one with which it has more than maxList bytes
// (RFC 9113 §6.5.2) are handed out.
func (d *Decoder) Begin(block []byte, maxList int) {
	d.block, d.pos, d.begun, d.room = block, 0, false, maxList
	if cap(d.scratch) > maxScratch {
		d.scratch = nil
	}
}

// TooLarge reports whether the block went past the limit of its list. The request is to
// be refused then; the connection is as it should be.
func (d *Decoder) TooLarge() bool { return d.room < 0 }

// Next decodes the next field that is handed out. It returns false at the block's end.
// After an error, which is one of the package's sentences, the decoder is of no more use.
func (d *Decoder) Next(f *Field) (bool, error) {
	for d.pos < len(d.block) {
		first := d.block[d.pos]
		if d.shrink != noShrink && first&0xe0 != 0x20 {
			return false, errMissingUpdate
		}
		var err error
		switch {
		case first&0x80 != 0: // §6.1: Indexed Header Field
			f.Sensitive = false
			err = d.indexed(f, 0x7f)
		case first&0x40 != 0: // §6.2.1: Literal Header Field with Incremental Indexing
			f.Sensitive = false
			if err = d.literal(f, 0x3f); err == nil {
				if e := d.table.insert(f.Name, f.Value, f.ID); e != nil {
					f.Name, f.Value = d.table.nameOf(e), d.table.valueOf(e)
				}
			}
		case first&0x20 != 0: // §6.3: Dynamic Table Size Update
			if err := d.update(); err != nil {
				return false, err
			}
			continue
		default: // §6.2.2 and 6.2.3: Literal Header Field without Indexing, or Never Indexed
			f.Sensitive = first&0x10 != 0
			err = d.literal(f, 0x0f)
		}
		if err != nil {
			return false, err
		}
		d.begun = true
		if d.room -= f.Size(); d.room >= 0 {
			return true, nil
		}
		// This and the rest are decoded for the sake of the table.
	}
	return false, nil
}

// indexed sets a field to the table entry whose index comes next.
func (d *Decoder) indexed(f *Field, prefix byte) error {
	i, err := d.integer(prefix)
	if err != nil {
		return err
	}
	if i <= uint32(len(staticTable)) {
		if i == 0 {
			return errIndexZero
		}
		e := &staticTable[i-1]
		f.Name, f.Value, f.ID = e.name, e.value, e.id
		return nil
	}
	i -= uint32(len(staticTable)) + 1
	if i >= uint32(d.table.count) {
		return errIndex
	}
	e := d.table.at(int(i))
	f.Name, f.Value, f.ID = d.table.nameOf(e), d.table.valueOf(e), e.id
	return nil
}

// literal sets a field to the literal that comes next.
func (d *Decoder) literal(f *Field, prefix byte) (err error) {
	d.scratch = d.scratch[:0]
	if d.block[d.pos]&prefix != 0 {
		err = d.indexed(f, prefix)
	} else {
		d.pos++
		f.Name, err = d.text()
		f.ID = wire.Lookup(f.Name)
	}
	if err != nil {
		return err
	}
	f.Value, err = d.text()
	return err
}

// update makes the change to the table that comes next.
func (d *Decoder) update() error {
	if d.begun {
		return errLateUpdate
	}
	n, err := d.integer(0x1f)
	if err != nil {
		return err
	}
	if n > uint32(d.limit) {
		return errLargeUpdate
	}
	if d.shrink != noShrink {
		if n > uint32(d.shrink) {
			return errMissingUpdate
		}
		d.shrink = noShrink
	}
	d.table.setMax(int(n))
	return nil
}

// text returns the string that comes next (RFC 7541 §5.2).
func (d *Decoder) text() ([]byte, error) {
	if d.pos == len(d.block) {
		return nil, errCut
	}
	coded := d.block[d.pos]&0x80 != 0
	n, err := d.integer(0x7f)
	if err != nil {
		return nil, err
	}
	if uint64(n) > uint64(len(d.block)-d.pos) {
		return nil, errCut
	}
	end := d.pos + int(n)
	raw := d.block[d.pos:end:end]
	d.pos = end
	if !coded {
		return raw, nil
	}
	start := len(d.scratch)
	if d.scratch, err = appendHuffman(d.scratch, raw); err != nil {
		return nil, err
	}
	return d.scratch[start:len(d.scratch):len(d.scratch)], nil
}

// integer returns the integer that comes next (RFC 7541 §5.1), in those bits of an octet
// that prefix has.
func (d *Decoder) integer(prefix byte) (uint32, error) {
	n := d.block[d.pos] & prefix
	d.pos++
	if n < prefix {
		return uint32(n), nil
	}
	return d.long(uint64(n))
}

// long returns an integer whose prefix says no more than that it is n or more.
func (d *Decoder) long(n uint64) (uint32, error) {
	for shift := 0; shift < 35; shift += 7 {
		if d.pos == len(d.block) {
			return 0, errCut
		}
		octet := d.block[d.pos]
		d.pos++
		n += uint64(octet&0x7f) << shift
		if octet&0x80 == 0 {
			if n > math.MaxUint32 {
				return 0, errInteger
			}
			return uint32(n), nil
		}
	}
	return 0, errInteger
}
