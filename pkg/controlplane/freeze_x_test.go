package controlplane_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeze"
)

// Environment variables that turn the test binary into a control plane: its data directory, and where it listens.
const (
	processDir  = "FAIRLEAD_TEST_CONTROL_PLANE_DIR"
	processGRPC = "FAIRLEAD_TEST_CONTROL_PLANE_GRPC"
	processHTTP = "FAIRLEAD_TEST_CONTROL_PLANE_HTTP"
)

// serveControlPlane runs a control plane until it is killed.
func serveControlPlane(dir string) error {
	return controlplane.Run(context.Background(), controlplane.Config{
		DataDir: dir, GRPCAddr: os.Getenv(processGRPC), HTTPAddr: os.Getenv(processHTTP),
		Ready: func(controlplane.Addresses) { fmt.Println("ready") },
	})
}

// startControlPlane runs a control plane in a process of its own: this test binary, started again.
func startControlPlane(t *testing.T) (controlplane.Addresses, *os.Process) {
	t.Helper()
	grpc, http := freeAddress(t), freeAddress(t)
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), processDir+"="+t.TempDir(), processGRPC+"="+grpc, processHTTP+"="+http)
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // killed is what it shall be
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("control plane process: %q %v", line, err)
	}
	var addresses controlplane.Addresses
	for address, to := range map[string]*net.Addr{grpc: &addresses.GRPC, http: &addresses.HTTP} {
		if *to, err = net.ResolveTCPAddr("tcp", address); err != nil {
			t.Fatal(err)
		}
	}
	return addresses, command.Process
}

// The sidecars give its connections up meanwhile, which it learns of all at once when it goes on; one of them needs three seconds
// more to come back.
func TestControlPlaneThatWasFrozenRemovesNoSidecar(t *testing.T) {
	slowly(t)
	addresses, process := startControlPlane(t)
	o1, shop := orders(t, addresses)
	stays := func(d time.Duration) {
		t.Helper()
		for began := time.Now(); time.Since(began) < d; time.Sleep(20 * time.Millisecond) {
			if got, n := registered(t, addresses, "orders"), shop.hosts(t); got != "o1 o2" || n != 2 {
				t.Fatalf("%v later: registered %q, its peer has %d endpoints", time.Since(began), got, n)
			}
		}
	}
	freeze.Process(t, process)
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Second) {
		if status, reason, body := shop.through("orders", "/"); status != 200 {
			t.Errorf("without the control plane: %d %s %q", status, reason, body)
		}
	}
	o1.freeze()
	thaw := sync.OnceFunc(o1.thaw)
	defer thaw()
	o1.interrupt()
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stays(3 * time.Second)
	thaw()
	stays(12 * time.Second)
}
