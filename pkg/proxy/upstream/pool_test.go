package upstream_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// pooled starts a cluster of one real host, with one connection, which is put back.
func pooled(t *testing.T, config mesh.Cluster) (*rig, *server, upstream.Stream, net.Conn) {
	t.Helper()
	s := listen(t)
	r := start(t, config, s.endpoint("i"))
	c, peer := r.dial(s, r.host("i"))
	t.Cleanup(func() { _ = peer.Close() })
	c.Release(true, r.now())
	return r, s, c, peer
}

func TestConnectionsAreReusedTheLatestFirst(t *testing.T) {
	r, s, first, _ := pooled(t, mesh.Cluster{})
	if c := r.host("i").Take(r.now()); c != first {
		t.Fatal("the idle connection is not reused")
	}
	second, peer := r.dial(s, r.host("i"))
	defer func() { _ = peer.Close() }()
	first.Release(true, r.now())
	second.Release(true, r.now())
	if n := r.status("i").Idle; n != 2 {
		t.Errorf("%d are idle", n)
	}
	if r.host("i").Take(r.now()) != second || r.host("i").Take(r.now()) != first {
		t.Error("they are not taken in the order of last use")
	}
	if r.host("i").Take(r.now()) != nil {
		t.Error("one connection was taken twice")
	}
	first.Release(false, 0)
	second.Release(false, 0)
}

func TestAConnectionThatItsPeerClosedIsNoticedBeforeWriting(t *testing.T) {
	r, s, dead, peer := pooled(t, mesh.Cluster{})
	other, otherPeer := r.dial(s, r.host("i"))
	defer func() { _ = otherPeer.Close() }()
	taken := r.host("i").Take(r.now())
	other.Release(true, r.now())
	taken.Release(true, r.now())
	hangUp(t, dead, peer)
	if c := r.host("i").Take(r.now()); c != other {
		t.Fatalf("it took %p, not %p", c, other)
	}
	other.Release(false, 0)
}

func TestAConnectionWithUnaskedBytesIsNotUsed(t *testing.T) {
	r, _, c, peer := pooled(t, mesh.Cluster{})
	if _, err := peer.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); upstream.Alive(c) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if r.host("i").Take(r.now()) != nil {
		t.Error("it was taken")
	}
	wantEnd(t, peer)
}

func TestAConnectionIdleForTooLongIsNotUsed(t *testing.T) {
	r, _, c, peer := pooled(t, mesh.Cluster{})
	r.later(49 * time.Second)
	if r.host("i").Take(r.now()) != c {
		t.Fatal("after 49 s it was not taken")
	}
	c.Release(true, r.now())
	r.later(50 * time.Second)
	if r.host("i").Take(r.now()) != nil {
		t.Error("after 50 s it was taken")
	}
	wantEnd(t, peer)
}

