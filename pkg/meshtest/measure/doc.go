// Package measure is what the benchmarks of processes share: what processes have used, the middle of a few values, the machine, and the
// tables of a document.
package measure
