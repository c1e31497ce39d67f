package proxy

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 wants it, to tell who understands WebSocket, and not for secrecy
	"encoding/base64"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// WebSocket's handshake on HTTP/1.1 has a key, and an answer to it that shows that the server
// speaks WebSocket; on HTTP/2 SETTINGS_ENABLE_CONNECT_PROTOCOL shows that, and RFC 8441 §5 has
// it: "Implementations using this extended CONNECT to bootstrap WebSockets do not do the
// processing of the Sec-WebSocket-Key and Sec-WebSocket-Accept header fields". Where one side has
// them and the other does not, they are made, and checked, here.

// keyLength is how long a key is before base64 (RFC 6455 §4.1).
const keyLength = 16

// isWebSocket reports whether a protocol is WebSocket; its name is compared without case
// (RFC 6455 §4.2.1).
func isWebSocket(protocol []byte) bool { return wire.EqualFold(protocol, "websocket") }

// newWebSocketKey returns "a randomly selected 16-byte value that has been base64-encoded"
// (RFC 6455 §4.1).
func newWebSocketKey() []byte {
	var key [keyLength]byte
	_, _ = rand.Read(key[:]) // it never fails
	return base64.StdEncoding.AppendEncode(nil, key[:])
}

// isWebSocketKey reports whether a key is one "that, when decoded, is 16 bytes in length"
// (RFC 6455 §4.2.1).
func isWebSocketKey(key []byte) bool {
	var decoded [keyLength + 2]byte
	if len(key) != base64.StdEncoding.EncodedLen(keyLength) {
		return false
	}
	n, err := base64.StdEncoding.Decode(decoded[:], key)
	return err == nil && n == keyLength
}

// webSocketAccept returns what answers a key (RFC 6455 §4.2.2).
func webSocketAccept(key []byte) []byte {
	const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	sum := sha1.Sum(append(append([]byte(nil), key...), guid...)) //nolint:gosec // as above
	return base64.StdEncoding.AppendEncode(nil, sum[:])
}

// count returns how many fields of a head have a known name.
func count(h *wire.Head, id wire.ID) (n int) {
	for i := range h.Fields {
		if h.Fields[i].ID == id {
			n++
		}
	}
	return n
}
