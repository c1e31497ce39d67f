package http2_test

import (
	"errors"
	"net"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http2"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// quiet is a client's handler.
type quiet struct{}

func (quiet) Request(*http2.Stream, *wire.Error, *http2.Batch) {}
func (quiet) Cancelled(any, uint32)                            {}
func (quiet) Changed()                                         {}

func TestStreamOpenedBeforeItsConnectionEndedWasNotTaken(t *testing.T) {
	ours, theirs := net.Pipe()
	c := http2.NewConn(ours, http2.Client, nil, quiet{}, http2.Config{Clock: clock()})
	served := make(chan error, 1)
	go func() { served <- c.Serve() }()
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	if err := <-served; err == nil {
		t.Error("it ended without an error")
	}
	var request, response wire.Head
	request.Reset()
	request.Method, request.Path, request.Authority = []byte("GET"), []byte("/"), []byte("a")
	if err := s.WriteHead(&request); !errors.Is(err, http2.ErrRefused) {
		t.Errorf("writing: %v", err)
	}
	if err := s.ReadHead(&response); !errors.Is(err, http2.ErrRefused) {
		t.Errorf("reading: %v", err)
	}
	s.Release()
	if _, err := c.Open(); err == nil {
		t.Error("another one is opened")
	}
}
