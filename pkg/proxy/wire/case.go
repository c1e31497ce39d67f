package wire

import "bytes"

// canonical is what [Head.AppendCase] says of names that are spelt Like-This.
const canonical = "canonical"

// maxCase bounds how many bytes of names are said: more lose their spelling, for a head
// that is as large as it may be must not become one that is too large.
const maxCase = 2 << 10

// AppendCase appends how the names of the fields are spelt, for a peer that gets them in
// lower case, as HTTP/2 has them, and spells them so again with [Head.SetCase]. Nothing is
// appended if all are in lower case, one word if all are canonical, and else the names, if
// they are not more than 2 kB. Host does not count: there it is no field.
func (h *Head) AppendCase(b []byte) []byte {
	lower, canon := true, true
	for i := range h.Fields {
		if f := &h.Fields[i]; f.ID != Host && !isLowerByCustom(f.ID) {
			lower = lower && isLower(f.Name)
			canon = canon && isCanonical(f.Name)
		}
	}
	switch {
	case lower:
		return b
	case canon:
		return append(b, canonical...)
	}
	length := 0
	for i := range h.Fields {
		length += len(h.Fields[i].Name) + 1
	}
	if length > maxCase {
		return b
	}
	for i := range h.Fields {
		if h.Fields[i].ID != Host {
			b = append(append(b, h.Fields[i].Name...), ',')
		}
	}
	return b[:len(b)-1]
}

// SetCase spells the names of the fields as AppendCase said. They are looked for in the order
// of the fields, of which some may have gone since (several cookies become one on the
// way); a name that is not there is left. The names must be the head's own, as decoded ones are.
func (h *Head) SetCase(said []byte) {
	if string(said) == canonical {
		for i := range h.Fields {
			if f := &h.Fields[i]; !isLowerByCustom(f.ID) {
				canonicalize(f.Name)
			}
		}
		return
	}
	for i := range h.Fields {
		for left := said; len(left) > 0; {
			var name []byte
			if name, left, _ = bytes.Cut(left, []byte{','}); equalFoldBytes(h.Fields[i].Name, name) {
				copy(h.Fields[i].Name, name)
				said = left
				break
			}
		}
	}
}

// isLowerByCustom reports whether a field is spelt in lower case whoever writes it.
func isLowerByCustom(id ID) bool {
	switch id {
	case B3, Traceparent, Tracestate, FairleadCase, FairleadHops, FairleadPeer, FairleadPeerFailure, FairleadReason:
		return true
	}
	return false
}

func isLower(name []byte) bool {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// isCanonical reports whether a name is spelt Like-This.
func isCanonical(name []byte) bool {
	start := true
	for _, c := range name {
		if start && 'a' <= c && c <= 'z' || !start && 'A' <= c && c <= 'Z' {
			return false
		}
		start = c == '-'
	}
	return true
}

// canonicalize spells a name in lower case Like-This.
func canonicalize(name []byte) {
	start := true
	for i, c := range name {
		if start && 'a' <= c && c <= 'z' {
			name[i] = c - ('a' - 'A')
		}
		start = c == '-'
	}
}
