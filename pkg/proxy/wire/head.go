package wire

// Proto is the version of HTTP that a message came in.
type Proto uint8

// The versions, in their order.
const (
	HTTP10 Proto = iota
	HTTP11
	HTTP2
)

// String returns HTTP/1.0, HTTP/1.1 or HTTP/2.
func (p Proto) String() string { return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2"}[p] }

// Version returns 1.0, 1.1 or 2.
func (p Proto) Version() string { return p.String()[len("HTTP/"):] }

// Field is a line of a head: a name in the spelling that it came in, and a value
// without the white space around it.
type Field struct {
	Name, Value []byte
	ID          ID

	// Sensitive fields came as such that no compression may index (RFC 7541 §7.1.3), and
	// go on as that.
	Sensitive bool
}

// NoLength is the ContentLength of a head that does not say.
const NoLength = -1

// Head is the head of a request or a response. The zero value is empty and ready;
// Reset makes it so again and keeps its memory.
type Head struct {
	// Of a request. Authority is who is meant: the target's, else Host's. Path is
	// the target in origin-form with its query, "*", or empty for CONNECT.
	Method, Authority, Path []byte
	// Of a response.
	Status int
	Reason []byte

	// Scheme of a request: as :scheme gave it, or https if it came over TLS; nil where
	// neither says: then it is http.
	Scheme []byte

	// Protocol of an extended CONNECT, as :protocol gave it (RFC 8441 §4); else nil.
	Protocol []byte

	// Proto is what it came in.
	Proto Proto

	// Fields in the order that they came in, but for those of the framing, which
	// are the next ones and which whoever writes the head writes anew. Authority
	// counts, not the field Host: readers see to it that the two agree.
	Fields []Field

	ContentLength  int64 // of the body; NoLength if the head did not say
	Streamed       bool  // there is a body, and its length is not known
	Close          bool  // the sender, or this side, ends the connection afterwards
	Ends           bool  // of a response: nothing comes behind it, as HTTP/2 says with the head itself; false: it may
	ExpectContinue bool  // Expect: 100-continue

	arena []byte
}

// maxArena is how much memory an empty head keeps. A decoded head lies in its arena
// whole, and one large head must not make a connection large for good.
const maxArena = 16 << 10

// Reset empties the head.
func (h *Head) Reset() {
	if cap(h.arena) > maxArena {
		h.arena = nil
	}
	*h = Head{Fields: h.Fields[:0], ContentLength: NoLength, Proto: HTTP11, arena: h.arena[:0]}
}

// Get returns the value of the first field with a known name, nil if there is none.
func (h *Head) Get(id ID) []byte {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			return h.Fields[i].Value
		}
	}
	return nil
}

// Del removes all fields with a known name.
func (h *Head) Del(id ID) {
	n := 0
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			continue
		}
		if n != i {
			h.Fields[n] = h.Fields[i]
		}
		n++
	}
	h.Fields = h.Fields[:n]
}

// Add appends a field. Both name and value are copied.
func (h *Head) Add(id ID, name string, value []byte) {
	start := h.reserve(len(name) + len(value))
	h.arena = append(append(h.arena, name...), value...)
	own := h.arena[start:len(h.arena):len(h.arena)]
	h.Fields = append(h.Fields, Field{Name: own[:len(name):len(name)], Value: own[len(name):], ID: id})
}

// minArena is how large an arena begins.
const minArena = 256

// reserve makes room for n bytes in the arena, and returns where they go. Fields keep
// pointing into an arena that is full, and keep it: a copy of it would be kept beside it,
// and of a head of 60 kB that grew so, several times its size.
func (h *Head) reserve(n int) int {
	if have := cap(h.arena); n > have-len(h.arena) {
		size := max(2*have, minArena)
		if have < maxArena {
			size = min(size, maxArena)
		}
		h.arena = make([]byte, 0, max(size, n))
	}
	return len(h.arena)
}

// Own returns a copy of b that lives as long as the fields do: until Reset.
func (h *Head) Own(b []byte) []byte {
	start := h.reserve(len(b))
	h.arena = append(h.arena, b...)
	return h.arena[start:len(h.arena):len(h.arena)]
}

