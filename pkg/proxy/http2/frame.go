package http2

import "encoding/binary"

// frameType is the type of a frame (RFC 9113 §6).
type frameType uint8

const (
	frameData         frameType = 0x0
	frameHeaders      frameType = 0x1
	framePriority     frameType = 0x2
	frameRSTStream    frameType = 0x3
	frameSettings     frameType = 0x4
	framePushPromise  frameType = 0x5
	framePing         frameType = 0x6
	frameGoAway       frameType = 0x7
	frameWindowUpdate frameType = 0x8
	frameContinuation frameType = 0x9
	// framePriorityUpdate is RFC 9218 §7.1's.
	framePriorityUpdate frameType = 0x10
)

// Flags of frames (RFC 9113 §6).
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// headerLen is the length of a frame's header (RFC 9113 §4.1).
const headerLen = 9

// frame is a frame whose payload lies in the read buffer.
type frame struct {
	kind    frameType
	flags   byte
	stream  uint32
	payload []byte
}

// parseHeader reads a frame's header, and returns the length of its payload.
func parseHeader(b []byte) (f frame, length int) {
	length = int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	f.kind, f.flags = frameType(b[3]), b[4]
	// RFC 9113 §4.1: the reserved bit "MUST be ignored when receiving".
	f.stream = be32(b[5:]) & maxStreamID
	return f, length
}

// maxStreamID is the highest number of a stream, and the largest window (RFC 9113 §5.1.1, §6.9.1).
const maxStreamID = 1<<31 - 1

// appendHeader appends a frame's header.
func appendHeader(b []byte, length int, kind frameType, flags byte, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// setLength sets the length of the frame whose header begins at b.
func setLength(b []byte, length int) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
}

// unpad takes the padding off a DATA or HEADERS payload (RFC 9113 §6.1).
func (f *frame) unpad() error {
	if f.flags&flagPadded == 0 {
		return nil
	}
	if len(f.payload) == 0 {
		return errFrameSize
	}
	pad := int(f.payload[0])
	f.payload = f.payload[1:]
	if pad > len(f.payload) {
		return errPadding
	}
	f.payload = f.payload[:len(f.payload)-pad]
	return nil
}

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
