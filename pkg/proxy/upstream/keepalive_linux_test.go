package upstream_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestSystemIsToldHowToAskSilentHosts(t *testing.T) {
	for name, c := range map[string]struct {
		said                  mesh.TCPKeepalive
		idle, interval, count int
	}{
		"all":     {mesh.TCPKeepalive{Time: 10 * time.Second, Interval: 5 * time.Second, Probes: 3}, 10, 5, 3},
		"some":    {mesh.TCPKeepalive{Interval: 7 * time.Second}, 30, 7, 9},
		"nothing": {mesh.TCPKeepalive{}, 30, 15, 9},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t)
			h := start(t, mesh.Cluster{TCPKeepalive: c.said}, s.endpoint("i")).host("i")
			nc, err := h.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close(); h.Disconnected() }()
			defer func() { _ = (<-s.accepted).Close() }()
			raw, err := nc.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				get := func(level, option int) int {
					n, err := syscall.GetsockoptInt(int(fd), level, option)
					if err != nil {
						t.Error(err)
					}
					return n
				}
				if on := get(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); on != 1 {
					t.Errorf("SO_KEEPALIVE is %d", on)
				}
				idle, interval, count := get(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE), get(syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL), get(syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT)
				if idle != c.idle || interval != c.interval || count != c.count {
					t.Errorf("asks after %d s, then every %d s, %d times; want %d, %d, %d", idle, interval, count, c.idle, c.interval, c.count)
				}
			}); err != nil {
				t.Error(err)
			}
		})
	}
}
