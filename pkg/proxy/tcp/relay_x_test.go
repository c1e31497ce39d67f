package tcp_test

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

func TestWhatIsSentComesBack(t *testing.T) {
	at := backend(t, echo)
	r := start(t, setup{}, at)
	c := r.dial()
	for range 3 {
		send(t, c, "ping")
		receive(t, c, "ping")
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, c)
	line := r.lines(1)[0]
	for field, want := range map[string]any{
		"protocol": "TCP", "source": "web", "destination": "c", "route": "chain", "client": c.LocalAddr().String(),
		"upstream": at.String(), "bytes_in": 12.0, "bytes_out": 12.0, "retries": 0.0, "reason": nil,
	} {
		if line[field] != want {
			t.Errorf("%s is %v in the log, want %v", field, line[field], want)
		}
	}
	for name, want := range map[string]float64{
		"fairlead_tcp_connections_opened_total": 1, "fairlead_tcp_connections_active": 0, "fairlead_tcp_connections_closed_total": 1,
		"fairlead_tcp_received_bytes_total": 12, "fairlead_tcp_sent_bytes_total": 12,
	} {
		if got := r.value(name, "web", "c"); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestAServerMaySpeakFirst(t *testing.T) {
	r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "220 mail.example.com\r\n")
		echo(nc)
	}))
	c := r.dial()
	receive(t, c, "220 mail.example.com\r\n")
	send(t, c, "EHLO\r\n")
	receive(t, c, "EHLO\r\n")
}

func TestAClosedSendingSideIsPassedOnAndTheOtherGoesOn(t *testing.T) {
	t.Run("the client's", func(t *testing.T) {
		r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
			all, _ := io.ReadAll(nc)
			_, _ = io.WriteString(nc, "got "+string(all))
		}))
		c := r.dial()
		send(t, c, "all of it")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		receive(t, c, "got all of it")
		wantEnd(t, c)
		if got := r.reason(); got != nil {
			t.Errorf("the reason is %v", got)
		}
	})
	t.Run("the server's", func(t *testing.T) {
		got := make(chan string, 1)
		r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
			_, _ = io.WriteString(nc, "bye")
			_ = nc.CloseWrite()
			all, _ := io.ReadAll(nc)
			got <- string(all)
		}))
		c := r.dial()
		receive(t, c, "bye")
		wantEnd(t, c)
		send(t, c, "and one more thing")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if text := <-got; text != "and one more thing" {
			t.Errorf("%q", text)
		}
		if got := r.reason(); got != nil {
			t.Errorf("the reason is %v", got)
		}
	})
}

// pour writes n bytes of a generator in pieces of all sizes, and returns their hash.
func pour(w io.Writer, n int, seed uint64) ([32]byte, error) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	key := [32]byte{byte(seed)}
	bytes := rand.NewChaCha8(key)
	hash := sha256.New()
	buf := make([]byte, 300_000)
	for n > 0 {
		piece := buf[:min(n, 1+rnd.IntN(1<<(1+rnd.IntN(18))))]
		_, _ = bytes.Read(piece)
		hash.Write(piece)
		if _, err := w.Write(piece); err != nil {
			return [32]byte{}, err
		}
		n -= len(piece)
	}
	return [32]byte(hash.Sum(nil)), nil
}

