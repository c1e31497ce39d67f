//go:build race

package saga_test

// isRace: the race detector makes all of it many times slower.
const isRace = true
