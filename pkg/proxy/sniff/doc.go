// Package sniff reads what a connection says of itself in its first bytes, for those who
// pass the same bytes on: the TLS ClientHello (RFC 8446 §4.1.2), in which the client names
// the server that it wants (RFC 6066 §3) and the protocols that it speaks (RFC 7301 §3.1).
package sniff
