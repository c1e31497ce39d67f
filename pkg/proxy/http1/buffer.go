package http1

import "sync"

// Sizes of pooled buffers: a head usually fits the small one, a stream of body
// bytes uses the large one, a head may grow through all of them.
const (
	smallBuffer = 4 << 10
	largeBuffer = 32 << 10
	hugeBuffer  = 64 << 10
)

// pools hold buffers as pointers to arrays, so that putting one in does not allocate.
//
//nolint:gochecknoglobals // a pool shared by all connections is the point of a pool
var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	hugePool  = sync.Pool{New: func() any { return new([hugeBuffer]byte) }}
)

// getBuffer returns a buffer of at least n bytes, from a pool unless n > hugeBuffer.
func getBuffer(n int) []byte {
	switch {
	case n <= smallBuffer:
		return smallPool.Get().(*[smallBuffer]byte)[:]
	case n <= largeBuffer:
		return largePool.Get().(*[largeBuffer]byte)[:]
	case n <= hugeBuffer:
		return hugePool.Get().(*[hugeBuffer]byte)[:]
	default:
		return make([]byte, n)
	}
}

// putBuffer gives back what getBuffer returned, or nil.
func putBuffer(b []byte) {
	switch cap(b) {
	case smallBuffer:
		smallPool.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	case hugeBuffer:
		hugePool.Put((*[hugeBuffer]byte)(b[:hugeBuffer]))
	}
}
