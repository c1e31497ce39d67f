package lb

// MaxTried is how many hosts a [Tried] remembers.
const MaxTried = 8

// Tried remembers the hosts that one request has tried, by identity, so that it
// stays valid when the next attempt uses a newer picker. The zero value remembers
// none. It is a small value; a request keeps it on its stack.
//
// This type is not concurrency safe.
type Tried struct {
	hosts [MaxTried]*Host
	n     uint8
}

// Add remembers h. It returns false, remembering nothing, if that would be more than
// [MaxTried] hosts: a request that failed on so many should give up.
func (t *Tried) Add(h *Host) bool {
	if t.Has(h) {
		return true
	}
	if t.n == MaxTried {
		return false
	}
	t.hosts[t.n] = h
	t.n++
	return true
}

// Has reports whether h was added.
func (t *Tried) Has(h *Host) bool {
	for _, tried := range t.hosts[:t.n] {
		if tried == h {
			return true
		}
	}
	return false
}

// Len returns the number of hosts remembered.
func (t *Tried) Len() int { return int(t.n) }
