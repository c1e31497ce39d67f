// Package play runs a mesh of real processes on this machine and makes things
// happen to it: an instance turns slow, one fails, one is killed, one joins, orders
// become sagas, the control plane is killed in the middle of one and comes back. The
// demo shows it, the smoke test asserts it: both run the same acts.
//
// A [Mesh] owns the processes and ends them; a [Load] owns the goroutines that send
// requests; a [Stage] has both, and keeps the report.
package play
