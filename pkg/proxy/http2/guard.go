package http2

import "time"

// budget bounds how often a peer may do what costs us more than it: a bucket that is
// filled with time and by useful frames.
type budget struct {
	left int64 // in thousandths
	at   int64 // when it was filled last, in nanoseconds of the clock
	most int64 // a full bucket, in thousandths
	rate int64 // per second
}

func newBudget(most, rate int64, now int64) budget {
	return budget{left: most * 1000, at: now, most: most * 1000, rate: rate}
}

// spend takes one out, and reports whether there was one.
func (b *budget) spend(now int64) bool {
	if b.left < 1000 {
		// rate in a second is rate thousandths in a millisecond
		b.left = min(b.most, b.left+(now-b.at)/1_000_000*b.rate)
		b.at = now
	}
	b.left -= 1000
	return b.left >= 0
}

// earn puts one back.
func (b *budget) earn() { b.left = min(b.most, b.left+1000) }

// What a peer may do. RFC 9113 §10.5: "An endpoint that doesn't monitor use of these features exposes
// itself to a risk of denial of service."
const (
	// resetBurst streams may end by a reset, of whichever side, before their response
	// has; then resetRate in a second, and one for each that ends well. Rapid reset
	// (CVE-2023-44487) and MadeYouReset (CVE-2025-8671) need thousands; a client whose
	// requests all time out at once, and those that it sends after them, comes to 512.
	resetBurst = 512
	resetRate  = 64
	// resetAge is how old a stream is whose end does not count: with no more than MaxStreams
	// at once, such come no faster than requests that are answered.
	resetAge = 100 * time.Millisecond
	// noiseBurst frames may say nothing (PING, SETTINGS, PRIORITY, empty DATA, unknown
	// ones); then noiseRate in a second, and one for each that says something.
	noiseBurst = 1000
	noiseRate  = 50
	// maxSettings may be in one frame: each may change the windows of all streams.
	maxSettings = 32
	// maxContinuations bounds the frames of a header block; its bytes are bounded too.
	maxContinuations = 16
	// maxAnswers is how many bytes of answers to PING and SETTINGS, resets and window
	// updates may wait for a peer that does not read.
	maxAnswers = 64 << 10
	// maxUnsent is how many bytes of all may wait for it. No more than maxOut of them are
	// of bodies; but heads are written whenever there are any.
	maxUnsent = 1 << 20
)
