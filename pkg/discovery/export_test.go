package discovery

import "time"

// Freeze tells the registry that its process went on just now, after it had been
// stopped for d: in a bubble, nothing is ever late.
func (r *Registry) Freeze(d time.Duration) {
	r.pulse.mu.Lock()
	r.pulse.last = r.pulse.last.Add(-d)
	r.pulse.mu.Unlock()
	r.pulse.beat(time.Now())
}
