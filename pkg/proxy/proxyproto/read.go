package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strconv"
)

// Read reads a header from r, and not a byte more: what follows belongs to somebody else.
// A block of version 2 may be limit bytes long; 0 means MaxV2. The error is an [*Error]
// if the bytes are no header, which is told with the first byte that shows it,
// io.ErrUnexpectedEOF if they end before the header does, io.EOF if there is none, else
// r's.
func Read(r io.Reader, limit int) (Header, error) {
	if limit == 0 {
		limit = MaxV2
	}
	var space [MaxV2]byte
	have := space[:0]
	var err error
	for len(have) < minimum {
		if have, err = more(r, have, minimum-len(have)); err != nil {
			return Header{}, err
		}
		if err = begins(have); err != nil {
			return Header{}, err
		}
	}
	if have[0] == signature[0] {
		return readV2(r, have, limit)
	}
	return readV1(r, have)
}

// more appends at least one byte to have from r, and at most n.
func more(r io.Reader, have []byte, n int) ([]byte, error) {
	for {
		got, err := r.Read(have[len(have) : len(have)+n])
		switch {
		case got > 0:
			return have[:len(have)+got], nil
		case errors.Is(err, io.EOF) && len(have) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
	}
}

// fill appends to have until it has n bytes.
func fill(r io.Reader, have []byte, n int) ([]byte, error) {
	var err error
	for err == nil && len(have) < n {
		have, err = more(r, have, n-len(have))
	}
	return have, err
}

// begins refuses what cannot become a header.
func begins(have []byte) error {
	for _, start := range []string{signature, "PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"} {
		n := min(len(start), len(have))
		if string(have[:n]) == start[:n] {
			return nil
		}
	}
	return malformed("the connection does not begin with a header")
}

// readV1 reads the rest of a line of which the first bytes are here. It asks for no more
// bytes than must come.
func readV1(r io.Reader, have []byte) (Header, error) {
	for {
		missing, err := missingV1(have)
		if err != nil {
			return Header{}, err
		}
		if missing == 0 {
			return parseV1(have)
		}
		if len(have)+missing > maxV1 {
			return Header{}, malformed("the line is longer than 107 bytes")
		}
		if have, err = more(r, have, missing); err != nil {
			return Header{}, err
		}
	}
}

// missingV1 returns how many bytes a line lacks at least; 0 if it is whole.
func missingV1(line []byte) (int, error) {
	if at := bytes.IndexByte(line, '\n'); at >= 0 {
		if at != len(line)-1 || line[at-1] != '\r' {
			return 0, malformed("a line feed without a carriage return")
		}
		return 0, nil
	}
	if at := bytes.IndexByte(line, '\r'); at >= 0 {
		if at != len(line)-1 {
			return 0, malformed("a carriage return without a line feed")
		}
		return 1, nil
	}
	const end = 2
	if line[len("PROXY ")] == 'U' {
		return end, nil
	}
	// PROXY TCP4 source destination port port: a space and a digit at least for each that
	// has not begun.
	missing := end + 2*max(0, 5-bytes.Count(line, []byte{' '}))
	if line[len(line)-1] == ' ' {
		missing++
	}
	return missing, nil
}

// parseV1 reads a whole line (§2.1).
func parseV1(line []byte) (Header, error) {
	h := Header{Version: V1}
	rest := line[len("PROXY ") : len(line)-len("\r\n")]
	if unknown, ok := bytes.CutPrefix(rest, []byte("UNKNOWN")); ok {
		if len(unknown) > 0 && unknown[0] != ' ' {
			return Header{}, malformed("the protocol is none of TCP4, TCP6 and UNKNOWN")
		}
		return h, nil // what follows is to be ignored
	}
	fields := [5][]byte{}
	for i := range fields {
		field, more, found := bytes.Cut(rest, []byte{' '})
		if found == (i == len(fields)-1) {
			return Header{}, malformed("the line has not two addresses and two ports, each behind one space")
		}
		fields[i], rest = field, more
	}
	source, err := endV1(fields[0], fields[1], fields[3])
	if err != nil {
		return Header{}, err
	}
	destination, err := endV1(fields[0], fields[2], fields[4])
	if err != nil {
		return Header{}, err
	}
	h.Source, h.Destination = source, destination
	return h, nil
}

func endV1(protocol, address, port []byte) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(string(address))
	if err != nil || ip.Zone() != "" || ip.Is4() != (string(protocol) == "TCP4") {
		return netip.AddrPort{}, malformed("an address is none of " + string(protocol))
	}
	number, err := strconv.ParseUint(string(port), 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return netip.AddrPort{}, malformed("a port is not a number of 0 to 65535")
	}
	return netip.AddrPortFrom(ip, uint16(number)), nil
}

