// Package compare measures Fairlead's breaker beside sony/gobreaker and failsafe-go,
// and drives all three through the scenarios in which circuit breakers get stuck.
// It is a module of its own, so that nothing of Fairlead depends on the other two.
//
//	go test -run=Stuck -v .
//	go test -run='^$' -bench=. -benchmem -count=6 .
package compare
