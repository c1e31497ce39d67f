package http2

import (
	"math"
	"time"
)

// Role is which half of the protocol a connection plays.
type Role uint8

// The roles.
const (
	Server Role = iota // reads requests, writes responses
	Client             // writes requests, reads responses
)

// Preface is what a client's connection begins with (RFC 9113 §3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Config bounds what a peer can make a connection keep. Zero fields mean the default.
type Config struct {
	// HeadBytes is the largest head, counted as SETTINGS_MAX_HEADER_LIST_SIZE does
	// (RFC 9113 §6.5.2): names, values and 32 for each field. Default 60 kB. Past it: 431.
	HeadBytes int
	// Fields is the most fields of a head, and of trailers. Default 100. Past it: 431.
	Fields int
	// PortNames lets authorities name a port (orders:http), as in a mesh. Elsewhere they are malformed.
	PortNames bool
	// MaxStreams is how many requests a client may have under way at once. Default 256;
	// more are refused with REFUSED_STREAM. Of a connection that is a client itself, it is how many
	// it opens, if the server allows so many; 0: as many as that does.
	MaxStreams int
	// StreamWindow is how many bytes of a body that is read may come before they are passed
	// on, from 65,535 to 2^31-1. Default 256 kB. A body of which nothing was read yet has
	// 65,535; so have all once 2 MB more than that were promised to others.
	StreamWindow int
	// ConnWindow is how many bytes of all bodies of a connection may be under way, from 65,535 to
	// 2^31-1. Default 1 MB.
	ConnWindow int
	// PingEvery is how often the peer is asked whether it is still there, whatever else goes on,
	// and up to PingJitter percent later. 0, the default: once it was silent for 15 s with streams
	// under way.
	PingEvery  time.Duration
	PingJitter int
	// PingTimeout ends a connection on which nothing has come for so long after a PING. Default 15 s.
	PingTimeout time.Duration
	// HeadTimeout ends a connection on which a header block, or a frame of another type than
	// DATA, takes longer to come than so. Default 10 s.
	HeadTimeout time.Duration
	// StallTimeout ends a stream that was given back and whose peer takes nothing of what is
	// left to send, and a connection on which a frame of DATA takes longer to come. Default 60 s.
	StallTimeout time.Duration
	// Clock returns monotonic nanoseconds. Required.
	Clock func() int64
}

func (c Config) withDefaults(role Role) Config {
	if c.HeadBytes == 0 {
		c.HeadBytes = 60 << 10
	}
	if c.Fields == 0 {
		c.Fields = 100
	}
	switch {
	case c.MaxStreams != 0:
	case role == Server:
		c.MaxStreams = 256
	default:
		c.MaxStreams = math.MaxInt32
	}
	if c.ConnWindow == 0 {
		c.ConnWindow = connWindow
	}
	if c.PingTimeout == 0 {
		c.PingTimeout = pingTimeout
	}
	if c.StreamWindow == 0 {
		c.StreamWindow = 256 << 10
	}
	if c.HeadTimeout == 0 {
		c.HeadTimeout = 10 * time.Second
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = time.Minute
	}
	return c
}

const (
	// connWindow is the receive window of a connection where nothing is said. It is credited when bytes come, not
	// when they are passed on, so that streams that are not read do not starve others;
	// but once maxQueued bytes lie unread on all of them, only as fast as they are. It takes
	// more than 256 streams to come to that: the windows of streams are small, but for some
	// that are read, which have maxGrown more between them.
	connWindow = 1 << 20
	maxQueued  = 256*defaultWindow + maxGrown
	maxGrown   = 2 << 20
	// defaultWindow is what either window is without a word (RFC 9113 §6.9.2).
	defaultWindow = 65_535
	// maxFrame is the longest payload that this side takes and sends
	// (SETTINGS_MAX_FRAME_SIZE's least value).
	maxFrame = 16 << 10
	// maxOut is how much of bodies waits for a socket; then writers wait. With the heads of
	// its frames it fits into the largest buffer that is pooled.
	maxOut = 60 << 10
	// maxUnsettled is how many bytes are taken before what they bring about is sent, though more are here: by then
	// another buffer of as many may have been read.
	maxUnsettled = 32 << 10
	// maxInterim is how many interim responses may lie unread.
	maxInterim = 16
)

// Settings are numbered (RFC 9113 §6.5.2, RFC 8441 §3).
const (
	settingHeaderTableSize   = 0x1
	settingEnablePush        = 0x2
	settingMaxStreams        = 0x3
	settingInitialWindowSize = 0x4
	settingMaxFrameSize      = 0x5
	settingMaxHeaderListSize = 0x6
	settingConnectProtocol   = 0x8
)
