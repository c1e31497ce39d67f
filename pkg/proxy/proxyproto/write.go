package proxyproto

import (
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Append appends the header to dst, which is all that a sender writes, and in one piece.
// One whose ends are not known says so: UNKNOWN in version 1, LOCAL in version 2. If one
// end alone is of IPv4, it is written as the IPv6 address that maps it.
func (h Header) Append(dst []byte) []byte {
	source, destination := h.Source, h.Destination
	four := source.Addr().Unmap().Is4() && destination.Addr().Unmap().Is4()
	if four {
		source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
		destination = netip.AddrPortFrom(destination.Addr().Unmap(), destination.Port())
	} else if h.Known() {
		source = netip.AddrPortFrom(netip.AddrFrom16(source.Addr().As16()), source.Port())
		destination = netip.AddrPortFrom(netip.AddrFrom16(destination.Addr().As16()), destination.Port())
	}
	if h.Version == V1 {
		return appendV1(dst, source, destination, four)
	}
	return appendV2(dst, source, destination, four)
}

func appendV1(dst []byte, source, destination netip.AddrPort, four bool) []byte {
	switch {
	case !source.IsValid() || !destination.IsValid():
		return append(dst, "PROXY UNKNOWN\r\n"...)
	case four:
		dst = append(dst, "PROXY TCP4 "...)
	default:
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = append(source.Addr().AppendTo(dst), ' ')
	dst = append(destination.Addr().AppendTo(dst), ' ')
	dst = append(strconv.AppendUint(dst, uint64(source.Port()), 10), ' ')
	dst = strconv.AppendUint(dst, uint64(destination.Port()), 10)
	return append(dst, "\r\n"...)
}

func appendV2(dst []byte, source, destination netip.AddrPort, four bool) []byte {
	dst = append(dst, signature...)
	switch {
	case !source.IsValid() || !destination.IsValid():
		return append(dst, commandLocal, unspecified, 0, 0)
	case four:
		dst = append(dst, commandProxy, tcp4, 0, addresses)
	default:
		dst = append(dst, commandProxy, tcp6, 0, address6)
	}
	dst = append(dst, source.Addr().AsSlice()...)
	dst = append(dst, destination.Addr().AsSlice()...)
	dst = binary.BigEndian.AppendUint16(dst, source.Port())
	return binary.BigEndian.AppendUint16(dst, destination.Port())
}
