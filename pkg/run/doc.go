// Package run starts the parts of a process in order, stops them in the
// reverse order, and says whether the process is ready.
//
// A [Group] owns one goroutine per member and [Group.Run] returns only when all
// of them have, with two stated exceptions: the stop timeout has passed, or a
// second signal arrived. Both name the members that did not return.
//
// A [Ready] holds named conditions and answers "ready?" with what is still
// being waited for. It has no goroutine.
//
// The package is not a supervisor: a member that returns is not restarted, it
// ends the group.
package run
