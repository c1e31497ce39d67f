package discovery

import (
	"sync"
	"time"
)

const (
	// beatInterval is how often a running process notes that it runs.
	beatInterval = time.Second
	// maxSilence is how long it may be late with that before it counts as frozen: more
	// than a busy machine makes of beatInterval, less than the 15 s after which clients
	// close a connection on which they hear nothing.
	maxSilence = 3 * time.Second
	// thawTime is for how long after a freeze the streams that end are taken to end
	// because of it: their clients gave them up meanwhile, and that is read now.
	thawTime = 5 * time.Second
)

// pulse tells when this process was stopped (by a signal, a debugger, its machine) and
// went on. It is safe for concurrent use. The zero pulse has not begun, and tells
// nothing.
type pulse struct {
	mu     sync.Mutex
	last   time.Time // guarded by mu
	thawed time.Time // guarded by mu; zero: it never froze
}

// beat says that the process runs.
func (p *pulse) beat(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stoodStill(now) {
		p.thawed = now
	}
	p.last = now
}

// wentOn returns when the process went on after its last freeze, zero if it never
// froze. It knows of one also before the next beat does.
func (p *pulse) wentOn(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stoodStill(now) {
		return now
	}
	return p.thawed
}

func (p *pulse) stoodStill(now time.Time) bool {
	return !p.last.IsZero() && now.Sub(p.last) > maxSilence
}