func TestManyBytesBothWaysAtOnceArriveAsTheyWere(t *testing.T) {
	const n = 100 << 20
	for name, pipes := range map[string]int{"through pipes": 0, "through buffers": -1} {
		t.Run(name, func(t *testing.T) {
			type result struct{ sent, got [32]byte }
			// both sends n bytes, and reads to the end.
			both := func(nc *net.TCPConn, seed uint64) (res result) {
				var sending sync.WaitGroup
				sending.Go(func() {
					var err error
					if res.sent, err = pour(nc, n, seed); err != nil {
						t.Error(err)
					}
					_ = nc.CloseWrite()
				})
				hash := sha256.New()
				if got, err := io.Copy(hash, nc); err != nil || got != n {
					t.Errorf("%d bytes, %v", got, err)
				}
				sending.Wait()
				res.got = [32]byte(hash.Sum(nil))
				return res
			}
			far := make(chan result, 1)
			r := start(t, setup{config: tcp.Config{MaxPipes: pipes}}, backend(t, func(nc *net.TCPConn) { far <- both(nc, 1) }))
			c := r.dial()
			_ = c.SetDeadline(time.Now().Add(5 * patience))
			near := both(c, 2)
			other := <-far
			if near.sent != other.got || other.sent != near.got {
				t.Error("other bytes arrived")
			}
			line := r.lines(1)[0]
			if line["bytes_in"] != float64(n) || line["bytes_out"] != float64(n) || line["reason"] != nil {
				t.Errorf("%v", line)
			}
		})
	}
}

func TestAResetIsPassedOnAsAReset(t *testing.T) {
	reset := func(nc *net.TCPConn) {
		_ = nc.SetLinger(0)
		_ = nc.Close()
	}
	t.Run("the client's", func(t *testing.T) {
		broken := make(chan error, 1)
		r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
			_, _ = io.WriteString(nc, "hello")
			_, err := nc.Read(make([]byte, 1))
			broken <- err
		}))
		c := r.dial()
		receive(t, c, "hello")
		reset(c)
		if err := <-broken; !isReset(err) {
			t.Errorf("the server sees %v", err)
		}
		if got := r.reason(); got != "client_gone" {
			t.Errorf("the reason is %v", got)
		}
	})
	t.Run("the server's", func(t *testing.T) {
		r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
			_, _ = io.WriteString(nc, "hello")
			_, _ = nc.Read(make([]byte, 1))
			reset(nc)
		}))
		c := r.dial()
		receive(t, c, "hello")
		send(t, c, "x")
		wantReset(t, c)
		if got := r.reason(); got != "upstream_reset" {
			t.Errorf("the reason is %v", got)
		}
	})
	t.Run("the server's, while the client sends", func(t *testing.T) {
		for range 50 {
			r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
				_, _ = io.ReadFull(nc, make([]byte, 1000))
				reset(nc)
			}))
			c := r.dial()
			var err error
			for err == nil {
				_, err = c.Write(make([]byte, 1000))
			}
			if !isReset(err) { // EPIPE, if it had been told before that the other side has ended
				t.Fatalf("%v: a broken connection looks like one that has ended", err)
			}
		}
	})
	t.Run("the client's, while the server sends", func(t *testing.T) {
		broken := make(chan error, 1)
		r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
			var err error
			for err == nil {
				_, err = nc.Write(make([]byte, 1000))
			}
			broken <- err
		}))
		c := r.dial()
		if _, err := io.ReadFull(c, make([]byte, 5000)); err != nil {
			t.Fatal(err)
		}
		reset(c)
		if err := <-broken; err == nil {
			t.Error("the server goes on")
		}
		if got := r.reason(); got != "client_gone" {
			t.Errorf("the reason is %v", got)
		}
	})
}

func TestWhatAServerSentBeforeItBrokeArrives(t *testing.T) {
	const n = 40_000
	r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "552 too much\r\n")
		_, _ = nc.Write(make([]byte, n))
		_, _ = nc.Read(make([]byte, 1)) // so that there is something unread: the rest
	}))
	c := r.dial()
	send(t, c, "MAIL FROM:<a@example.com> SIZE=99999999\r\n")
	receive(t, c, "552 too much\r\n")
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Error(err)
	}
	wantReset(t, c)
}

