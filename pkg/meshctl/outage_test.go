package meshctl

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/internal/lockedbuf"
)

// output is written by a command while a test reads it.
type output struct{ lockedbuf.Buffer }

func (o *output) await(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(o.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", want, o.String())
		}
	}
}

// startControlPlane runs a real one until stop is called, which waits for its end.
func startControlPlane(t *testing.T, dir, address string) (grpcAddr string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	listens, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- controlplane.Run(ctx, controlplane.Config{
			DataDir: dir, GRPCAddr: address, HTTPAddr: "127.0.0.1:0", DrainTime: time.Millisecond,
			Ready: func(a controlplane.Addresses) { listens <- a.GRPC },
		})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the control plane: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case a := <-listens:
		return a.String(), stop
	case err := <-ended:
		ended <- nil
		t.Fatalf("the control plane: %v", err)
		return "", nil
	}
}

func register(t *testing.T, address, service, id string) {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	api := meshv1.NewRegistryClient(conn)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		// It refuses until it has read its store.
		_, err := api.RegisterInstance(t.Context(), &meshv1.RegisterInstanceRequest{Service: service, Instance: &meshv1.Instance{
			Id: id, Address: "10.0.0.1", Ttl: durationpb.New(time.Hour),
			Ports: []*meshv1.Port{{Name: "http", Number: 80}}, Labels: map[string]string{"version": "v1"},
		}})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func ask(t *testing.T, address string, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	root := command(&out, &errOut, time.Now)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(append(args, "--control-plane", address))
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String()
}

func TestARealControlPlaneIsShownAndWatchedOverItsRestart(t *testing.T) {
	dir := t.TempDir()
	address, stop := startControlPlane(t, dir, "127.0.0.1:0")
	register(t, address, "orders", "a1")

	var out, errOut output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		root := command(&out, &errOut, time.Now)
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs([]string{"watch", "--control-plane", address})
		ended <- root.ExecuteContext(ctx)
	}()
	out.await(t, "instance  orders.default a1 10.0.0.1")
	for args, want := range map[string]string{
		"services":         "orders  default    http:80/HTTP  1          1",
		"instances":        "orders.default  a1  10.0.0.1  http:80/HTTP  UNCHECKED  1             ttl 1h0m0s",
		"instances orders": "version=v1",
		"sidecars":         "NODE  SERVICE  CONNECTED",
	} {
		if got := ask(t, address, strings.Fields(args)...); !strings.Contains(got, want) {
			t.Errorf("%s: no %q in:\n%s", args, want, got)
		}
	}

	stop()
	errOut.await(t, "the watch broke")
	time.Sleep(3 * minPause) // long enough for attempts that fail
	_, _ = startControlPlane(t, dir, address)
	register(t, address, "orders", "a2")
	out.await(t, "instance  orders.default a2 10.0.0.1")
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("a watch that its user ended: %v", err)
	}
	if said := errOut.String(); strings.Count(said, "the watch broke") != 1 || !strings.Contains(said, "to go on from here: --token ") {
		t.Errorf("said of one outage and the end:\n%s", said)
	}
}

// full is an output that takes some writes, and then no more.
type full struct{ writes int }

var errFull = errors.New("no space left")

func (f *full) Write(p []byte) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWatchEndsWhenItsOutputCannotBeWrittenTo(t *testing.T) {
	for writes := range 2 {
		address, _ := serve(t, &fixed{})
		root := command(&full{writes}, &bytes.Buffer{}, time.Now)
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs([]string{"watch", "--control-plane", address})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := root.ExecuteContext(ctx); !errors.Is(err, errFull) {
			t.Errorf("full after %d events: got %v", writes, err)
		}
		cancel()
	}
}

func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	const hostile = "x\x1b[2J\r\nforged"
	key := &meshv1.InstanceKey{Namespace: hostile, Service: hostile, Id: hostile}
	lines := eventLines(&meshv1.WatchResponse{
		Changed:  []*meshv1.Instance{{Namespace: hostile, Service: hostile, Id: hostile, Address: hostile}},
		Removed:  []*meshv1.InstanceKey{key},
		Services: []*meshv1.ServiceKey{{Namespace: hostile, Service: hostile}},
	})
	if strings.ContainsAny(lines, "\x1b\r") || strings.Count(lines, "\n") != 3 {
		t.Errorf("lines of a watch: %q", lines)
	}
	for text, want := range map[string]string{
		"über-日本":        "über-日本",
		"a\x9b2J":        `"a\x9b2J"`, // the one-byte control sequence introducer
		"a\u202eb":       `"a\u202eb"`,
		"tab\tnewline\n": `"tab\tnewline\n"`,
	} {
		if got := plain(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}
