//go:build !(linux && (amd64 || arm64))

package mtls

// hasEnded does not know: what came before the end has to be read first.
func hasEnded(uintptr) bool { return false }

// acknowledge leaves it to the system when to acknowledge.
func acknowledge(uintptr) {}
