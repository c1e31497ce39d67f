package sockio

import "sync"

// Sizes of pooled buffers: a head usually fits the small one, a stream of body
// bytes uses the large one, a head may grow through all of them up to the huge one. What
// a stream has unread may grow to the others.
const (
	Small = 4 << 10
	Large = 32 << 10
	Huge  = 64 << 10

	half   = 128 << 10
	window = 256 << 10
)

// pools hold buffers as pointers to arrays, so that putting one in does not allocate.
//
//nolint:gochecknoglobals // a pool shared by all connections is the point of a pool
var (
	smallPool = sync.Pool{New: func() any { return new([Small]byte) }}
	largePool = sync.Pool{New: func() any { return new([Large]byte) }}
	hugePool  = sync.Pool{New: func() any { return new([Huge]byte) }}

	halfPool   = sync.Pool{New: func() any { return new([half]byte) }}
	windowPool = sync.Pool{New: func() any { return new([window]byte) }}
)

// Get returns a buffer of at least n bytes, from a pool unless n is more than 256 kB.
func Get(n int) []byte {
	switch {
	case n <= Small:
		return smallPool.Get().(*[Small]byte)[:]
	case n <= Large:
		return largePool.Get().(*[Large]byte)[:]
	case n <= Huge:
		return hugePool.Get().(*[Huge]byte)[:]
	case n <= half:
		return halfPool.Get().(*[half]byte)[:]
	case n <= window:
		return windowPool.Get().(*[window]byte)[:]
	default:
		return make([]byte, n)
	}
}

// Put gives back what Get returned, or nil.
func Put(b []byte) {
	switch cap(b) {
	case Small:
		smallPool.Put((*[Small]byte)(b[:Small]))
	case Large:
		largePool.Put((*[Large]byte)(b[:Large]))
	case Huge:
		hugePool.Put((*[Huge]byte)(b[:Huge]))
	case half:
		halfPool.Put((*[half]byte)(b[:half]))
	case window:
		windowPool.Put((*[window]byte)(b[:window]))
	}
}

// Reserve returns b with room for n more bytes behind its length, if need be in another
// buffer; then the old one is given back. b is of Get, or nil.
func Reserve(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	larger := Get(max(len(b)+n, 2*cap(b)))[:len(b)]
	copy(larger, b)
	Put(b)
	return larger
}
