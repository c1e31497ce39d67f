//go:build !race

package proxy_test

// heap is how many times the memory is taken that it takes without the race detector.
const heap = 1
