//go:build race

package mtls_test

const underRace = true // sync.Pool drops at random then
