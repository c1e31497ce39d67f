package controlplane_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeze"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// sidecarLine is the environment variable that turns the test binary into a sidecar.
const sidecarLine = "FAIRLEAD_TEST_SIDECAR"

// sidecarProcess runs the sidecar of a TCP application in a process of its own, until it is
// registered, and to be signalled.
func sidecarProcess(t *testing.T, addresses controlplane.Addresses, service, id string, a *tcpApp) *os.Process {
	t.Helper()
	command := exec.Command(os.Args[0], "--control-plane", addresses.GRPC.String(), "--service", service, "--instance-id", id, "--app-addr", a.address(),
		"--app-protocol", "tcp", "--inbound-addr", "127.0.0.1:0", "--outbound-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	command.Env = append(os.Environ(), sidecarLine+"=1")
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed is what it shall be
	})
	eventually(t, id+" is registered", func() bool { return strings.Contains(registered(t, addresses, service), id) })
	return command.Process
}

// inTurns lets a caller's connections to db go from one instance to the next, and no breaker
// spare them one.
func inTurns(t *testing.T, addresses controlplane.Addresses, shop caller) {
	t.Helper()
	call(t, http.MethodPut, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/db/policy",
		`{"loadBalancing":"ROUND_ROBIN","breaker":{"disabled":true}}`)
	eventually(t, "the policy is in force", func() bool {
		all := shop.clusters(t)
		return shop.line(t) != "" && len(all) == 1 && all[0].Policy == "ROUND_ROBIN" && len(all[0].Hosts) == 2
	})
}

func TestNoCallerNoticesAnApplicationThatDiesBesideItsSidecar(t *testing.T) {
	addresses := runControlPlane(t)
	apps := map[string]*tcpApp{"d1": startTCPApp(t, greet("d1")), "d2": startTCPApp(t, greet("d2"))}
	for id, a := range apps {
		tcpSidecar(t, addresses, id, a)
	}
	eventually(t, "both are registered", func() bool { return len(registered(t, addresses, "db")) == len("d1 d2") })
	shop := runCaller(t, addresses, "db:tcp")
	inTurns(t, addresses, shop)
	apps["d1"].kill()
	for n := range 40 {
		nc := shop.dial(t)
		if _, err := io.WriteString(nc, "SELECT 1"); err != nil { // while nothing is known of the instance
			t.Fatal(err)
		}
		_ = nc.CloseWrite()
		if all, err := io.ReadAll(nc); string(all) != "d2\nSELECT 1" || err != nil {
			t.Fatalf("connection %d: %q, %v", n, all, err)
		}
	}
}

// A sidecar whose application is not there is registered by hand, so that nothing but the
// connections themselves finds that out.
func TestWhatASidecarCannotDeliverGoesToAnotherInstance(t *testing.T) {
	addresses := runControlPlane(t)
	dead := startTCPApp(t, echo)
	dead.kill()
	s := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "dead", AppAddr: dead.address(), AppProtocol: mesh.ProtocolTCP})
	inbound := fmt.Sprintf(`,"takesKnocks":true,"inboundPort":%d`, s.addresses.Listeners[sidecar.Inbound].(*net.TCPAddr).Port)
	byHand(t, addresses, "db", "d1", 5432, inbound)
	byHand(t, addresses, "lost", "l1", 5432, inbound)
	tcpSidecar(t, addresses, "d2", startTCPApp(t, greet("d2")))
	eventually(t, "both are registered", func() bool { return len(registered(t, addresses, "db")) == len("d1 d2") })

	shop := runCaller(t, addresses, "db:tcp")
	inTurns(t, addresses, shop)
	if !shop.only(t, "d2") {
		t.Error("a connection does not go to the instance that is there")
	}
	eventually(t, "the log has what was tried again", func() bool { return strings.Contains(shop.log.String(), `"retries":1`) })
	for range 2 {
		through, a := connectThrough(t, shop, "db:tcp")
		if line, err := through.ReadString('\n'); a != 200 || line != "d2\n" || err != nil {
			t.Errorf("CONNECT: %d, %q, %v", a, line, err)
		}
	}

	call(t, http.MethodPut, "http://"+addresses.HTTP.String()+"/v1/namespaces/default/services/db/policy",
		`{"loadBalancing":"ROUND_ROBIN","breaker":{"consecutiveFailures":2,"openTime":"60s"}}`)
	eventually(t, "its breaker opens", func() bool {
		_ = shop.line(t)
		return strings.Contains(ask("http://"+shop.addresses.Admin.String()+"/metrics"), `cluster="db.default:tcp",instance="d1"} 1`)
	})

	alone := runCaller(t, addresses, "lost:tcp")
	alone.wantNothing(t)
	eventually(t, "the log says why", func() bool { return strings.Contains(alone.log.String(), `"reason":"not_delivered"`) })
	if _, status := connectThrough(t, alone, "lost:tcp"); status != 503 {
		t.Errorf("CONNECT: %d", status)
	}
	if metrics := ask("http://" + alone.addresses.Admin.String() + "/metrics"); !strings.Contains(metrics, `fairlead_tcp_connections_closed_total{destination="lost.default:tcp",reason="not_delivered",source="shop.default"} 1`) {
		t.Errorf("the metrics do not say so:\n%s", metrics)
	}
}

