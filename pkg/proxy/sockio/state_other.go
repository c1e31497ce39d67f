//go:build !(linux && (amd64 || arm64))

package sockio

// HasEnded is not known here.
func HasEnded(uintptr) bool { return false }

// IsGone is not known here.
func IsGone(uintptr) bool { return false }
