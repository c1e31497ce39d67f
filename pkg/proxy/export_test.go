package proxy

// WebSocketAccept returns what answers a key.
func WebSocketAccept(key string) string { return string(webSocketAccept([]byte(key))) }