// connectThrough asks a caller's sidecar for a tunnel, and returns what comes through it, and
// the status of the answer.
func connectThrough(t *testing.T, c caller, authority string) (*bufio.Reader, int) {
	t.Helper()
	nc := dialTCP(t, c.addresses.Listeners[sidecar.Outbound].String())
	if _, err := fmt.Fprintf(nc, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", authority, authority); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(nc)
	a, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Body.Close()
	return r, a.StatusCode
}

func TestWhoDoesNotKnockReachesTheApplicationBehindASidecar(t *testing.T) {
	addresses := runControlPlane(t)
	for _, serve := range []func(*net.TCPConn){echo, greet("hello")} {
		s := runSidecar(t, addresses.GRPC.String(), sidecar.Workload{Service: "db", AppAddr: startTCPApp(t, serve).address(), AppProtocol: mesh.ProtocolTCP})
		nc := dialTCP(t, s.addresses.Listeners[sidecar.Inbound].String())
		if _, err := io.WriteString(nc, "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		_ = nc.CloseWrite()
		if all, err := io.ReadAll(nc); !strings.HasSuffix(string(all), "SELECT 1") || err != nil {
			t.Errorf("%q, %v", all, err)
		}
	}
}

func TestASidecarThatIsKilledEndsItsConnectionsAndTheNextGoElsewhereAtOnce(t *testing.T) {
	addresses := runControlPlane(t)
	killed := sidecarProcess(t, addresses, "db", "d1", startTCPApp(t, greet("d1")))
	tcpSidecar(t, addresses, "d2", startTCPApp(t, greet("d2")))
	eventually(t, "both are registered", func() bool { return len(registered(t, addresses, "db")) == len("d1 d2") })
	shop := runCaller(t, addresses, "db:tcp")
	inTurns(t, addresses, shop)
	var held *net.TCPConn
	for held == nil {
		nc := shop.dial(t)
		line := make([]byte, 3)
		if _, err := io.ReadFull(nc, line); err != nil {
			t.Fatal(err)
		}
		if string(line) == "d1\n" {
			held = nc
		}
	}
	if err := killed.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if n, err := held.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to it goes on: %d bytes, %v", n, err)
	}
	for range 4 {
		if !shop.only(t, "d2") {
			t.Fatal("a connection does not go to the instance that is there")
		}
	}
}

func TestAFrozenSidecarIsGivenUpAfterTheConnectTimeout(t *testing.T) {
	slowly(t)
	addresses := runControlPlane(t)
	frozen := sidecarProcess(t, addresses, "db", "d1", startTCPApp(t, greet("d1")))
	shop := runCaller(t, addresses, "db:tcp")
	if line := shop.line(t); line != "d1" {
		t.Fatalf("%q %s", line, shop.log.String())
	}
	freeze.Process(t, frozen)
	shop.wantNothing(t)
	eventually(t, "the log says why", func() bool { return strings.Contains(shop.log.String(), `"reason":"connect_timeout"`) })
	if metrics := ask("http://" + shop.addresses.Admin.String() + "/metrics"); !strings.Contains(metrics, `destination="db.default:tcp",reason="connect_timeout"`) {
		t.Errorf("the metrics do not say so:\n%s", metrics)
	}
}