// readV2 reads the rest of a block of which the first bytes are here (§2.2).
func readV2(r io.Reader, have []byte, limit int) (Header, error) {
	have, err := fill(r, have, fixed)
	if err != nil {
		return Header{}, err
	}
	if command := have[12]; command != commandLocal && command != commandProxy {
		return Header{}, malformed("the version is not 2, or the command is neither LOCAL nor PROXY")
	}
	length := fixed + int(binary.BigEndian.Uint16(have[14:]))
	if length > limit {
		return Header{}, malformed("the header is " + strconv.Itoa(length) + " bytes long, more than " + strconv.Itoa(limit))
	}
	if length > cap(have) {
		have = append(make([]byte, 0, length), have...)
	}
	if have, err = fill(r, have, length); err != nil {
		return Header{}, err
	}
	return parseV2(have)
}

// parseV2 reads a whole block.
func parseV2(block []byte) (Header, error) {
	h := Header{Version: V2}
	if block[12] == commandLocal {
		return h, nil // the sender's own connection: the rest, the family too, is to be ignored
	}
	length, known := familyV2(block[13])
	if !known {
		return Header{}, malformed("the address family or the transport is none that there is")
	}
	body := block[fixed:]
	if len(body) < length {
		return Header{}, malformed("the header is too short for its addresses")
	}
	if err := checkTLVs(block, fixed+length); err != nil {
		return Header{}, err
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(body[at:]) }
	switch block[13] {
	case tcp4:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), port(8))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[4:])), port(10))
	case tcp6:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)), port(32))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[16:])), port(34))
	}
	return h, nil
}

// familyV2 returns how long the addresses of a family are. Those that are valid and none
// of TCP over IP are taken for UNSPEC, as §2.2 lets who does not implement them.
func familyV2(b byte) (length int, known bool) {
	switch b {
	case unspecified:
		return 0, true
	case tcp4, udp4:
		return addresses, true
	case tcp6, udp6:
		return address6, true
	case unixStream, unixDgram:
		return unixPaths, true
	}
	return 0, false
}

// typeCRC32C is the one TLV that says something about the header (§2.2.3).
const typeCRC32C = 0x03

// checkTLVs goes through what follows the addresses, and compares the checksum if there
// is one.
func checkTLVs(block []byte, at int) error {
	summed := false
	for at < len(block) {
		if len(block)-at < 3 {
			return malformed("a TLV is cut off")
		}
		kind, length := block[at], int(binary.BigEndian.Uint16(block[at+1:]))
		at += 3
		if length > len(block)-at {
			return malformed("a TLV is longer than the header")
		}
		if kind == typeCRC32C {
			if summed || length != 4 {
				return malformed("the checksum is there twice, or is not 4 bytes long")
			}
			summed = true
			if binary.BigEndian.Uint32(block[at:]) != checksum(block, at) {
				return malformed("the checksum is not that of the header")
			}
		}
		at += length
	}
	return nil
}

// checksum is CRC32C (§2.2.3) over the block, with zeros in place of the sum itself.
func checksum(block []byte, at int) uint32 {
	castagnoli := crc32.MakeTable(crc32.Castagnoli) // which is made once
	sum := crc32.Update(0, castagnoli, block[:at])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(sum, castagnoli, block[at+4:])
}
