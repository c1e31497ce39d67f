// Package mgmt is the API of api/proto/mesh/v1, over gRPC and as REST: what people
// and programs ask of a control plane. It reads from memory and writes through the
// registry and the policies; it has no state of its own.
//
// The REST side is grpc-gateway's, in process, over the same services: a request
// takes the same road, whichever face it came by. The watch alone is written by
// hand, since a client that does not read must not hold a stream for ever.
//
// Errors are gRPC statuses. Those about a field carry a google.rpc.BadRequest with
// one violation for each fault.
package mgmt
