// Package rpc is what gRPC says in the fields of HTTP: what a call is, how it ended and
// by when it has to. It follows PROTOCOL-HTTP2.md, PROTOCOL-WEB.md, statuscodes.md and
// http-grpc-status-mapping.md of github.com/grpc/grpc/doc.
//
// All of it is functions of values, safe for concurrent use; what runs per call does
// not allocate.
package rpc
