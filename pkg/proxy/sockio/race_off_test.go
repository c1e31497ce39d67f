//go:build !race

package sockio_test

const raceEnabled = false
