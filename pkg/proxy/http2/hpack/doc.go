// Package hpack is the compression of HTTP/2's field sections (RFC 7541): a [Decoder]
// and an [Encoder], one of each per connection.
//
// A decoder takes whole blocks and hands out fields that point into memory of its own
// or into the block; the caller copies what it keeps. An encoder appends to a buffer of
// the caller's. Neither allocates in the steady state, and neither is safe for more than
// one goroutine at a time. The package does no I/O and starts no goroutine.
//
// Both halves of a connection keep a dynamic table that must stay the same at both
// ends. So whoever begins a block decodes it to its end, whatever its fields say, and a
// block that was encoded is sent, in the order of encoding. An error of a decoder means
// that the tables differ from there on: the connection ends with COMPRESSION_ERROR
// (RFC 9113 §4.3).
package hpack
