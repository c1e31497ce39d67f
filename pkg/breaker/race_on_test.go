//go:build race

package breaker

// underRace tells tests of sequential code not to search as far.
const underRace = true