func TestConnectionsThatBeganTogetherAreTooOldApart(t *testing.T) {
	const n = 64
	for name, c := range map[string]struct {
		jitter              int32
		first, between, all time.Duration // none is too old before first, some are at between, every one is at all
	}{
		"where nothing is said": {mesh.DefaultConnectionJitter, 54 * time.Minute, 57 * time.Minute, time.Hour},
		"by a half":             {50, time.Hour, 75 * time.Minute, 90 * time.Minute},
		"by nothing":            {0, time.Hour, 0, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t)
			r := start(t, mesh.Cluster{MaxConnectionDuration: time.Hour, MaxConnectionJitter: c.jitter, IdleTimeout: 24 * time.Hour}, s.endpoint("i"))
			var open []upstream.Stream
			for range n {
				c, peer := r.dial(s, r.host("i"))
				t.Cleanup(func() { _ = peer.Close() })
				open = append(open, c)
			}
			at := time.Duration(0)
			fresh := func(then time.Duration) int {
				r.later(then - at)
				at = then
				for _, c := range open {
					c.Release(true, r.now())
				}
				open = nil
				for c := r.host("i").Take(r.now()); c != nil; c = r.host("i").Take(r.now()) {
					open = append(open, c)
				}
				return len(open)
			}
			if got := fresh(c.first - time.Minute); got != n { // the clock goes on by itself, too
				t.Errorf("%d of %d are too old too soon", n-got, n)
			}
			if c.between > 0 {
				if got := fresh(c.between); got == 0 || got == n {
					t.Errorf("%d of %d are too old", n-got, n)
				}
			}
			if got := fresh(c.all); got != 0 {
				t.Errorf("%d are not too old when the last one is to be", got)
			}
		})
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	const bound = 512
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	var conns []upstream.Stream
	var peers []net.Conn
	for range bound + 3 {
		c, peer := r.dial(s, r.host("i"))
		conns, peers = append(conns, c), append(peers, peer)
	}
	for _, c := range conns {
		c.Release(true, r.now())
	}
	if n := r.status("i").Idle; n != bound {
		t.Errorf("%d are idle", n)
	}
	for _, peer := range peers[:3] {
		wantEnd(t, peer) // the oldest made room
	}
	wantOpen(t, peers[3])
	if r.host("i").Take(r.now()) != conns[len(conns)-1] {
		t.Error("the latest is not there")
	}
	conns[len(conns)-1].Release(false, 0)
	for _, peer := range peers[3:] {
		_ = peer.Close()
	}
}

func TestAHostThatGoesClosesItsConnections(t *testing.T) {
	goes := map[string]func(r *rig){
		"removed from the endpoints": func(r *rig) { r.assign() },
		"replaced":                   func(r *rig) { r.assign(endpoint(1)) },
		"with its cluster":           func(r *rig) { r.set.Remove("c") },
	}
	for name, leave := range goes {
		t.Run(name, func(t *testing.T) {
			r, s, _, idle := pooled(t, mesh.Cluster{})
			used, peer := r.dial(s, r.host("i"))
			leave(r)
			wantEnd(t, idle)
			wantOpen(t, peer) // a request is under way on it
			used.Release(true, r.now())
			wantEnd(t, peer)
		})
	}
}

func TestAConnectionThatNobodyElseWillTakeIsNotKept(t *testing.T) {
	s := listen(t)
	r := start(t, mesh.Cluster{Protocol: mesh.ProtocolHTTP2}, s.endpoint("i"))
	c, err := r.host("i").DialAlone(r.Context())
	if err != nil {
		t.Fatal(err)
	}
	peer := <-s.accepted
	c.Release(true, r.now())
	if n := r.status("i").Idle; n != 0 {
		t.Errorf("%d are idle", n)
	}
	wantEnd(t, peer)
}

func TestIdleConnectionsOutliveChangesOfConfiguration(t *testing.T) {
	r, s, c, _ := pooled(t, mesh.Cluster{})
	r.apply(mesh.Cluster{LB: mesh.LBRandom, ConnectTimeout: time.Minute})
	r.assign(s.endpoint("i"), endpoint(2))
	if r.host("i").Take(r.now()) != c {
		t.Error("the connection is gone")
	}
	c.Release(false, 0)
}

func TestClosingTheSetClosesIdleConnections(t *testing.T) {
	s := listen(t)
	r := &rig{TB: t, began: time.Now()}
	r.set = upstream.NewSet(r.now, slog.New(slog.DiscardHandler))
	r.cluster = r.apply(mesh.Cluster{})
	r.assign(s.endpoint("i"))
	c, peer := r.dial(s, r.host("i"))
	c.Release(true, r.now())
	r.set.Close()
	wantEnd(t, peer)
	if n := len(r.set.Clusters()); n != 0 {
		t.Errorf("there are %d clusters", n)
	}
}

