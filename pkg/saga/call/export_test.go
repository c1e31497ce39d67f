package call

// Services returns how many services something is kept of.
func (d *Direct) Services() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.services)
}
