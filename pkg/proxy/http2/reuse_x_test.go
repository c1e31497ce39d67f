package http2_test

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// A request is given up while the head of its response, or its trailers, are being decoded,
// and the next request has its place: what came is not the next one's.
func TestWhatComesForAStreamThatWasGivenUpIsNotTheNextOnes(t *testing.T) {
	near, far := sockets(t)
	var serving sync.WaitGroup
	serving.Go(func() { // answers with the number of the stream, in heads that take a while to decode
		var out, block bytes.Buffer
		f := h2.NewFramer(&out, far)
		fields := hpack.NewEncoder(&block)
		fields.SetMaxDynamicTableSize(0)
		_, _ = io.ReadFull(far, make([]byte, len(h2.ClientPreface)))
		_ = f.WriteSettings(h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: 1000})
		_ = f.WriteSettingsAck()
		for {
			if _, err := far.Write(out.Bytes()); err != nil {
				return
			}
			out.Reset()
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			id := frame.Header().StreamID
			if frame.Header().Type != h2.FrameHeaders {
				continue
			}
			for _, first := range []string{":status", "last"} {
				block.Reset()
				_ = fields.WriteField(hpack.HeaderField{Name: first, Value: "200"})
				for i := range 60 {
					_ = fields.WriteField(hpack.HeaderField{Name: "x-" + strconv.Itoa(i), Value: strings.Repeat("value", 20)})
				}
				_ = fields.WriteField(hpack.HeaderField{Name: "stream", Value: strconv.Itoa(int(id))})
				_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: first == "last"})
			}
		}
	})
	c := run(t, near, http2.Client, quiet{}, http2.Config{Fields: 100, HeadBytes: 64 << 10})
	t.Cleanup(func() { _ = far.Close(); serving.Wait() })
	ask := func() *http2.Stream {
		s := open(t, c)
		var q wire.Head
		q.Reset()
		q.Method, q.Path, q.Authority = []byte("GET"), []byte("/"), []byte("a")
		if err := s.WriteHead(&q); err != nil {
			t.Fatal(err)
		}
		if err := s.EndBody(nil); err != nil {
			t.Fatal(err)
		}
		_ = s.Flush()
		return s
	}
	for i := range 600 {
		given := ask()
		for began := time.Now(); time.Since(began) < time.Duration(i%300)*time.Microsecond; { // sometimes in the middle
		}
		given.Release()
		s := ask()
		s.SetDeadline(int64(time.Hour))
		own := strconv.Itoa(int(s.ID()))
		var a wire.Head
		if err := s.ReadHead(&a); err != nil {
			t.Fatal(err)
		}
		if got := fieldOf(a.Fields, "stream"); got != own {
			t.Fatalf("after %d: stream %s got the head of stream %s", i, own, got)
		}
		for {
			if _, err := s.Next(); err == io.EOF { //nolint:errorlint // it is as it is
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if got := fieldOf(s.Trailers(), "stream"); got != own {
			t.Fatalf("after %d: stream %s got the trailers of stream %q", i, own, got)
		}
		s.Release()
	}
}

func fieldOf(fields []wire.Field, name string) string {
	for _, f := range fields {
		if string(f.Name) == name {
			return string(f.Value)
		}
	}
	return ""
}
