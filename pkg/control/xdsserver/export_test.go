package xdsserver

// SetMost bounds the subscriptions over all streams, and the bytes of their names, otherwise than MaxAllSubscriptions
// and MaxAllNameBytes.
func (c *Cache) SetMost(n, bytes int) { c.most, c.mostBytes = n, bytes }
