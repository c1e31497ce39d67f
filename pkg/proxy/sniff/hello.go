package sniff

import (
	"encoding/binary"
	"errors"
	"iter"
)

// MaxHello bounds a ClientHello with the records that carry it, in bytes. What browsers
// send, post-quantum key shares included, is below 2 kB.
const MaxHello = 16 << 10

// ErrShort says that the ClientHello is not all here yet.
var ErrShort = errors.New("the ClientHello is not complete")

// ErrNotTLS says that the bytes do not begin as TLS does.
var ErrNotTLS = errors.New("the connection does not begin with a TLS handshake")

// Error is what begins as TLS and is no ClientHello that is right.
type Error struct{ Text string }

func (e *Error) Error() string { return "TLS ClientHello: " + e.Text }

func malformed(text string) error { return &Error{text} }

// Hello is what a ClientHello asks for. Its bytes are those that were read, or copies.
type Hello struct {
	// ServerName is the name of the server in letters, digits, hyphens, underscores and
	// dots, as the client spelt it, at most 255 bytes. Empty if the client names none.
	ServerName []byte
	protocols  []byte // the list of RFC 7301, checked
}

// Protocols yields the protocols that the client speaks above TLS, the preferred first.
func (h *Hello) Protocols() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for list := reader(h.protocols); len(list) > 0; {
			if name, _ := list.vector8(); !yield(name) {
				return
			}
		}
	}
}

// Numbers of TLS (RFC 8446), lengths in bytes.
const (
	recordHandshake = 22      // §5.1: ContentType handshake
	recordHeader    = 5       // §5.1: type, version, length
	maxRecord       = 1 << 14 // §5.1: "The length MUST NOT exceed 2^14 bytes."
	typeClientHello = 1       // §4: HandshakeType client_hello
	handshakeHeader = 4       // §4: type, length
	randomBytes     = 32      // §4.1.2
	maxSessionID    = 32      // §4.1.2: legacy_session_id<0..32>
	extServerName   = 0       // RFC 6066 §3
	extALPN         = 16      // RFC 7301 §3.1
	nameTypeHost    = 0       // RFC 6066 §3: NameType host_name
	maxName         = 255     // RFC 1035 §2.3.4
)

// Parse reads the ClientHello that data begins with, whatever comes behind it. It fails
// with [ErrShort] as long as more bytes may complete it, with [ErrNotTLS] if the first
// bytes are none of a handshake, else with an [*Error]. It allocates only for a hello in
// several records.
func Parse(data []byte) (Hello, error) {
	message, err := handshake(data)
	if err != nil {
		return Hello{}, err
	}
	return parseHello(message)
}

// handshake returns the body of the ClientHello, put together from as many records as it
// is spread over (RFC 8446 §5.1).
func handshake(data []byte) ([]byte, error) {
	message, rest, err := record(data)
	for copied := false; err == nil; copied = true {
		if len(message) >= handshakeHeader {
			if message[0] != typeClientHello {
				return nil, malformed("the handshake begins with another message")
			}
			end := handshakeHeader + int(message[1])<<16 + int(binary.BigEndian.Uint16(message[2:]))
			if end > MaxHello {
				return nil, malformed("it is longer than 16 kB")
			}
			if end <= len(message) {
				return message[handshakeHeader:end], nil
			}
		}
		if !copied {
			message = message[:len(message):len(message)] // what is behind it is a record's head
		}
		var more []byte
		more, rest, err = record(rest)
		message = append(message, more...)
	}
	if errors.Is(err, ErrShort) && len(data) >= MaxHello {
		return nil, malformed("it is longer than 16 kB, with its records")
	}
	return nil, err
}

// record cuts the contents of a record off. Of its version RFC 8446 §5.1 has it that it "MUST be
// ignored for all purposes"; but its first byte has always been 3, by which TLS is told from
// what is none.
func record(data []byte) (contents, rest []byte, err error) {
	if len(data) > 0 && data[0] != recordHandshake || len(data) > 1 && data[1] != 3 {
		return nil, nil, ErrNotTLS
	}
	if len(data) < recordHeader {
		return nil, nil, ErrShort
	}
	length := int(binary.BigEndian.Uint16(data[3:]))
	if length == 0 || length > maxRecord {
		return nil, nil, malformed("a record is empty, or longer than 16 kB")
	}
	if len(data) < recordHeader+length {
		return nil, nil, ErrShort
	}
	return data[recordHeader : recordHeader+length], data[recordHeader+length:], nil
}

