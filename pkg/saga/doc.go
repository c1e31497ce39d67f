// Package saga is the model of sagas: what one is, what may be said of its steps, and what follows from what is known.
//
// A saga is a business action that spans services. Each of its steps is an action at one of them, and most have a
// compensation, by which the action is undone. A saga ends completed (all actions done), compensated (all that ran undone), or
// parked for a person to decide, with the reason: never half done and forgotten (H. Garcia-Molina, K. Salem: Sagas, 1987;
// C. Richardson: Microservices Patterns, 2nd ed., ch. 11, for pivot and retriable steps).
//
// # The pure part
//
// Definition is what a client submits; Check says all that is wrong with one. Saga is where one stands. Its methods are its
// state machine: they are told the time and what came of calls, change the state, and say which calls are due. They do no I/O, start
// nothing, and read no clock, so that the same steps can be gone through with a crash at each of them.
//
// # Three answers
//
// A call ends in one of three ways: done, refused, or unknown, as when no answer came, and the action may have
// happened or may yet. What never left this process is known not to have run. The rule that everything hangs on: a refusal, or a
// known-not-run, is final only if no earlier attempt is unknown. Otherwise the step is compensated too.
//
// # Log before act
//
// Advance marks a call as intended and returns it; it must be made only when the state that says so is
// durable. Who loads a state in which a call is intended, and did not make that call itself, says Recover first: its outcome is unknown.
package saga
