package xdsserver

// SetMost bounds the subscriptions over all streams otherwise than MaxAllSubscriptions.
func (c *Cache) SetMost(n int) { c.most = n }
