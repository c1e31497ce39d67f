package upstream_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/lb"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a set with one cluster, c, on a clock that the test can put forward.
type rig struct {
	testing.TB
	set     *upstream.Set
	began   time.Time
	ahead   atomic.Int64
	cluster *upstream.Cluster
}

// start makes a set that lives until the test ends. In a synctest bubble, its clock
// is the bubble's.
func start(tb testing.TB, config mesh.Cluster, endpoints ...mesh.Endpoint) *rig {
	tb.Helper()
	r := &rig{TB: tb, began: time.Now()}
	r.set = upstream.NewSet(r.now, slog.New(slog.DiscardHandler))
	tb.Cleanup(r.set.Close)
	r.cluster = r.apply(config)
	r.assign(endpoints...)
	return r
}

func (r *rig) now() int64 { return int64(time.Since(r.began)) + r.ahead.Load() }

// later puts the clock forward.
func (r *rig) later(d time.Duration) { r.ahead.Add(int64(d)) }

func (r *rig) apply(config mesh.Cluster) *upstream.Cluster {
	r.Helper()
	config.Name = "c"
	c, err := r.set.Apply(config)
	if err != nil {
		r.Fatal(err)
	}
	return c
}

func (r *rig) assign(endpoints ...mesh.Endpoint) {
	r.Helper()
	if err := r.set.Assign(mesh.LoadAssignment{Cluster: "c", Endpoints: endpoints}); err != nil {
		r.Fatal(err)
	}
}

// begin takes an attempt that must be granted, as a new request does.
func (r *rig) begin() upstream.Attempt {
	r.Helper()
	attempt, _, refusal := r.cluster.Begin(r.now(), &lb.Tried{})
	if refusal != upstream.Granted {
		r.Fatalf("refused: %s", refusal)
	}
	return attempt
}

// attempt begins one on an instance, which must get its turn.
func (r *rig) attempt(instance string) upstream.Attempt {
	r.Helper()
	for {
		attempt := r.begin()
		if attempt.Host.Endpoint().Instance == instance {
			return attempt
		}
		attempt.Done(breaker.Ignored, r.now())
	}
}

// refusal is what a new request is told.
func (r *rig) refusal() upstream.Refusal {
	attempt, _, refusal := r.cluster.Begin(r.now(), &lb.Tried{})
	attempt.Done(breaker.Ignored, r.now())
	return refusal
}

// send makes n requests that all end with an outcome, and returns how many each
// instance got.
func (r *rig) send(n int, outcome func(instance string) breaker.Outcome) map[string]int {
	r.Helper()
	got := map[string]int{}
	for range n {
		attempt := r.begin()
		instance := attempt.Host.Endpoint().Instance
		got[instance]++
		attempt.Done(outcome(instance), r.now())
	}
	return got
}

func succeed(string) breaker.Outcome { return breaker.Success }

// failing lets some instances fail.
func failing(instances ...string) func(string) breaker.Outcome {
	return func(instance string) breaker.Outcome {
		for _, i := range instances {
			if i == instance {
				return breaker.Failure
			}
		}
		return breaker.Success
	}
}

// host returns the host of an instance.
func (r *rig) host(instance string) *upstream.Host {
	r.Helper()
	for _, h := range r.cluster.Hosts() {
		if h.Endpoint().Instance == instance {
			return h
		}
	}
	r.Fatalf("there is no host %s", instance)
	return nil
}

func (r *rig) status(instance string) upstream.Status {
	r.Helper()
	return r.host(instance).Status(r.now())
}

// endpoint is an instance i<n> at 192.0.2.<n>.
func endpoint(n byte) mesh.Endpoint {
	return mesh.Endpoint{
		Instance: fmt.Sprintf("i%d", n), Weight: 1,
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 80),
	}
}

func endpoints(n byte) []mesh.Endpoint {
	var all []mesh.Endpoint
	for i := range n {
		all = append(all, endpoint(i+1))
	}
	return all
}

// server accepts connections and does nothing with them until it is told to.
type server struct {
	listener net.Listener
	accepted chan net.Conn
	done     sync.WaitGroup
}

func listen(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l, accepted: make(chan net.Conn, 2000)}
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.accepted <- c
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		s.done.Wait()
		for len(s.accepted) > 0 {
			_ = (<-s.accepted).Close()
		}
	})
	return s
}

func (s *server) endpoint(instance string) mesh.Endpoint {
	address := s.listener.Addr().(*net.TCPAddr).AddrPort()
	return mesh.Endpoint{Instance: instance, Address: address, Weight: 1}
}

// dial opens a connection that must come about, and returns both its ends.
func (r *rig) dial(s *server, h *upstream.Host) (upstream.Stream, net.Conn) {
	r.Helper()
	c, err := h.Dial(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return c, <-s.accepted
}

// wantEnd fails the test unless the other side has closed the connection.
func wantEnd(t *testing.T, peer net.Conn) {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := peer.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("the connection is open: %d bytes, %v", n, err)
	}
	_ = peer.Close()
}

// wantOpen fails the test if the other side has closed the connection.
func wantOpen(t *testing.T, peer net.Conn) {
	t.Helper()
	_ = peer.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := peer.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
		t.Errorf("the connection has ended: %d bytes, %v", n, err)
	}
}

// hangUp closes the server's end, and waits until the client's kernel knows.
func hangUp(t *testing.T, c upstream.Stream, peer net.Conn) {
	t.Helper()
	_ = peer.Close()
	for end := time.Now().Add(10 * time.Second); upstream.Alive(c); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the end of the connection does not arrive")
		}
	}
}