func TestALimitOfConnectionsCountsIdleOnesOfAllHosts(t *testing.T) {
	a, b := listen(t), listen(t)
	r := start(t, mesh.Cluster{MaxConnections: 2}, a.endpoint("a"), b.endpoint("b"))
	first, firstPeer := r.dial(a, r.host("a"))
	second, secondPeer := r.dial(a, r.host("a"))
	first.Release(true, r.now())
	third, thirdPeer := r.dial(b, r.host("b"))
	wantEnd(t, firstPeer) // it was idle, and made room
	fourth, fourthPeer := r.dial(b, r.host("b"))
	fourth.Release(true, r.now())
	wantEnd(t, fourthPeer) // one too many
	second.Release(true, r.now())
	third.Release(true, r.now())
	wantOpen(t, secondPeer)
	wantOpen(t, thirdPeer)
	if n := r.status("a").Idle + r.status("b").Idle; n != 2 {
		t.Errorf("%d are idle", n)
	}
	_, _ = secondPeer.Close(), thirdPeer.Close()
}

func TestALimitOfTheSetCountsConnectionsOfAllClusters(t *testing.T) {
	a, b := listen(t), listen(t)
	r := start(t, mesh.Cluster{}, a.endpoint("a"))
	r.set.Limit(2)
	if _, err := r.set.Apply(mesh.Cluster{Name: "other", Static: &mesh.LoadAssignment{Cluster: "other", Endpoints: []mesh.Endpoint{b.endpoint("b")}}}); err != nil {
		t.Fatal(err)
	}
	other := r.set.Clusters()[1].Hosts()[0]
	first, firstPeer := r.dial(a, r.host("a"))
	second, secondPeer := r.dial(a, r.host("a"))
	first.Release(true, r.now())
	third, thirdPeer := r.dial(b, other)
	wantEnd(t, firstPeer) // it was idle, and made room
	fourth, fourthPeer := r.dial(b, other)
	fourth.Release(true, r.now())
	wantEnd(t, fourthPeer) // one too many
	second.Release(true, r.now())
	third.Release(true, r.now())
	wantOpen(t, secondPeer)
	wantOpen(t, thirdPeer)
	if n := r.status("a").Idle + other.Status(r.now()).Idle; n != 2 {
		t.Errorf("%d are idle", n)
	}
	_, _ = secondPeer.Close(), thirdPeer.Close()
}

func TestRoomIsMadeForManyAtOnceAndTakenFromAllHosts(t *testing.T) {
	const limit, hosts = 4 * 64, 8 // which makes room for 5 at a time
	r := start(t, mesh.Cluster{}, endpoints(hosts)...)
	r.set.Limit(limit)
	for i := range limit {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		upstream.NewStreamForTest(r.cluster.Hosts()[i%hosts], near).Release(true, r.now())
	}
	s := listen(t)
	r.assign(append(endpoints(hosts), s.endpoint("i"))...)
	c, peer := r.dial(s, r.host("i"))
	defer func() { _ = peer.Close() }()
	c.Release(false, r.now())
	idle := 0
	for _, h := range r.cluster.Hosts() {
		n := h.Status(r.now()).Idle
		if idle += n; n < limit/hosts-1 && h != r.host("i") {
			t.Errorf("one host has %d left", n)
		}
	}
	if idle != limit-5 {
		t.Errorf("%d are idle", idle)
	}
}

