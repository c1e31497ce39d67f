package proxy_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

// frame is one of RFC 6455 §5.2, masked as a client's is.
func frame(fin bool, rsv, opcode byte, payload string) []byte {
	first := rsv<<4 | opcode
	if fin {
		first |= 0x80
	}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// conversations are what clients may say, right or wrong, in the order of the cases of
// Autobahn's test suite. Whether it is right is between both ends.
func conversations() map[string][][]byte {
	const (
		more, text, binaryData, closing, ping, pong = 0, 1, 2, 8, 9, 10
	)
	x := func(n int) string { return strings.Repeat("*", n) }
	code := func(c uint16, reason string) string {
		return string(binary.BigEndian.AppendUint16(nil, c)) + reason
	}
	all := map[string][][]byte{}
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20} {
		all["1 text and binary"] = append(all["1 text and binary"], frame(true, 0, text, x(n)), frame(true, 0, binaryData, x(n)))
	}
	all["2 pings and pongs"] = [][]byte{frame(true, 0, ping, ""), frame(true, 0, ping, "\x00\xff\xfe\xfd"), frame(true, 0, ping, x(125)), frame(true, 0, ping, x(126)), frame(true, 0, pong, "unsolicited")}
	for rsv := byte(1); rsv < 8; rsv++ {
		all["3 reserved bits"] = append(all["3 reserved bits"], frame(true, rsv, text, "small"), frame(true, rsv, ping, ""), frame(true, rsv, closing, ""))
	}
	for opcode := byte(3); opcode < 16; opcode++ {
		if opcode < 8 || opcode > 10 {
			all["4 opcodes that are none"] = append(all["4 opcodes that are none"], frame(true, 0, opcode, ""), frame(true, 0, opcode, "reserved payload"))
		}
	}
	all["5 fragments"] = [][]byte{frame(false, 0, ping, "fragmented"), frame(true, 0, more, "ping"), frame(false, 0, text, "a"), frame(true, 0, ping, "between"), frame(false, 0, more, ""), frame(true, 0, more, "b"),
		frame(true, 0, more, "of nothing"), frame(false, 0, text, "first"), frame(true, 0, text, "second in between")}
	for _, s := range []string{"Hello-µ@ßöäüàá-UTF-8!!", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\xf4\x90\x80\x80", "\xc0\xaf", "\xed\xbf\xbf", "\xef\xbf\xbf", "\x00"} {
		all["6 UTF-8, right and wrong"] = append(all["6 UTF-8, right and wrong"], frame(true, 0, text, s))
		for i := range len(s) { // one octet in each fragment
			opcode := byte(more)
			if i == 0 {
				opcode = text
			}
			all["6 UTF-8, right and wrong"] = append(all["6 UTF-8, right and wrong"], frame(i == len(s)-1, 0, opcode, s[i:i+1]))
		}
	}
	for _, c := range []uint16{0, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1011, 1012, 1015, 1016, 1100, 2000, 2999, 3000, 4999, 5000, 65535} {
		all["7 closing"] = append(all["7 closing"], frame(true, 0, closing, code(c, "reason")))
	}
	all["7 closing"] = append(all["7 closing"], frame(true, 0, closing, ""), frame(true, 0, closing, "a"), frame(true, 0, closing, code(1000, x(123))), frame(true, 0, closing, code(1000, x(124))), frame(true, 0, closing, code(1000, "\xce\xed\xa0")), frame(true, 0, text, "behind it"))
	for n := 64; n <= 4<<20; n *= 4 {
		all["9 limits"] = append(all["9 limits"], frame(true, 0, binaryData, x(n)))
	}
	for range 2000 {
		all["9 many small ones"] = append(all["9 many small ones"], frame(true, 0, text, "a message of some bytes"))
	}
	all["12 compressed"] = [][]byte{frame(true, 4, text, "\xf2\x48\xcd\xc9\xc9\x07\x00"), frame(false, 4, text, "\xf2\x48\xcd"), frame(true, 0, more, "\xc9\xc9\x07\x00")}
	unmasked := frame(true, 0, text, "hello")
	unmasked[1] &^= 0x80
	long := append([]byte{0x82, 0xff}, bytes.Repeat([]byte{0xff}, 8)...) // more than there can be
	all["frames that are none"] = [][]byte{unmasked, {0x81}, {0x81, 0xfe, 0, 5}, long, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
	return all
}

func TestFramesOfEveryKindPassAsTheyAre(t *testing.T) {
	r := start(t, []string{upgrading(t, switched, echo)})
	for name, frames := range conversations() {
		for how, piece := range map[string]int{"a frame at a time": 0, "in pieces of 7 bytes": 7, "all at once": 1 << 30} {
			t.Run(name+", "+how, func(t *testing.T) {
				whole := bytes.Join(frames, nil)
				pieces := frames
				if piece > 0 {
					if piece == 7 && len(whole) > 100_000 {
						whole = whole[:100_000]
					}
					pieces = nil
					for rest := whole; len(rest) > 0; {
						n := min(piece, len(rest))
						pieces, rest = append(pieces, rest[:n]), rest[n:]
					}
				}
				nc, in, resp := upgrade(t, r, askWebSocket)
				if resp.StatusCode != 101 {
					t.Fatalf("status %d", resp.StatusCode)
				}
				go say(nc, pieces)
				if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, whole) {
					t.Errorf("%d bytes came back of %d, or others, %v", len(got), len(whole), err)
				}
			})
		}
	}
}

// say writes pieces and ends its way.
func say(nc *net.TCPConn, pieces [][]byte) {
	_ = nc.SetNoDelay(true)
	for _, p := range pieces {
		if _, err := nc.Write(p); err != nil {
			return // who reads sees that something is missing
		}
	}
	_ = nc.CloseWrite()
}
