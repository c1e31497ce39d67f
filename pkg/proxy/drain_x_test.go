package proxy_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Otherwise a drain would wait to its end for answers that nobody is there to take.
func TestADrainDoesNotWaitForClientsThatHaveGone(t *testing.T) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			silent := listener(t, func(nc net.Conn) {
				if _, err := nc.Read(make([]byte, 1)); err == nil {
					asked <- struct{}{}
					_, _ = io.Copy(io.Discard, nc)
				}
			})
			r := start(t, []string{silent}, timeout(0), func(c *mesh.Cluster, _ *mesh.Route) { c.Protocol = mesh.ProtocolHTTP })
			client := v.client(t)
			ctx, leave := context.WithCancel(t.Context())
			q := newRequest(t, "GET", "http://"+r.addr+"/", nil).WithContext(ctx)
			over := make(chan struct{})
			go func() {
				defer close(over)
				if a, err := client.Do(q); err == nil {
					_ = a.Body.Close()
				}
			}()
			<-asked
			r.stop()
			drained := make(chan int, 1)
			go func() { drained <- r.server.Drain(context.Background()) }()
			leave()
			<-over
			client.CloseIdleConnections()
			select {
			case <-drained:
			case <-time.After(20 * time.Second):
				t.Fatal("it waits")
			}
		})
	}
}
