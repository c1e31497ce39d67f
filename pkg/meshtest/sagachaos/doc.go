// Command sagachaos starts sagas over REST, kills and freezes the processes that take part in them, and asserts that each of them ends all
// done, all undone, or parked.
//
// There are two worlds. In one, a control plane with an etcd of its own is killed (SIGKILL) and started again and again; in the other, two control
// planes share an etcd, and are killed, and frozen (SIGSTOP) until their shards have other owners, when they wake with calls and writes in their hands;
// so is the etcd. That happens at random moments, and at chosen ones: as a participant has just received a call, or just committed it. Participants are
// processes of their own with a barrier on SQLite, and one in Python with the barrier that docs/saga.md shows; they die as well, in the middle of their
// transactions, too, and are frozen.
//
//	sagachaos -seconds 120 -bin bin -report bin/sagachaos.txt
//
// # Who decides
//
// The director, in this process, is told of each call by the participant that receives it, and answers what is done with it (fault.go): it works, refuses, fails
// before or behind its work, is late, is slow, ends the connection before, behind or in the middle of its answer, answers 202 or 425 and works then, or does not.
// Sagas and faults follow from the seed, which is printed: the same seed makes the same ones again. What is killed when follows from it as far as
// the machine lets it.
//
// # What is asserted
//
// Of every saga that was acknowledged, and of every other one that is there, once all is healed and every call is over (verdict.go):
//
//   - It exists, and has ended or is parked with a reason. An end is final, and one whose abortion was acknowledged is not completed.
//   - Completed: the net effect of each step is 1. Compensated: it is 0. Each was done once at the most, and undone once at the most and behind
//     it; nothing is undone once the pivot is done. The exception are steps that somebody asked to skip or to resolve.
//   - No step is done before those that it comes behind, nor undone before those that come behind it.
//   - Calls have the key of what they ask for; the numbers of attempts are never repeated, their bodies are the same, and fences never decrease: from
//     attempt to attempt, from a step to the one behind it, and from an action to its compensation.
//   - Results and templates hold what the participants had answered.
//   - What was never acknowledged and is absent has never been called.
//
// Effects are rows without a key, which participants write in the transaction of the barrier, with the time of a clock that all processes share.
package main
