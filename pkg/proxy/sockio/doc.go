// Package sockio is what the codecs share below their protocols: system calls on
// sockets that do not block, and pooled buffers.
package sockio