func TestTheServersPatienceIsLearnt(t *testing.T) {
	// closings is what the server does: it closes a connection that was idle for so
	// long, and this long passes until it does so again.
	type closing struct{ age, pause time.Duration }
	tests := map[string]struct {
		closings []closing
		good     time.Duration // an age at which a connection is still used
		bad      time.Duration // and one at which it is not
	}{
		"nothing seen":                  {nil, 49 * time.Second, 50 * time.Second},
		"one closing says nothing":      {[]closing{{5 * time.Second, 0}}, 49 * time.Second, 50 * time.Second},
		"nor do many at once":           {[]closing{{5 * time.Second, 0}, {4 * time.Second, 0}}, 49 * time.Second, 50 * time.Second},
		"two do":                        {[]closing{{5 * time.Second, 20 * time.Second}, {5 * time.Second, 0}}, 3 * time.Second, 4100 * time.Millisecond},
		"of two, the longer counts":     {[]closing{{20 * time.Second, 20 * time.Second}, {5 * time.Second, 0}}, 15 * time.Second, 17 * time.Second},
		"no less than a second":         {[]closing{{time.Millisecond, 20 * time.Second}, {time.Millisecond, 0}}, 900 * time.Millisecond, 1100 * time.Millisecond},
		"two that are far apart do not": {[]closing{{5 * time.Second, 11 * time.Minute}, {5 * time.Second, 0}}, 49 * time.Second, 50 * time.Second},
		"it is forgotten":               {[]closing{{5 * time.Second, 20 * time.Second}, {5 * time.Second, 11 * time.Minute}}, 49 * time.Second, 50 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := listen(t)
			r := start(t, mesh.Cluster{}, s.endpoint("i"))
			h := r.host("i")
			for _, closing := range test.closings {
				c, peer := r.dial(s, h)
				c.Release(true, r.now())
				hangUp(t, c, peer)
				if h.Take(r.now()+int64(closing.age)) != nil {
					t.Fatal("a closed connection was taken")
				}
				r.later(closing.age + closing.pause)
			}
			c, peer := r.dial(s, h)
			defer func() { _ = peer.Close() }()
			at := r.now()
			c.Release(true, at)
			if h.Take(at+int64(test.good)) != c {
				t.Fatalf("after %s it is not used any more", test.good)
			}
			c.Release(true, at)
			if h.Take(at+int64(test.bad)) != nil {
				t.Errorf("after %s it is still used", test.bad)
			}
		})
	}
}

func TestDialEndsWithTheConnectTimeoutOrTheRequest(t *testing.T) {
	full := blackhole(t)
	for name, test := range map[string]struct {
		timeout time.Duration
		cancel  time.Duration
		want    func(error) bool
	}{
		"timeout": {20 * time.Millisecond, time.Hour, func(err error) bool {
			var ne net.Error
			return errors.As(err, &ne) && ne.Timeout()
		}},
		"cancelled": {time.Hour, 20 * time.Millisecond, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, mesh.Cluster{ConnectTimeout: test.timeout}, full)
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(test.cancel, cancel).Stop()
			defer cancel()
			if c, err := r.host("full").Dial(ctx); !test.want(err) {
				t.Errorf("it got %v, %v", c, err)
			}
		})
	}
}

func TestWithoutAConnectTimeoutTheDefaultHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits 5 s")
	}
	t.Parallel()
	full := blackhole(t)
	r := start(t, mesh.Cluster{}, full)
	began := time.Now()
	c, err := r.host("full").Dial(t.Context())
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("it got %v, %v", c, err)
	}
	if waited := time.Since(began); waited < mesh.DefaultConnectTimeout/2 {
		t.Errorf("it waited %s", waited)
	}
}

func TestDialToNobodyFails(t *testing.T) {
	s := listen(t)
	e := s.endpoint("i")
	_ = s.listener.Close()
	r := start(t, mesh.Cluster{}, e)
	if c, err := r.host("i").Dial(t.Context()); err == nil {
		c.Release(false, 0)
		t.Error("it was connected to")
	}
}

// blackhole is an endpoint that never answers a SYN: its queue of connections is
// full, and nobody accepts.
func blackhole(t *testing.T) mesh.Endpoint {
	t.Helper()
	address := fullQueue(t)
	return mesh.Endpoint{Instance: "full", Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), address), Weight: 1}
}

