//go:build !race

package breaker

const underRace = false
