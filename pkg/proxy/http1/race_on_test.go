//go:build race

package http1

const underRace = true // sync.Pool drops at random then
