package freeport_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
)

func TestAPortThatIsFoundCanBeListenedOnAndIsNotFoundWhileItIs(t *testing.T) {
	taken := map[int]bool{}
	for range 20 {
		port := freeport.For(t)
		if taken[port] || port < 15_000 || port >= 32_000 {
			t.Errorf("port %d", port)
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue // somebody else was faster
		}
		defer func() { _ = l.Close() }()
		taken[port] = true
	}
	if len(taken) == 0 {
		t.Error("none could be listened on")
	}
}
