// Command sagabench measures sagas: how many Fairlead carries out, and what a step and a saga cost, beside dtm; how soon those that were open
// are called again after a SIGKILL; and what a flood of them does to the control plane.
//
// Whatever coordinates calls the same participants, one process that is this program too. The services that they play do nothing, so what is
// measured is the coordinator and its store.
package main