// OwnBoth is Own of b with more behind it.
func (h *Head) OwnBoth(b, more []byte) []byte {
	start := h.reserve(len(b) + len(more))
	h.arena = append(append(h.arena, b...), more...)
	return h.arena[start:len(h.arena):len(h.arena)]
}

// AddDecoded appends a field that lies in memory of a decoder's. Both name and value
// are copied.
func (h *Head) AddDecoded(name, value []byte, id ID, sensitive bool) {
	h.Fields = append(h.Fields, Field{Name: h.Own(name), Value: h.Own(value), ID: id, Sensitive: sensitive})
}

// Set gives the first field with a known name another value and removes further
// ones; without any it adds one. The value is copied, the spelling of a name that
// is there stays.
func (h *Head) Set(id ID, name string, value []byte) {
	for i := range h.Fields {
		if h.Fields[i].ID != id {
			continue
		}
		start := h.reserve(len(value))
		h.arena = append(h.arena, value...)
		h.Fields[i].Value = h.arena[start:len(h.arena):len(h.arena)]
		if h.arena == nil {
			h.Fields[i].Value = []byte{} // empty, but there: nil would tell Get's caller that it is not
		}
		h.delAfter(i, id)
		return
	}
	h.Add(id, name, value)
}

// Is reports whether a field has a name: by its ID, or, of Other, as it is in lower case.
func (f *Field) Is(id ID, lower string) bool {
	return f.ID == id && (id != Other || EqualFold(f.Name, lower))
}

// DelFunc removes the fields that which tells.
func (h *Head) DelFunc(which func(f *Field) bool) {
	n := 0
	for i := range h.Fields {
		if which(&h.Fields[i]) {
			continue
		}
		if n != i {
			h.Fields[n] = h.Fields[i]
		}
		n++
	}
	h.Fields = h.Fields[:n]
}

// Extend makes one field of all that have a known name, as Join, with one more value behind them;
// without any it adds one. The value is copied.
func (h *Head) Extend(id ID, name, separator string, value []byte) {
	h.Join(id, separator)
	for i := range h.Fields {
		f := &h.Fields[i]
		if f.ID != id {
			continue
		}
		if len(f.Value) == 0 {
			f.Value = h.Own(value)
			return
		}
		start := h.reserve(len(f.Value) + len(separator) + len(value))
		h.arena = append(append(append(h.arena, f.Value...), separator...), value...)
		f.Value = h.arena[start:len(h.arena):len(h.arena)]
		return
	}
	h.Add(id, name, value)
}

// Join makes one field of all that have a known name, its values behind each other with
// the separator between them. Without such a field it does nothing.
func (h *Head) Join(id ID, separator string) {
	first, size := -1, 0
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			size += len(h.Fields[i].Value) + len(separator)
		}
	}
	start := h.reserve(size)
	for i := range h.Fields {
		if h.Fields[i].ID != id {
			continue
		}
		if first < 0 {
			first = i
		} else {
			h.arena = append(h.arena, separator...)
		}
		h.arena = append(h.arena, h.Fields[i].Value...)
	}
	if first >= 0 {
		h.Fields[first].Value = h.arena[start:len(h.arena):len(h.arena)]
		h.delAfter(first, id)
	}
}

// delAfter removes the fields with a known name that come after i.
func (h *Head) delAfter(i int, id ID) {
	n := i + 1
	for j := n; j < len(h.Fields); j++ {
		if h.Fields[j].ID == id {
			continue
		}
		h.Fields[n] = h.Fields[j]
		n++
	}
	h.Fields = h.Fields[:n]
}

// Size is about how many bytes the head takes when it is written.
func (h *Head) Size() int {
	n := len(h.Method) + len(h.Path) + len(h.Authority) + len(h.Reason) + 64 // the lines that are not among Fields
	for i := range h.Fields {
		n += len(h.Fields[i].Name) + len(h.Fields[i].Value) + 4
	}
	return n
}
