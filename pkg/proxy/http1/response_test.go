package http1

import (
	"errors"
	"io"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

func TestResponseUntilCloseIsTheLastOnItsConnection(t *testing.T) {
	c := answers("HTTP/1.1 200 OK\r\n\r\nhello")
	var h wire.Head
	if err := c.ReadResponse(&h, false); err != nil {
		t.Fatal(err)
	}
	if body, err := readAll(c); body != "hello" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := c.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if c.EndExchange() == nil || c.Alive() {
		t.Error("the connection could be used again")
	}
}
