//go:build race

package proxy_test

// heap is how many times the memory is taken that it takes otherwise.
const heap = 2
