package upstream

import "time"

const (
	// idleTime is how long a connection may lie idle before it is closed, where its cluster does
	// not say. It is
	// below the 60 s and more that servers commonly wait, so that it is this side
	// that closes.
	idleTime = 50 * time.Second
	// minIdleTime bounds what is learnt: a pool that keeps nothing costs more than
	// the one retry that a stale connection does.
	minIdleTime = time.Second
	// witnessTime is how far apart two closings must be to say something about the
	// server's patience. A server that restarts closes all connections at once.
	witnessTime = 10 * time.Second
	// relearnTime is for how long what was seen holds without new evidence.
	relearnTime = 10 * time.Minute
)

// patience is how long connections to a host are left idle, learnt from those that
// the host closed: a request that is written while the server closes is lost, so
// this side must close first. Connections are retired at four fifths of the age at
// which they were closed, once that was seen twice. The zero value has learnt
// nothing.
type patience struct {
	learnt, until          int64 // 0: nothing
	suspected, suspectedAt int64 // a first closing; 0: none
}

// learn notes that a connection that was idle for age nanoseconds had been closed. most is that of
// time.
func (p *patience) learn(now, age, most int64) {
	keep := max(age/5*4, int64(minIdleTime))
	if keep >= p.time(now, most) {
		return
	}
	since := now - p.suspectedAt
	switch {
	case p.suspected == 0 || since >= int64(relearnTime):
		p.suspected, p.suspectedAt = keep, now
	case since >= int64(witnessTime):
		p.learnt, p.until = max(p.suspected, keep), now+int64(relearnTime)
		p.suspected = 0
	}
}

// time returns how long a connection may lie idle, in nanoseconds: for most of them, unless less
// was learnt.
func (p *patience) time(now, most int64) int64 {
	if p.learnt == 0 || now >= p.until {
		return most
	}
	return min(p.learnt, most)
}
