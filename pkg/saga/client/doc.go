// Package client starts sagas, and looks after them, from services in Go: over the REST API of control planes, with nothing but net/http.
//
// What can be asked twice without harm, which is all but what a person does to a saga, is asked again for as long as the context
// allows: while a connection breaks, a control plane restarts, a shard has no owner, or the store is full. So who has an answer of [Client.Start] knows that the saga
// is durable, and who has none may start the same again, at any time and from anywhere.
package client
