package hpack

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	oracle "golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// message is what services send each other. In each of the variants, fields that differ
// from message to message do.
type message struct {
	name     string
	variants [][]Field
}

func messages() []message {
	grpc := []string{":method: POST", ":scheme: http", ":path: /orders.v1.Orders/Get", ":authority: orders.default:8080",
		"content-type: application/grpc", "user-agent: grpc-go/1.85.0", "te: trailers"}
	all := []message{{name: "request"}, {name: "response"}, {name: "grpc-request"}, {name: "grpc-response"}, {name: "grpc-trailers"}}
	for i := range 256 {
		for j, list := range [][]string{
			{":method: GET", ":scheme: http", ":authority: orders.default:8080", ":path: /v1/orders", "user-agent: h2load nghttp2/1.52.0"},
			{":status: 200", "content-type: application/json", fmt.Sprintf("content-length: %d", 100+i),
				"date: Tue, 24 Nov 2026 00:00:00 GMT", "server: orders"},
			append(grpc, fmt.Sprintf("grpc-timeout: %du", 999_000+i), fmt.Sprintf("traceparent: 00-%032x-%016x-01", 1000*i+7, 100*i+3)),
			{":status: 200", "content-type: application/grpc"},
			{"grpc-status: 0", "grpc-message: "},
		} {
			all[j].variants = append(all[j].variants, fields(list...))
		}
	}
	return all
}

// coded are the blocks of a message: the first, and the one behind it for each variant.
// What differs is a Huffman-coded literal, as nghttp2 writes it, and all else indexed.
func (m *message) coded() (first []byte, next [][]byte) {
	x := newXnet()
	for i, list := range m.variants {
		var steady []Field
		var literals []byte
		for _, f := range list {
			if i > 0 && !slices.ContainsFunc(m.variants[0], func(o Field) bool { return bytes.Equal(o.Value, f.Value) }) || f.ID == wire.Traceparent {
				literals = appendCoded(append(literals, 0), f.Name)
				literals = appendCoded(literals, f.Value)
				continue
			}
			steady = append(steady, f)
		}
		next = append(next, append(x.block(steady), literals...))
	}
	return next[0], next[1:]
}

func appendCoded(dst, text []byte) []byte {
	coded := oracle.AppendHuffmanString(nil, string(text))
	return append(appendInteger(dst, 0x80, 0x7f, len(coded)), coded...)
}

// BenchmarkDecode is what a block costs once the table is warm; by x/net for comparison.
// Median of 8 runs on one core of an EPYC, in ns (allocations):
//
//	                fairlead   x/net
//	request               39      73
//	response             119     233 (1)
//	grpc-request         377     713 (4)   of it 2 values of 64 bytes in Huffman's code
//	grpc-response         20      33
//	grpc-trailers         21      33
func BenchmarkDecode(b *testing.B) {
	for _, m := range messages() {
		first, next := m.coded()
		b.Run(m.name+"/fairlead", func(b *testing.B) {
			d := NewDecoder(DefaultTable)
			drain(b, d, first)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				drain(b, d, next[i%len(next)])
			}
		})
		b.Run(m.name+"/xnet", func(b *testing.B) {
			d := oracle.NewDecoder(DefaultTable, func(oracle.HeaderField) {})
			decode := func(block []byte) {
				if _, err := d.Write(block); err != nil {
					b.Fatal(err)
				}
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
			}
			decode(first)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				decode(next[i%len(next)])
			}
		})
	}
}

// drain decodes a block.
func drain(t testing.TB, d *Decoder, block []byte) {
	var f Field
	d.Begin(block, noLimit)
	for {
		more, err := d.Next(&f)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
}

// BenchmarkEncode is what a block costs once the table is warm; by x/net for comparison.
// Median of 8 runs on one core of an EPYC, in ns, and bytes of the block:
//
//	                fairlead   x/net
//	request         82    5   250    5
//	response        99   10   442   10
//	grpc-request   192   98   918   57
//	grpc-response   31    2    93    2
//	grpc-trailers   74    2   105    2
func BenchmarkEncode(b *testing.B) {
	for _, m := range messages() {
		b.Run(m.name+"/fairlead", func(b *testing.B) {
			e := NewEncoder()
			var block []byte
			n := 0
			for _, list := range m.variants {
				block = appendFields(e, block[:0], list)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				block = appendFields(e, block[:0], m.variants[i%len(m.variants)])
				n += len(block)
			}
			b.ReportMetric(float64(n)/float64(b.N), "bytes/op")
		})
		b.Run(m.name+"/xnet", func(b *testing.B) {
			x := newXnet()
			var variants [][]oracle.HeaderField
			for _, list := range m.variants {
				var all []oracle.HeaderField
				for i := range list {
					all = append(all, theirs(&list[i]))
				}
				variants = append(variants, all)
			}
			n := 0
			encode := func(list []oracle.HeaderField) {
				x.buf.Reset()
				for i := range list {
					_ = x.encoder.WriteField(list[i]) // into memory
				}
				n += x.buf.Len()
			}
			for _, list := range variants {
				encode(list)
			}
			n = 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				encode(variants[i%len(variants)])
			}
			b.ReportMetric(float64(n)/float64(b.N), "bytes/op")
		})
	}
}

// BenchmarkBomb is what the block costs that makes a decoder work most for its bytes: a
// literal of two octets takes the name of an entry that is as large as the table. It is
// 56 ns for each, a copy within the table; the requests that two octets can make are dearer.
func BenchmarkBomb(b *testing.B) {
	d := NewDecoder(DefaultTable)
	drain(b, d, append(append([]byte{0x40, 0x7f, 0xe1, 0x1e}, bytes.Repeat([]byte{'n'}, 4064)...), 0))
	block := bytes.Repeat([]byte{0x7e, 0}, 8<<10)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		drain(b, d, block)
	}
}

// BenchmarkHuffman is why values are not Huffman-coded: writing a traceparent takes 55 ns and
// reading it 160, to save 16 of 55 bytes; a copy takes 3 (medians as above).
func BenchmarkHuffman(b *testing.B) {
	value := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	coded := oracle.AppendHuffmanString(nil, value)
	var dst []byte
	b.Run("write/xnet", func(b *testing.B) {
		for b.Loop() {
			dst = oracle.AppendHuffmanString(dst[:0], value)
		}
	})
	b.Run("read/fairlead", func(b *testing.B) {
		for b.Loop() {
			dst, _ = appendHuffman(dst[:0], coded)
		}
	})
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			dst = append(dst[:0], value...)
		}
	})
}

// theirs is a field as x/net has it.
func theirs(f *Field) oracle.HeaderField {
	return oracle.HeaderField{Name: string(f.Name), Value: string(f.Value), Sensitive: f.Sensitive}
}
