package tracing

import (
	"encoding/binary"
	"math/rand/v2"
)

// ratioSampler is OpenTelemetry's TraceIDRatioBased: a trace is sampled when
// the 63 upper bits of its id's last 8 bytes are below ratio · 2⁶³.
type ratioSampler struct{ bound uint64 }

func newRatioSampler(ratio float64) ratioSampler {
	switch {
	case ratio >= 1:
		return ratioSampler{1 << 63}
	case ratio > 0:
		return ratioSampler{uint64(ratio * (1 << 63))}
	default:
		return ratioSampler{0}
	}
}

func (s ratioSampler) decide(traceID *[16]byte) Sampling {
	if binary.BigEndian.Uint64(traceID[8:])>>1 < s.bound {
		return SamplingYes
	}
	return SamplingNo
}

// Child returns the place of a new span below parent, or of a new trace's first
// span if parent is no trace, with the sampling decided. It keeps parent's
// styles and state, does not allocate and is safe for concurrent use.
//
// A sampled request needs two: its server span's and, below, its client span's
// for each attempt. For an unsampled one the first goes into the headers.
//
// Ids come from math/rand/v2's generator, which is ChaCha8 per thread, seeded
// by the operating system.
func (t *Tracer) Child(parent *Context) Context {
	c := *parent
	c.ParentID = parent.SpanID
	c.Remote = false
	if !parent.Valid() {
		c.ParentID = [8]byte{}
		c.State = nil
		c.Random = false
		c.TraceID = newTraceID()
	}
	c.SpanID = newSpanID()
	if c.Sampling == SamplingDeferred {
		c.Sampling = t.ratio.decide(&c.TraceID)
	}
	return c
}

// ChildOfRemote is [Tracer.Child] for what [Extract] returned.
func (t *Tracer) ChildOfRemote(parent *Context) Context {
	c := t.Child(parent)
	c.Remote = parent.Valid()
	return c
}

func newTraceID() (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], rand.Uint64())
	binary.BigEndian.PutUint64(id[8:], notZero())
	return id
}

func newSpanID() (id [8]byte) {
	binary.BigEndian.PutUint64(id[:], notZero())
	return id
}

func notZero() uint64 {
	for {
		if v := rand.Uint64(); v != 0 {
			return v
		}
	}
}
