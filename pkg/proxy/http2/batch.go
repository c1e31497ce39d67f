package http2

// Batch collects connections that have something to be written, so that whoever works
// on many streams writes to each connection once. It belongs to one goroutine.
type Batch struct{ conns []*Conn }

func (b *Batch) add(c *Conn) {
	for _, have := range b.conns {
		if have == c {
			return
		}
	}
	b.conns = append(b.conns, c)
}

// Flush writes what waits on the collected connections. It does not block.
func (b *Batch) Flush() {
	for i, c := range b.conns {
		c.flush()
		b.conns[i] = nil
	}
	b.conns = b.conns[:0]
}
