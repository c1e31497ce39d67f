// Package wire is what a message is to the proxy, whatever protocol it came by: a
// head of ordered fields, and errors that say what was wrong with the bytes.
//
// The bytes of a head lie in the buffer that they were read into, which stays
// pinned until the exchange ends; what is added lies in an arena of the head's
// own, which is used again. What outlives the exchange copies. A head belongs to
// one goroutine. The package does no I/O.
package wire
