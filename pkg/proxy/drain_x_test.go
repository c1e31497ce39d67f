package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
)

// A client cannot tell whether a request was acted upon whose connection is reset, and may not send a
// POST again by itself (RFC 9110 §9.2.2). All of these have come before the drain begins, but the
// connections' goroutines have not looked at most of them.
func TestARequestThatHasComeIsAnsweredThoughItsConnectionWasIdleAtTheDrain(t *testing.T) {
	i := newIdentities(t)
	for name, test := range map[string]struct {
		change func(*proxy.Config)
		dial   func(t *testing.T, addr string) net.Conn
		first  bool          // it is the first one
		pause  time.Duration // before it
	}{
		"the first one of its connection": {func(*proxy.Config) {}, dialRaw, true, 0},
		"a further one":                   {func(*proxy.Config) {}, dialRaw, false, 0},
		"one of a connection that rests":  {restless, dialRaw, false, looks},
		"one over TLS":                    {i.listen, func(t *testing.T, addr string) net.Conn { return i.dial(t, addr) }, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := startWith(t, test.change, []string{backend(t, func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })})
			conns, ins := make([]net.Conn, 200), make([]*bufio.Reader, 200)
			for n := range conns {
				conns[n] = test.dial(t, r.addr)
				ins[n] = bufio.NewReader(conns[n])
				if !test.first {
					getOn(t, conns[n], ins[n])
				}
			}
			for r.server.Connections() < len(conns) {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(test.pause)
			for _, c := range conns {
				if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"); err != nil {
					t.Fatal(err)
				}
			}
			if cut := r.server.Drain(t.Context()); cut != 0 {
				t.Errorf("%d were cut off", cut)
			}
			lost, last := 0, error(nil)
			for _, in := range ins {
				a, err := http.ReadResponse(in, nil)
				if err != nil {
					lost, last = lost+1, err
					continue
				}
				if b, err := io.ReadAll(a.Body); err != nil || a.StatusCode != 200 || string(b) != "abc" {
					t.Errorf("%s %q %v", a.Status, b, err)
				}
				if _, err := in.ReadByte(); err == nil {
					t.Error("the connection goes on")
				}
			}
			// On a machine with much to do, the kernel may still be carrying what was written: as many as were lost
			// when drains did not look are not.
			if lost > 2 {
				t.Errorf("%d of %d requests got no answer: %v", lost, len(ins), last)
			}
		})
	}
}

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