func TestWhatASlowClientHasNotReadYetIsNotLostToAReset(t *testing.T) {
	const n = 400_000
	for name, more := range map[string]string{"and says nothing": "", "and sends something that no one takes": "x"} {
		t.Run(name, func(t *testing.T) {
			r := start(t, setup{}, backend(t, func(nc *net.TCPConn) {
				_, _ = nc.Write(make([]byte, n))
				acknowledged(nc)
				time.Sleep(100 * time.Millisecond) // until the relay has read it
				_ = nc.SetLinger(0)
			}))
			c := r.dial()
			if err := c.SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
			send(t, c, more)
			time.Sleep(100 * time.Millisecond)
			if n, err := io.ReadFull(c, make([]byte, n)); err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			wantReset(t, c)
			if got := r.reason(); got != "upstream_reset" {
				t.Errorf("the reason is %v", got)
			}
		})
	}
}

func TestAHostThatCannotBeConnectedToIsFollowedByAnother(t *testing.T) {
	r := start(t, setup{route: tcp.Route{Attempts: 2}}, refusing(t), backend(t, echo))
	for range 4 {
		c := r.dial()
		send(t, c, "x")
		receive(t, c, "x")
		_ = c.Close()
	}
	retries := 0.0
	for _, line := range r.lines(4) {
		retries += line["retries"].(float64)
	}
	if failures := r.cluster.Hosts()[0].Status(r.now()).Failures; failures == 0 || float64(failures) != retries {
		t.Errorf("%d failures are held against the host, for %v second attempts", failures, retries)
	}
}

func TestAClientWhoseHostsCannotBeConnectedToIsReset(t *testing.T) {
	for _, attempts := range []int{1, 2, 3} {
		r := start(t, setup{route: tcp.Route{Attempts: attempts}}, refusing(t), refusing(t))
		r.dialRefused()
		line := r.lines(1)[0]
		if line["reason"] != "connect_failed" || line["retries"] != float64(attempts-1) {
			t.Errorf("%d attempts: %v", attempts, line)
		}
		if n := r.value("fairlead_tcp_connections_closed_total", "connect_failed"); n != 1 {
			t.Errorf("%v in metrics", n)
		}
	}
}

func TestWithoutAHostThereIsNoConnection(t *testing.T) {
	r := start(t, setup{})
	r.dialRefused()
	if got := r.reason(); got != "no_endpoints" {
		t.Errorf("the reason is %v", got)
	}
}

// A listener whose backlog is full takes no more connections, and says nothing.
func TestAHostThatDoesNotAnswerInTimeIsGivenUp(t *testing.T) {
	at := deaf(t)
	r := start(t, setup{cluster: mesh.Cluster{ConnectTimeout: 50 * time.Millisecond}}, at)
	r.dialRefused()
	if got := r.reason(); got != "connect_timeout" {
		t.Errorf("the reason is %v", got)
	}
	if s := r.cluster.Hosts()[0].Status(r.now()); s.Failures != 1 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAConnectionOnWhichNothingMovesIsEndedWithAReset(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, setup{route: tcp.Route{IdleTimeout: time.Hour}}, backend(t, func(nc *net.TCPConn) {
		b := make([]byte, 1)
		for {
			n, err := nc.Read(b)
			if err != nil {
				ended <- err
				return
			}
			_, _ = nc.Write(b[:n])
		}
	}))
	c := r.dial()
	for range 3 { // what moves either way counts
		send(t, c, "x")
		receive(t, c, "x")
		r.later(40 * time.Minute)
		time.Sleep(400 * time.Millisecond) // the watchdog looks every quarter of a second
	}
	send(t, c, "x")
	receive(t, c, "x")
	eventually(t, func() bool { return r.value("fairlead_tcp_received_bytes_total") == 4 }) // it has looked
	r.later(time.Hour)
	wantReset(t, c)
	if err := <-ended; !isReset(err) {
		t.Errorf("the server sees %v", err)
	}
	if got := r.reason(); got != "idle_timeout" {
		t.Errorf("the reason is %v", got)
	}
}

func TestAConnectionWithoutAnIdleTimeoutIsLeft(t *testing.T) {
	r := start(t, setup{}, backend(t, echo))
	c := r.dial()
	send(t, c, "x")
	receive(t, c, "x")
	eventually(t, func() bool { return r.value("fairlead_tcp_received_bytes_total") == 1 })
	r.later(1000 * time.Hour)
	time.Sleep(600 * time.Millisecond)
	send(t, c, "y")
	receive(t, c, "y")
}

