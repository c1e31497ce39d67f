package xdsserver

// SetMost bounds the subscriptions over all streams, and the bytes of their names, otherwise than MaxAllSubscriptions
// and MaxAllNameBytes.
func (c *Cache) SetMost(n, bytes int) { c.most, c.mostBytes = n, bytes }

// Arriving is how many requests are remembered for the watch that is made of them.
func (c *Cache) Arriving() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.arriving)
}
