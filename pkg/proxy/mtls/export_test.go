package mtls

// HasGone reports what a handshake that has waited looks for.
func HasGone(c *Conn) bool { return c.socket.hasGone() }
