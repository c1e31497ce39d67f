package hpack

import (
	"encoding/binary"
	"slices"
)

// huffmanShort is the code of RFC 7541 Appendix B as far as it takes 8 bits or less: for
// each 8 bits that a string goes on with, the length of the code that they begin with in
// the high byte and its symbol in the low one; 0 where the code is longer.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var huffmanShort = [256]uint16{
	0x530, 0x530, 0x530, 0x530, 0x530, 0x530, 0x530, 0x530,
	0x531, 0x531, 0x531, 0x531, 0x531, 0x531, 0x531, 0x531,
	0x532, 0x532, 0x532, 0x532, 0x532, 0x532, 0x532, 0x532,
	0x561, 0x561, 0x561, 0x561, 0x561, 0x561, 0x561, 0x561,
	0x563, 0x563, 0x563, 0x563, 0x563, 0x563, 0x563, 0x563,
	0x565, 0x565, 0x565, 0x565, 0x565, 0x565, 0x565, 0x565,
	0x569, 0x569, 0x569, 0x569, 0x569, 0x569, 0x569, 0x569,
	0x56f, 0x56f, 0x56f, 0x56f, 0x56f, 0x56f, 0x56f, 0x56f,
	0x573, 0x573, 0x573, 0x573, 0x573, 0x573, 0x573, 0x573,
	0x574, 0x574, 0x574, 0x574, 0x574, 0x574, 0x574, 0x574,
	0x620, 0x620, 0x620, 0x620, 0x625, 0x625, 0x625, 0x625,
	0x62d, 0x62d, 0x62d, 0x62d, 0x62e, 0x62e, 0x62e, 0x62e,
	0x62f, 0x62f, 0x62f, 0x62f, 0x633, 0x633, 0x633, 0x633,
	0x634, 0x634, 0x634, 0x634, 0x635, 0x635, 0x635, 0x635,
	0x636, 0x636, 0x636, 0x636, 0x637, 0x637, 0x637, 0x637,
	0x638, 0x638, 0x638, 0x638, 0x639, 0x639, 0x639, 0x639,
	0x63d, 0x63d, 0x63d, 0x63d, 0x641, 0x641, 0x641, 0x641,
	0x65f, 0x65f, 0x65f, 0x65f, 0x662, 0x662, 0x662, 0x662,
	0x664, 0x664, 0x664, 0x664, 0x666, 0x666, 0x666, 0x666,
	0x667, 0x667, 0x667, 0x667, 0x668, 0x668, 0x668, 0x668,
	0x66c, 0x66c, 0x66c, 0x66c, 0x66d, 0x66d, 0x66d, 0x66d,
	0x66e, 0x66e, 0x66e, 0x66e, 0x670, 0x670, 0x670, 0x670,
	0x672, 0x672, 0x672, 0x672, 0x675, 0x675, 0x675, 0x675,
	0x73a, 0x73a, 0x742, 0x742, 0x743, 0x743, 0x744, 0x744,
	0x745, 0x745, 0x746, 0x746, 0x747, 0x747, 0x748, 0x748,
	0x749, 0x749, 0x74a, 0x74a, 0x74b, 0x74b, 0x74c, 0x74c,
	0x74d, 0x74d, 0x74e, 0x74e, 0x74f, 0x74f, 0x750, 0x750,
	0x751, 0x751, 0x752, 0x752, 0x753, 0x753, 0x754, 0x754,
	0x755, 0x755, 0x756, 0x756, 0x757, 0x757, 0x759, 0x759,
	0x76a, 0x76a, 0x76b, 0x76b, 0x771, 0x771, 0x776, 0x776,
	0x777, 0x777, 0x778, 0x778, 0x779, 0x779, 0x77a, 0x77a,
	0x826, 0x82a, 0x82c, 0x83b, 0x858, 0x85a, 0x000, 0x000,
}