// parseHello reads the body of a ClientHello, which is whole.
func parseHello(body []byte) (Hello, error) {
	r := reader(body)
	_, ok := r.take(2 + randomBytes)
	session, ok1 := r.vector8()
	suites, ok2 := r.vector16()
	methods, ok3 := r.vector8()
	if !ok || !ok1 || !ok2 || !ok3 || len(session) > maxSessionID || len(suites) < 2 || len(suites)%2 != 0 || len(methods) == 0 {
		return Hello{}, malformed("what comes before its extensions is cut off, or of a wrong length")
	}
	if len(r) == 0 {
		return Hello{}, nil // TLS 1.2 without extensions (RFC 5246 §7.4.1.2)
	}
	extensions, ok := r.vector16()
	if !ok || len(r) > 0 {
		return Hello{}, malformed("its extensions are cut off, or something comes behind them")
	}
	return parseExtensions(extensions)
}

// parseExtensions reads the two that count. RFC 8446 §4.2: "There MUST NOT be more than one
// extension of the same type in a given extension block."
func parseExtensions(r reader) (Hello, error) {
	var h Hello
	var seen [1 << 16 / 64]uint64
	for len(r) > 0 {
		head, ok := r.take(2)
		contents, ok1 := r.vector16()
		if !ok || !ok1 {
			return Hello{}, malformed("an extension is cut off")
		}
		kind := binary.BigEndian.Uint16(head)
		if seen[kind/64]&(1<<(kind%64)) != 0 {
			return Hello{}, malformed("an extension is there twice")
		}
		seen[kind/64] |= 1 << (kind % 64)
		var err error
		switch kind {
		case extServerName:
			h.ServerName, err = serverName(contents)
		case extALPN:
			h.protocols, err = protocolList(contents)
		}
		if err != nil {
			return Hello{}, err
		}
	}
	return h, nil
}

// serverName reads the extension of RFC 6066 §3, which knows one type of name: "The
// ServerNameList MUST NOT contain more than one name of the same name_type."
func serverName(r reader) (name []byte, err error) {
	list, ok := r.vector16()
	if !ok || len(r) > 0 || len(list) == 0 {
		return nil, malformed("the list of server names is empty, cut off, or something comes behind it")
	}
	for len(list) > 0 {
		kind, ok := list.take(1)
		one, ok1 := list.vector16()
		switch {
		case !ok || !ok1 || len(one) == 0:
			return nil, malformed("a server name is empty or cut off")
		case kind[0] != nameTypeHost:
			continue
		case name != nil:
			return nil, malformed("there are two server names")
		case !isHostName(one):
			return nil, malformed("the server name is none of a host")
		}
		name = one
	}
	return name, nil
}

// isHostName holds a name to what names in the DNS consist of. RFC 6066 §3: it "is represented as a
// byte string using ASCII encoding without a trailing dot".
func isHostName(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return len(name) <= maxName && name[len(name)-1] != '.'
}

// protocolList reads the extension of RFC 7301 §3.1: "Empty strings MUST NOT be included and byte
// strings MUST NOT be truncated."
func protocolList(r reader) ([]byte, error) {
	list, ok := r.vector16()
	if !ok || len(r) > 0 || len(list) == 0 {
		return nil, malformed("the list of protocols is empty, cut off, or something comes behind it")
	}
	for rest := list; len(rest) > 0; {
		if one, ok := rest.vector8(); !ok || len(one) == 0 {
			return nil, malformed("the name of a protocol is empty or cut off")
		}
	}
	return list, nil
}

// reader is bytes that are taken off from the front.
type reader []byte

func (r *reader) take(n int) (reader, bool) {
	if len(*r) < n {
		return nil, false
	}
	taken := (*r)[:n]
	*r = (*r)[n:]
	return taken, true
}

// vector8 takes a vector whose length is in one byte (RFC 8446 §3.4).
func (r *reader) vector8() (reader, bool) {
	n, ok := r.take(1)
	if !ok {
		return nil, false
	}
	return r.take(int(n[0]))
}

// vector16 takes one whose length is in two.
func (r *reader) vector16() (reader, bool) {
	n, ok := r.take(2)
	if !ok {
		return nil, false
	}
	return r.take(int(binary.BigEndian.Uint16(n)))
}
