// Package rpc is the API of sagas over gRPC, saga.v1.Sagas, and by it what makes all replicas answer for all sagas: who is asked for a saga of which another
// owns the shard passes that on, once.
//
// Server serves it. Replicas is the API in Go, which passes on; REST is served by it, too. What is passed on has a mark, by which the replica that it reaches
// answers for what it owns itself alone, so that two that take each other for the owner do not send a call to and fro.
//
// What is durable is read from the store by whoever is asked. Only what changes a saga, waits for it, or lists them is the owner's.
package rpc
