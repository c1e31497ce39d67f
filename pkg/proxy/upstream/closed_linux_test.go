package upstream_test

import (
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Whoever finds an end may come long after it, as the sweep does and the next request.
func TestPatienceIsLearntFromTheEndOfAConnectionAndNotFromItsDiscovery(t *testing.T) {
	const found = time.Second // late, in real time: it is the kernel that knows
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	h := r.host("i")
	for range 2 {
		c, peer := r.dial(s, h)
		c.Release(true, r.now())
		r.later(10 * time.Second)
		hangUp(t, c, peer)
		time.Sleep(found)
		if h.Take(r.now()) != nil {
			t.Fatal("a closed connection was taken")
		}
		r.later(20 * time.Second)
	}
	c, peer := r.dial(s, h)
	defer func() { _ = peer.Close() }()
	at := r.now()
	c.Release(true, at)
	// Of 11 s it would be 8.8 s.
	if h.Take(at+int64(8600*time.Millisecond)) != nil {
		t.Error("a connection is kept for four fifths of the time until its end was found")
	}
}
