// Package otlptest is a small OTLP receiver, over gRPC and over HTTP, that keeps
// the last spans in memory, so that tests and the demo can look at what a real
// exporter sent over a real socket. It is not a collector: it stores nothing,
// forwards nothing and speaks protobuf only, not OTLP's JSON.
//
// A [Receiver] owns its two servers' goroutines; [Receiver.Close] waits for them.
package otlptest
