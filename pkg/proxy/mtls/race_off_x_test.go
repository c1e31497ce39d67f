//go:build !race

package mtls_test

const underRace = false
