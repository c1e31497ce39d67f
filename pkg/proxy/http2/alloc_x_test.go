//go:build !race

package http2_test

import (
	"errors"
	"io"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// inline answers in the reader, as the engine does where nothing has to be waited for.
type inline struct {
	request, response wire.Head
	body              []byte
}

func (h *inline) Request(s *http2.Stream, _ *wire.Error, b *http2.Batch) {
	s.User = h
	_ = s.ReadHead(&h.request)
	s.Hold(b)
	h.response.Reset()
	h.response.Status = 200
	h.response.Add(wire.ContentType, "content-type", h.request.Path)
	_ = s.WriteHead(&h.response)
	_ = s.WriteBody(h.body)
	_ = s.EndBody(nil)
	_ = s.Flush()
	s.Release()
}
func (h *inline) Cancelled(any, uint32) {}
func (h *inline) Changed()              {}

func TestExchangesDoNotAllocate(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 40_000} {
		t.Run(name, func(t *testing.T) {
			client, _ := halves(t, &inline{body: make([]byte, size)})
			var q, a wire.Head
			method, path, authority := []byte("GET"), []byte("/"), []byte("a")
			exchange := func() {
				s, err := client.Open()
				if err != nil {
					t.Fatal(err)
				}
				q.Reset()
				q.Method, q.Path, q.Authority = method, path, authority
				q.Add(wire.UserAgent, "user-agent", authority)
				s.SetDeadline(1 << 60)
				if s.WriteHead(&q) != nil || s.EndBody(nil) != nil || s.Flush() != nil {
					t.Fatal("it cannot be sent")
				}
				if err := s.ReadHead(&a); err != nil {
					t.Fatal(err)
				}
				n := 0
				for {
					p, err := s.Next()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					n += len(p)
				}
				if n != size {
					t.Fatalf("%d bytes", n)
				}
				s.Release()
			}
			for range 200 {
				exchange()
			}
			// The collector may run meanwhile, and empty the pools: whole numbers only.
			if n := testing.AllocsPerRun(1000, exchange); n >= 1 {
				t.Errorf("%v allocations for an exchange", n)
			}
		})
	}
}
