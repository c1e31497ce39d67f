// Package grpcweb lets a client that speaks gRPC-Web be answered by a server that speaks
// gRPC (PROTOCOL-WEB.md of github.com/grpc/grpc/doc). Messages are framed alike in both.
// What differs is that gRPC-Web has the trailers in the body, in a frame of their own,
// and that its text form has the whole body in base64.
//
// A [Side] lies between an exchange and its client, and turns what passes: bodies stream
// through it, and it keeps no more than one piece of them.
package grpcweb
