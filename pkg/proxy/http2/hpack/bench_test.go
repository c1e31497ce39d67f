package hpack

import (
	"bytes"
	"testing"

	oracle "golang.org/x/net/http2/hpack"
)

// typical are what services send each other: the fields of a request of h2load's, and of a
// gRPC call's request, response and trailers.
func typical() map[string][]Field {
	return map[string][]Field{
		"request": fields(":method: GET", ":scheme: http", ":authority: orders.default:8080", ":path: /v1/orders/4711",
			"user-agent: h2load nghttp2/1.52.0"),
		"grpc-request": fields(":method: POST", ":scheme: http", ":path: /orders.v1.Orders/Get", ":authority: orders.default:8080",
			"content-type: application/grpc", "user-agent: grpc-go/1.85.0", "te: trailers", "grpc-timeout: 999871u",
			"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
		"grpc-response": fields(":status: 200", "content-type: application/grpc"),
		"grpc-trailers": fields("grpc-status: 0", "grpc-message: "),
		"response": fields(":status: 200", "content-type: application/json", "content-length: 100",
			"date: Tue, 24 Nov 2026 00:00:00 GMT", "server: orders"),
	}
}

// BenchmarkDecode is what a block costs once the table is warm; by x/net for comparison.
// The blocks are those that its encoder makes, Huffman and all.
func BenchmarkDecode(b *testing.B) {
	for name, list := range typical() {
		var buf bytes.Buffer
		encoder := oracle.NewEncoder(&buf)
		encode := func() []byte {
			buf.Reset()
			for i := range list {
				_ = encoder.WriteField(theirs(&list[i]))
			}
			return bytes.Clone(buf.Bytes())
		}
		first, warm := encode(), encode()
		b.Run(name+"/fairlead", func(b *testing.B) {
			d := NewDecoder(DefaultTable)
			var f Field
			run := func(block []byte) {
				d.Begin(block, noLimit)
				for {
					more, err := d.Next(&f)
					if err != nil {
						b.Fatal(err)
					}
					if !more {
						return
					}
				}
			}
			run(first)
			b.ReportAllocs()
			for b.Loop() {
				run(warm)
			}
		})
		b.Run(name+"/xnet", func(b *testing.B) {
			d := oracle.NewDecoder(DefaultTable, func(oracle.HeaderField) {})
			run := func(block []byte) {
				if _, err := d.Write(block); err != nil {
					b.Fatal(err)
				}
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
			}
			run(first)
			b.ReportAllocs()
			for b.Loop() {
				run(warm)
			}
		})
	}
}

// BenchmarkEncode is what a block costs once the table is warm; by x/net for comparison.
func BenchmarkEncode(b *testing.B) {
	for name, list := range typical() {
		b.Run(name+"/fairlead", func(b *testing.B) {
			e := NewEncoder()
			var block []byte
			for range 3 {
				block = appendFields(e, block[:0], list)
			}
			b.ReportAllocs()
			for b.Loop() {
				block = appendFields(e, block[:0], list)
			}
			b.ReportMetric(float64(len(block)), "bytes")
		})
		b.Run(name+"/xnet", func(b *testing.B) {
			var buf bytes.Buffer
			e := oracle.NewEncoder(&buf)
			all := make([]oracle.HeaderField, len(list))
			for i := range list {
				all[i] = theirs(&list[i])
			}
			run := func() {
				buf.Reset()
				for i := range all {
					_ = e.WriteField(all[i])
				}
			}
			for range 3 {
				run()
			}
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(buf.Len()), "bytes")
		})
	}
}

// theirs is a field as x/net has it.
func theirs(f *Field) oracle.HeaderField {
	return oracle.HeaderField{Name: string(f.Name), Value: string(f.Value), Sensitive: f.Sensitive}
}