func TestTheSweepClosesWhatItsPeerHasClosed(t *testing.T) {
	r, s, dead, peer := pooled(t, mesh.Cluster{})
	alive, alivePeer := r.dial(s, r.host("i"))
	defer func() { _ = alivePeer.Close() }()
	alive.Release(true, r.now())
	hangUp(t, dead, peer)
	r.host("i").Sweep(r.now())
	if n := r.status("i").Idle; n != 1 {
		t.Errorf("%d are idle", n)
	}
	if r.host("i").Take(r.now()) != alive {
		t.Error("the good one is gone")
	}
	alive.Release(false, 0)
}

func TestTheSetSweepsConnectionsThatAreIdleForTooLong(t *testing.T) {
	// The bubble has no sockets: connections are pipes here, which cannot tell that
	// their peer has gone. Age they have.
	synctest.Test(t, func(t *testing.T) {
		r := start(t, mesh.Cluster{}, endpoint(1))
		near, far := net.Pipe()
		c := upstream.NewStreamForTest(r.host("i1"), near)
		c.Release(true, r.now())
		time.Sleep(49 * time.Second)
		synctest.Wait()
		if n := r.status("i1").Idle; n != 1 {
			t.Errorf("after 49 s, %d are idle", n)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if n := r.status("i1").Idle; n != 0 {
			t.Errorf("after 55 s, %d are idle", n)
		}
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is open")
		}
	})
}

func TestWhileTheSweepLooksAtAConnectionRequestsTakeAndPutOthers(t *testing.T) {
	r, s, first, _ := pooled(t, mesh.Cluster{})
	h := r.host("i")
	second, secondPeer := r.dial(s, h)
	third, thirdPeer := r.dial(s, h)
	defer func() { _, _ = secondPeer.Close(), thirdPeer.Close() }()
	second.Release(true, r.now())
	third.Release(true, r.now())
	if s, _ := h.Look(0, r.now()-int64(time.Hour)); s != nil {
		t.Error("it goes on to what came back since it began, which may have no end")
	}
	looked, restore := h.Look(1, r.now())
	if looked != second {
		t.Fatal("the sweep does not go from the oldest on")
	}
	if h.Take(r.now()) != third || h.Take(r.now()) != first || h.Take(r.now()) != nil {
		t.Error("the others are not there, or the one that is looked at is")
	}
	third.Release(true, r.now())
	if !restore() {
		t.Error("it is not put back")
	}
	if h.Take(r.now()) != second || h.Take(r.now()) != third || h.Take(r.now()) != nil {
		t.Error("it is not there afterwards")
	}
	for _, c := range []upstream.Stream{first, second, third} {
		c.Release(false, r.now())
	}
}

func TestTheSweepPutsNothingBack(t *testing.T) {
	for name, leave := range map[string]func(r *rig){
		"to a host that has gone": func(r *rig) { r.assign() },
		"past the bound": func(r *rig) {
			for range upstream.MaxIdle {
				near, far := net.Pipe()
				t.Cleanup(func() { _ = far.Close() })
				upstream.NewStreamForTest(r.host("i"), near).Release(true, r.now())
			}
		},
	} {
		r, _, _, _ := pooled(t, mesh.Cluster{})
		_, restore := r.host("i").Look(0, r.now())
		leave(r)
		if restore() {
			t.Errorf("%s it puts it back", name)
		}
	}
}

func TestTheSweepMeetsRequests(t *testing.T) {
	const conns = 20
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	h := r.host("i")
	var all []upstream.Stream
	for range conns {
		c, peer := r.dial(s, h)
		t.Cleanup(func() { _ = peer.Close() })
		all = append(all, c)
	}
	for _, c := range all {
		c.Release(true, r.now())
	}
	var requests sync.WaitGroup
	for range 4 {
		requests.Go(func() {
			for range 1000 {
				if c := h.Take(r.now()); c != nil {
					c.Release(true, r.now())
				}
			}
		})
	}
	for range 100 {
		h.Sweep(r.now())
	}
	requests.Wait()
	if n := h.Status(r.now()).Idle; n != conns {
		t.Errorf("%d are idle", n)
	}
}
