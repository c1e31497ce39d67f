//go:build !race

package coordinator_test

// isRace: the race detector makes all of it many times slower.
const isRace = false
