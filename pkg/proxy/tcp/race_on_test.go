//go:build race

package tcp

const underRace = true // sync.Pool drops at random then
