package hpack

import "errors"

// What a block is refused for. All of it is a decoding error of RFC 7541, and the
// connection's end.
var (
	// §6.1: "The index value of 0 is not used. It MUST be treated as a decoding error".
	errIndexZero = errors.New("a field of the header block has index 0, which does not exist")
	// §2.3.3: "Indices strictly greater than the sum of the lengths of both tables MUST
	// be treated as a decoding error."
	errIndex = errors.New("a field of the header block has an index beyond both tables")
	// §5.1: "Integer encodings that exceed implementation limits — in value or octet
	// length — MUST be treated as decoding errors."
	errInteger = errors.New("an integer in the header block does not fit into 32 bits, or takes more than 6 octets")
	errCut     = errors.New("the header block ends within a field")
	// §4.2: "This dynamic table size update MUST occur at the beginning of the first
	// header block following the change to the dynamic table size."
	errLateUpdate    = errors.New("the header block changes the size of the dynamic table behind its first field")
	errMissingUpdate = errors.New("the header block does not begin with a reduction of the dynamic table, which the settings demand")
	// §6.3: "The new maximum size MUST be lower than or equal to the limit determined by
	// the protocol using HPACK. A value that exceeds this limit MUST be treated as a
	// decoding error."
	errLargeUpdate = errors.New("the header block makes the dynamic table larger than the settings allow")
	// §5.2: "A Huffman-encoded string literal containing the EOS symbol MUST be treated
	// as a decoding error."
	errEOS = errors.New("a Huffman-coded string of the header block contains the symbol for its end")
	// §5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error.
	// A padding not corresponding to the most significant bits of the code for the EOS
	// symbol MUST be treated as a decoding error."
	errPadding = errors.New("a Huffman-coded string of the header block ends in more than 7 bits, or other bits, than padding has")
)