func TestADrainWaitsForConnectionsAndThenCutsThem(t *testing.T) {
	r := start(t, setup{}, backend(t, echo))
	stays, goes := r.dial(), r.dial()
	for _, c := range []*net.TCPConn{stays, goes} {
		send(t, c, "x")
		receive(t, c, "x")
	}
	r.stop()
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan int, 1)
	go func() { drained <- r.server.Drain(ctx) }()
	send(t, goes, "y")
	receive(t, goes, "y")
	_ = goes.Close()
	eventually(t, func() bool { return r.server.Connections() == 1 })
	send(t, stays, "y")
	receive(t, stays, "y")
	cancel()
	if cut := <-drained; cut != 1 {
		t.Errorf("%d were cut", cut)
	}
	wantReset(t, stays)
	if got := r.lines(2)[1]["reason"]; got != "stopped" {
		t.Errorf("the reason is %v", got)
	}
}

func TestADrainEndsTheWaitForAHost(t *testing.T) {
	r := start(t, setup{cluster: mesh.Cluster{ConnectTimeout: time.Hour}}, deaf(t))
	c := r.dial()
	eventually(t, func() bool { return r.cluster.Active() == 1 })
	r.stop()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	r.server.Drain(over)
	wantReset(t, c)
	line := r.lines(1)[0]
	if line["reason"] != "stopped" {
		t.Errorf("%v", line)
	}
	if s := r.cluster.Hosts()[0].Status(r.now()); s.Failures != 0 || s.Active != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOneConnectionTooManyIsClosedAndNoneThatIsRelayed(t *testing.T) {
	r := start(t, setup{server: proxy.Config{MaxConnections: 2}}, backend(t, echo))
	a, b := r.dial(), r.dial()
	for _, c := range []*net.TCPConn{a, b} {
		send(t, c, "x")
		receive(t, c, "x")
	}
	c := r.dial()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	for _, c := range []*net.TCPConn{a, b} {
		send(t, c, "y")
		receive(t, c, "y")
	}
}

func TestALimitOfConnectionsToTheClusterHolds(t *testing.T) {
	r := start(t, setup{cluster: mesh.Cluster{MaxConnections: 1}}, backend(t, echo))
	a := r.dial()
	send(t, a, "x")
	receive(t, a, "x")
	r.dialRefused()
	if got := r.reason(); got != "request_limit" {
		t.Errorf("the reason is %v", got)
	}
	_ = a.Close()
	eventually(t, func() bool { return r.cluster.Active() == 0 })
	b := r.dial()
	send(t, b, "x")
	receive(t, b, "x")
}

func TestTheBreakerHearsWhetherAHostWorks(t *testing.T) {
	config := mesh.Breaker{ConsecutiveFailures: 2, OpenTime: time.Second, MaxOpenTime: time.Second, MaxEjectionPercent: 100}
	state := func(r *rig) breaker.State { return r.cluster.Hosts()[0].Status(r.now()).Breaker.State }
	t.Run("one that breaks connections before it says anything does not", func(t *testing.T) {
		r := start(t, setup{cluster: mesh.Cluster{Breaker: config}}, backend(t, func(nc *net.TCPConn) {
			_ = nc.SetLinger(0)
		}))
		for range 2 {
			r.dialRefused()
		}
		eventually(t, func() bool { return state(r) == breaker.Open })
		r.lines(2) // before the third's
		r.dialRefused()
		if got := r.lines(3)[2]["reason"]; got != "no_usable_endpoint" {
			t.Errorf("the reason is %v", got)
		}
	})
	t.Run("one that breaks them behind its first byte does", func(t *testing.T) {
		r := start(t, setup{cluster: mesh.Cluster{Breaker: config}}, backend(t, func(nc *net.TCPConn) {
			_, _ = io.WriteString(nc, "x")
			_, _ = nc.Read(make([]byte, 1))
			_ = nc.SetLinger(0)
		}))
		for range 3 {
			c := r.dial()
			receive(t, c, "x")
			send(t, c, "y")
			wantReset(t, c)
		}
		r.lines(3)
		if s := r.cluster.Hosts()[0].Status(r.now()); s.Failures != 0 || s.Breaker.State != breaker.Closed {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a probe is over with the first byte, not with the connection", func(t *testing.T) {
		broken := make(chan struct{})
		r := start(t, setup{cluster: mesh.Cluster{Breaker: config}}, backend(t, func(nc *net.TCPConn) {
			select {
			case <-broken:
				echo(nc)
			default:
				_ = nc.SetLinger(0)
			}
		}))
		for range 2 {
			r.dialRefused()
		}
		eventually(t, func() bool { return state(r) == breaker.Open })
		close(broken)
		r.later(2 * time.Second)
		var c net.Conn
		eventually(t, func() bool { // the cluster's timer goes by the time of day
			nc, err := net.Dial("tcp", r.address)
			if err != nil {
				return false
			}
			t.Cleanup(func() { _ = nc.Close() })
			if _, err = io.WriteString(nc, "x"); err == nil {
				_, err = nc.Read(make([]byte, 1))
			}
			c = nc
			return err == nil
		})
		eventually(t, func() bool { return state(r) == breaker.Closed })
		send(t, c, "y") // it is still there
		receive(t, c, "y")
	})
}

func TestARouteMayBeLearntWhenAConnectionComes(t *testing.T) {
	learnt := make(chan *tcp.Route, 1)
	find := func(ctx context.Context) (*tcp.Route, reason.Reason) {
		select {
		case route := <-learnt:
			return route, reason.None
		case <-ctx.Done():
			return nil, reason.ClientGone
		}
	}
	r := start(t, setup{config: tcp.Config{Find: find, Authority: []byte("db.default:5432"), Routes: &tcp.Routes{}}}, backend(t, echo))
	nc := r.dial()
	send(t, nc, "early")
	learnt <- &tcp.Route{Name: "road", Source: "web", Destination: "c", Cluster: r.cluster, Counted: r.counted.Destination("web", "c"), Attempts: 1}
	receive(t, nc, "early")
	_ = nc.CloseWrite()
	wantEnd(t, nc)
	line := r.lines(1)[0]
	if line["authority"] != "db.default:5432" || line["route"] != "road" || line["destination"] != "c" {
		t.Errorf("the log has %v", line)
	}
	if n := r.value("fairlead_tcp_connections_opened_total", "web", "c"); n != 1 {
		t.Errorf("%v connections are counted", n)
	}
}

func TestAConnectionWhoseRouteIsNotFoundIsResetWithTheReason(t *testing.T) {
	r := start(t, setup{config: tcp.Config{
		Find:   func(context.Context) (*tcp.Route, reason.Reason) { return nil, reason.UnknownService },
		Routes: &tcp.Routes{},
	}})
	r.dialRefused()
	if why := r.reason(); why != "unknown_service" {
		t.Errorf("the log has %v", why)
	}
	if n := r.value("fairlead_tcp_connections_closed_total", "web", "unknown", "unknown_service"); n != 1 {
		t.Errorf("%v are counted", n)
	}
}

func TestADrainThatIsOverEndsTheWaitForARoute(t *testing.T) {
	waits := make(chan struct{})
	r := start(t, setup{config: tcp.Config{
		Find: func(ctx context.Context) (*tcp.Route, reason.Reason) {
			close(waits)
			<-ctx.Done()
			return nil, reason.ClientGone
		},
		Routes: &tcp.Routes{},
	}})
	nc := r.dial()
	<-waits
	r.stop()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if n := r.server.Drain(over); n != 1 {
		t.Errorf("%d connections were cut off", n)
	}
	wantReset(t, nc)
	if why := r.reason(); why != "stopped" {
		t.Errorf("the log has %v", why)
	}
}
