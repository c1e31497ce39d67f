// Package lockedbuf is for tests that read what a process or a logger goes on to write.
package lockedbuf

import (
	"bytes"
	"sync"
)

// Buffer keeps what is written to it. It is safe for concurrent use, and its zero value is empty.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is io.Writer's. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all that was written until now.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
