package client

// Types is of how many types something is kept.
func (c *Client) Types() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.types)
}
