//go:build !(linux && (amd64 || arm64))

package sockio

// HasEnded is not known here.
func HasEnded(uintptr) bool { return false }

// IsGone is not known here.
func IsGone(uintptr) bool { return false }

// IsBroken is not known here: a reset that a write was told of is taken for an end.
func IsBroken(uintptr) bool { return false }

// Unsent is not known here.
func Unsent(uintptr) int { return 0 }