// huffmanLong is the rest of the code, by length. The code is canonical: codes of one
// length are consecutive numbers in the order of their symbols, and lie above all
// shorter ones.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var huffmanLong = [...]struct {
	bits  uint8  // of each code
	index uint8  // of the first one's symbol in huffmanSymbols
	first uint32 // code, from the highest bit on
	last  uint32 // number that begins with one of the codes
}{
	{10, 0, 0xfe000000, 0xff3fffff},
	{11, 5, 0xff400000, 0xff9fffff},
	{12, 8, 0xffa00000, 0xffbfffff},
	{13, 10, 0xffc00000, 0xffefffff},
	{14, 16, 0xfff00000, 0xfff7ffff},
	{15, 18, 0xfff80000, 0xfffdffff},
	{19, 21, 0xfffe0000, 0xfffe5fff},
	{20, 24, 0xfffe6000, 0xfffedfff},
	{21, 32, 0xfffee000, 0xffff47ff},
	{22, 45, 0xffff4800, 0xffffafff},
	{23, 71, 0xffffb000, 0xffffe9ff},
	{24, 100, 0xffffea00, 0xfffff5ff},
	{25, 112, 0xfffff600, 0xfffff7ff},
	{26, 116, 0xfffff800, 0xfffffbbf},
	{27, 131, 0xfffffbc0, 0xfffffe1f},
	{28, 150, 0xfffffe20, 0xffffffef},
	{30, 179, 0xfffffff0, 0xffffffff},
}

// huffmanSymbols are the symbols with long codes in the order of the codes. Behind them
// comes EOS.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var huffmanSymbols = [182]byte{
	33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126,
	94, 125, 60, 96, 123, 92, 195, 208, 128, 130, 131, 162, 184, 194, 224, 226,
	153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129, 132, 133,
	134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187,
	189, 190, 196, 198, 228, 232, 233, 1, 135, 137, 138, 139, 140, 141, 143, 147,
	149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182, 183, 188,
	191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237,
	199, 207, 234, 235, 192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240,
	242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247,
	248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14,
	15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31,
	127, 220, 249, 10, 13, 22,
}

// The lengths of the shortest and of the longest codes, in bits.
const (
	minCode = 5
	maxCode = 30
)

// eos is the symbol that ends a string, and that none may contain.
const eos = 256

// appendHuffman appends what a Huffman-coded string says (RFC 7541 §5.2).
func appendHuffman(dst, src []byte) ([]byte, error) {
	n := len(dst)
	dst = slices.Grow(dst, len(src)*8/minCode)
	out := dst[:cap(dst)]
	var ahead uint64 // what comes next, from the highest bit on
	var have uint    // how many bits of it are counted; others are right or 0
	for {
		if len(src) >= 8 {
			ahead |= binary.BigEndian.Uint64(src) >> (have & 63)
			whole := (63 - have) / 8
			src = src[whole:]
			have += whole * 8
		} else {
			for len(src) > 0 && have < 56 {
				ahead |= uint64(src[0]) << ((56 - have) & 63)
				src = src[1:]
				have += 8
			}
		}
		for have >= maxCode {
			symbol, bits := code(ahead)
			if symbol == eos {
				return dst[:n], errEOS
			}
			out[n] = byte(symbol)
			n++
			ahead <<= bits & 63
			have -= bits
		}
		if len(src) == 0 {
			break
		}
	}
	for have > 0 {
		symbol, bits := code(ahead | ^uint64(0)>>(have&63))
		if bits > have {
			break
		}
		out[n] = byte(symbol)
		n++
		ahead <<= bits & 63
		have -= bits
	}
	if have > 7 || ahead != ^(^uint64(0)>>have) {
		return dst[:n], errPadding
	}
	return dst[:n], nil
}

// code returns the symbol of the code that ahead begins with, and the code's length.
func code(ahead uint64) (symbol, bits uint) {
	short := uint(huffmanShort[ahead>>56])
	if short == 0 {
		return longCode(uint32(ahead >> 32))
	}
	return short & 0xff, short >> 8
}

// longCode is code for those of more than 8 bits.
func longCode(ahead uint32) (symbol, bits uint) {
	i := 0
	for ahead > huffmanLong[i].last {
		i++
	}
	of := &huffmanLong[i]
	at := uint(of.index) + uint((ahead-of.first)>>(32-of.bits))
	if at == uint(len(huffmanSymbols)) {
		return eos, maxCode
	}
	return uint(huffmanSymbols[at]), uint(of.bits)
}
