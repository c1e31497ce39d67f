package proxyproto

import (
	"net/netip"
)

// Version is a version of the protocol.
type Version uint8

// The versions: a line of text, and a binary block.
const (
	V1 Version = 1
	V2 Version = 2
)

// Header is what a header says of a connection.
type Header struct {
	Version Version
	// Source and Destination are the ends of the connection as the first proxy saw it.
	// Both are valid, or neither is: then the sender speaks for itself (LOCAL), or does
	// not know (UNKNOWN, UNSPEC), or the connection was none of IP (UNIX), and the ends
	// of the connection that the header came on are what is known.
	Source, Destination netip.AddrPort
}

// Known reports whether the header names the ends of a connection.
func (h Header) Known() bool { return h.Source.IsValid() && h.Destination.IsValid() }

// Error is a header that breaks the protocol.
type Error struct{ Text string }

func (e *Error) Error() string { return "PROXY protocol: " + e.Text }

func malformed(text string) error { return &Error{text} }

// Bounds in bytes.
const (
	// maxV1 is the longest line with its end (§2.1).
	maxV1 = 107
	// MaxV2 is the longest block of version 2 that is read where nothing else is said,
	// TLVs and all: what every sender may count on (§2).
	MaxV2 = 536
	// minimum is the shortest header there is: PROXY UNKNOWN with its end. That of
	// version 2 has one more.
	minimum = 15
)

// signature begins every header of version 2 (§2.2). It is nothing that another protocol
// begins with, and ends in a line feed so that readers of lines get through with it.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// The command and the version, and the family and the transport, of version 2.
const (
	commandLocal = 0x20
	commandProxy = 0x21

	unspecified = 0x00
	tcp4        = 0x11
	udp4        = 0x12
	tcp6        = 0x21
	udp6        = 0x22
	unixStream  = 0x31
	unixDgram   = 0x32
)

// Lengths of the parts of version 2.
const (
	fixed     = 16 // signature, command, family, length
	addresses = 12 // of IPv4
	address6  = 36 // of IPv6
	unixPaths = 216
)
