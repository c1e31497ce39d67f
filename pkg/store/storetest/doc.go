// Package storetest is the contract of package store as tests: Run for stores, RunMirror for a store.Mirror on top of one. Every
// implementation runs both. It also has what such tests need around them: a Recorder and an Interrupter.
//
// It starts no goroutine that outlives the test that it was started for.
package storetest
