package controlplane_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// forwarder is a network between a client and a server that can break.
type forwarder struct {
	listener net.Listener
	to       string
	gate     sync.RWMutex // held for writing while frozen
	running  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
	ended bool       // guarded by mu
}

// forward listens, and forwards to an address, until the test ends.
func forward(t *testing.T, to string) *forwarder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{listener: l, to: to}
	f.running.Go(f.accept)
	t.Cleanup(func() {
		f.cut()
		f.running.Wait()
	})
	return f
}

func (f *forwarder) address() string { return f.listener.Addr().String() }

func (f *forwarder) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", f.to)
		if err != nil {
			_ = client.Close()
			continue
		}
		f.mu.Lock()
		if f.conns = append(f.conns, client, server); f.ended {
			_, _ = client.Close(), server.Close()
		}
		f.mu.Unlock()
		f.running.Go(func() { f.pump(server, client) })
		f.running.Go(func() { f.pump(client, server) })
	}
}

// pump forwards one direction; when it ends, so do both.
func (f *forwarder) pump(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		f.gate.RLock()   // which waits while it is frozen
		f.gate.RUnlock() //nolint:staticcheck // it waits while the way is frozen
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// freeze lets nothing through, and closes nothing, until thaw.
func (f *forwarder) freeze() { f.gate.Lock() }
func (f *forwarder) thaw()   { f.gate.Unlock() }

// interrupt breaks the connections; new ones are possible.
func (f *forwarder) interrupt() { f.breakAll(false) }

// cut breaks the connections, for ever.
func (f *forwarder) cut() {
	_ = f.listener.Close()
	f.breakAll(true)
}

func (f *forwarder) breakAll(forEver bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = f.ended || forEver
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}

// orders runs the service with two instances, o1 beside a sidecar whose way to the
// control plane can break, and a sidecar that has called both.
func orders(t *testing.T, addresses controlplane.Addresses) (o1 *forwarder, shop beside) {
	t.Helper()
	o1 = forward(t, addresses.GRPC.String())
	for id, controlPlane := range map[string]string{"o1": o1.address(), "o2": addresses.GRPC.String()} {
		runSidecar(t, controlPlane, sidecar.Workload{Service: "orders", InstanceID: id, AppAddr: app(t, id).Listener.Addr().String(), HealthPath: "/health"})
	}
	eventually(t, "both are registered and well", func() bool { return registered(t, addresses, "orders") == "o1 o2" })
	shop = runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "shop"})
	seen := map[string]bool{}
	eventually(t, "both are called", func() bool {
		_, _, body := shop.through("orders", "/")
		seen[body] = true
		return seen["o1"] && seen["o2"]
	})
	return o1, shop
}

// hosts counts what a sidecar balances over, by its admin port.
func (b beside) hosts(t *testing.T) int {
	t.Helper()
	n := 0
	for _, c := range b.clusters(t) {
		n += len(c.Hosts)
	}
	return n
}

// What a SIGKILL of a sidecar is to the control plane: its connections end.
func TestSidecarWhoseConnectionBreaksIsGoneFromItsPeersWithinTwoSeconds(t *testing.T) {
	addresses := runControlPlane(t)
	o1, shop := orders(t, addresses)
	o1.cut()
	within(t, 2*time.Second, "it is out of its peer's endpoints", func() bool { return shop.hosts(t) == 1 })
	if got := registered(t, addresses, "orders"); got != "o2" {
		t.Errorf("registered: %q", got)
	}
	for range 20 {
		if status, reason, body := shop.through("orders", "/"); status != 200 || body != "o2" {
			t.Errorf("%d %s %q", status, reason, body)
		}
	}
}

func TestSidecarWhoseConnectionIsMadeAnewStaysRegistered(t *testing.T) {
	addresses := runControlPlane(t)
	o1, shop := orders(t, addresses)
	for range 3 {
		o1.interrupt()
		for began := time.Now(); time.Since(began) < 600*time.Millisecond; time.Sleep(20 * time.Millisecond) {
			if got := registered(t, addresses, "orders"); got != "o1 o2" {
				t.Fatalf("registered: %q", got)
			}
			if n := shop.hosts(t); n != 2 {
				t.Fatalf("its peer has %d endpoints", n)
			}
		}
	}
}

// A peer that froze, or whose network did, says nothing and closes nothing. It is
// found by HTTP/2 pings: ten seconds of silence, five for the answer, and the second
// that every lost stream has.
func TestSidecarThatFreezesIsGoneWithinSixteenSecondsAndComesBack(t *testing.T) {
	slowly(t)
	addresses := runControlPlane(t)
	o1, shop := orders(t, addresses)
	o1.freeze()
	within(t, 17*time.Second, "it is out of its peer's endpoints", func() bool { return shop.hosts(t) == 1 })
	o1.thaw()
	within(t, 10*time.Second, "it is back", func() bool { return shop.hosts(t) == 2 && registered(t, addresses, "orders") == "o1 o2" })
}

func TestRestartRemovesThoseWhoDoNotComeBackAndNobodyElse(t *testing.T) {
	slowly(t)
	config := loopbackConfig(t)
	config.GRPCAddr, config.HTTPAddr = freeAddress(t), freeAddress(t)
	addresses, stop := runControlPlaneAt(t, config)
	o1, shop := orders(t, addresses)
	stop()
	o1.cut()
	for range 20 {
		if status, reason, body := shop.through("orders", "/"); status != 200 {
			t.Errorf("without the control plane: %d %s %q", status, reason, body)
		}
	}
	runControlPlaneAt(t, config)
	within(t, 15*time.Second, "the one that did not come back is gone", func() bool {
		got := registered(t, addresses, "orders")
		if got != "o1 o2" && got != "o2" {
			t.Fatalf("registered: %q", got)
		}
		return got == "o2" && shop.hosts(t) == 1
	})
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
		if got := registered(t, addresses, "orders"); got != "o2" {
			t.Fatalf("registered: %q", got)
		}
	}
}
