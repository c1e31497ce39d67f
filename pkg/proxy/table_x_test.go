package proxy_test

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// strictOrigin answers with 200 what a strict parser takes for a request, and keeps its
// first line. Anything else is an error of the test.
type strictOrigin struct {
	t    *testing.T
	addr string
	mu   sync.Mutex
	seen []string // guarded by mu
}

func newStrictOrigin(t *testing.T) *strictOrigin {
	t.Helper()
	o := &strictOrigin{t: t}
	o.addr = listen(t, o.serve)
	return o
}

func (o *strictOrigin) serve(nc net.Conn) {
	c := http1.NewConn(nc, http1.Server, nil)
	defer c.Release()
	for c.Await() == nil {
		var h wire.Head
		if err := c.ReadRequest(&h); err != nil {
			o.t.Errorf("the origin is sent what it refuses: %v", err)
			return
		}
		if err := c.Drain(func(int64) bool { return false }); err != nil {
			return // the client broke its body off, and so must the proxy
		}
		o.mu.Lock()
		o.seen = append(o.seen, fmt.Sprintf("%s %s of %s", h.Method, h.Path, h.Authority))
		o.mu.Unlock()
		answer := wire.Head{Status: 200, ContentLength: 0}
		if c.EndExchange() != nil || c.WriteHead(&answer) != nil || c.Flush() != nil {
			return
		}
	}
}

// taken returns what was seen since the last call.
func (o *strictOrigin) taken() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.seen
	o.seen = nil
	return seen
}

// listen gives each connection to serve, and closes it afterwards, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = nc.Close() }()
				serve(nc)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func TestTableOfRequestsThroughTheEngine(t *testing.T) {
	origin := newStrictOrigin(t)
	r := start(t, []string{origin.addr})
	http1test.Requests(t, http1test.Read(t, "http1/testdata/requests.txt"), r.dial, origin.taken)
}

func TestTableOfResponsesThroughTheEngine(t *testing.T) {
	http1test.Responses(t, http1test.Read(t, "http1/testdata/responses.txt"), func(t *testing.T, raw string) net.Conn {
		return start(t, []string{listen(t, func(nc net.Conn) {
			if err := http1test.AnswerAs(nc, raw); err != nil {
				t.Error(err)
			}
		})}).dial()
	})
}
