// Package freeport finds ports for processes that tests start.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Find returns a port that nothing listens on at 127.0.0.1. It is below those that the kernel gives out by
// itself, so that nobody gets it meanwhile, and who was there finds it free again when it comes back.
func Find() (int, error) {
	for range 100 {
		port := 15_000 + rand.IntN(17_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

// For is Find for a test, which ends without one.
func For(t testing.TB) int {
	t.Helper()
	port, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	return port
}
