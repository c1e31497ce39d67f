package meshctl

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/flags"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// then is when the fixed answers are asked for.
var then = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fixed is a control plane with the same answers always.
type fixed struct {
	meshv1.UnimplementedRegistryServer
	meshv1.UnimplementedSidecarsServer
	watches atomic.Int32
	resumed atomic.Value // string: the token that the second watch came with
}

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(then.Add(-d)) }

func instances() []*meshv1.Instance {
	return []*meshv1.Instance{
		{
			Id: "a1", Service: "orders", Namespace: "default", Address: "10.0.0.1", InboundPort: 15006, Weight: 1, Status: meshv1.Status_HEALTHY,
			Ports: []*meshv1.Port{{Name: "http", Number: 80, Protocol: meshv1.Protocol_HTTP}, {Name: "admin", Number: 81, Protocol: meshv1.Protocol_GRPC}},
			Zone:  "z1", Labels: map[string]string{"version": "v1", "hostile": "\x1b[2J\r\n"}, RegisteredAt: ago(90 * time.Second), Revision: 7,
			Liveness: meshv1.Liveness_STREAM,
		},
		{
			Id: "a2", Service: "orders", Namespace: "default", Address: "fd00::2", Weight: 100, Ttl: durationpb.New(10 * time.Second),
			Ports: []*meshv1.Port{{Name: "http", Number: 80, Protocol: meshv1.Protocol_HTTP}}, RegisteredAt: ago(50 * time.Hour), Revision: 8,
			Liveness: meshv1.Liveness_TTL,
		},
	}
}

func (f *fixed) ListServices(_ context.Context, r *meshv1.ListServicesRequest) (*meshv1.ListServicesResponse, error) {
	all := []*meshv1.Service{{Name: "orders", Namespace: "default", Instances: 2, UsableInstances: 1, Ports: instances()[0].GetPorts(), Revision: 8}}
	if r.GetNamespace() != "default" {
		all = append(all, &meshv1.Service{Name: "gone", Namespace: "other", Revision: 3})
	}
	return &meshv1.ListServicesResponse{Services: all, Revision: 8}, nil
}

func (f *fixed) ListInstances(_ context.Context, r *meshv1.ListInstancesRequest) (*meshv1.ListInstancesResponse, error) {
	switch r.GetService() {
	case "orders":
		return &meshv1.ListInstancesResponse{Instances: instances(), Revision: 8}, nil
	case "carts":
		return &meshv1.ListInstancesResponse{
			Instances: []*meshv1.Instance{
				{Id: "b1", Service: "carts", Namespace: "default", Address: "10.0.1.1", Weight: 1, Liveness: meshv1.Liveness_LEASE},
				{Id: "b2", Service: "carts", Namespace: "default", Address: "10.0.1.2", Weight: 1, Liveness: meshv1.Liveness_UNTIL_REMOVED},
			},
			Held: []*meshv1.HeldInstance{{
				Instance: &meshv1.Instance{Id: "b3", Service: "carts", Namespace: "default", Address: "10.0.1.3", InboundPort: 15006},
				LostAt:   ago(90 * time.Second), HeldUntil: ago(-510 * time.Second),
			}},
		}, nil
	case "refused":
		s, _ := status.New(codes.InvalidArgument, "no").WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "namespace", Description: "is bad"}, {Field: "service", Description: "is \x1b[31mworse"},
		}})
		return nil, s.Err()
	}
	return nil, status.Errorf(codes.NotFound, "service %s.%s was never known", r.GetService(), r.GetNamespace())
}

func (f *fixed) Watch(r *meshv1.WatchRequest, s meshv1.Registry_WatchServer) error {
	if f.watches.Add(1) == 1 {
		for _, e := range []*meshv1.WatchResponse{
			{Token: "t-8", Snapshot: true, Changed: instances(), Services: []*meshv1.ServiceKey{{Namespace: "default", Service: "orders"}}, StoreRevision: 8},
			{Token: "t-9", Removed: []*meshv1.InstanceKey{{Namespace: "default", Service: "orders", Id: "a1"}}, StoreRevision: 9},
		} {
			if err := s.Send(e); err != nil {
				return err
			}
		}
		return status.Error(codes.Unavailable, "going away")
	}
	f.resumed.Store(r.GetRevision())
	err := s.Send(&meshv1.WatchResponse{Token: "t-10", Services: []*meshv1.ServiceKey{{Namespace: "default", Service: "fresh"}}, StoreRevision: 10})
	if err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func (f *fixed) ListSidecars(context.Context, *meshv1.ListSidecarsRequest) (*meshv1.ListSidecarsResponse, error) {
	return &meshv1.ListSidecarsResponse{Sidecars: []*meshv1.Sidecar{{
		Node: "shop-1.shop.default", Service: "shop.default", ConnectedAt: ago(3 * time.Hour), Address: "10.0.0.9:1234", UserAgent: "fairlead-sidecar",
		Types: []*meshv1.TypeState{{
			TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Subscribed: 2,
			Applied:  []*meshv1.AppliedResource{{Name: "orders.default:http", Version: "1"}},
			Rejected: []*meshv1.RejectedResource{{Name: "stock.default:http", Version: "2", Reason: "no such field\n", At: ago(time.Minute)}},
		}},
	}, {Node: "envoy"}}}, nil
}

// serve serves f until stop is called, at the latest at the end of the test.
func serve(t *testing.T, f *fixed) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	meshv1.RegisterRegistryServer(g, f)
	meshv1.RegisterSidecarsServer(g, f)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(l) }()
	stop = func() { g.Stop(); <-served }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// run runs a command line against a control plane, and returns what it wrote.
func run(t *testing.T, f *fixed, args ...string) (string, error) {
	t.Helper()
	address, stop := serve(t, f)
	defer stop()
	var out bytes.Buffer
	root := command(&out, &bytes.Buffer{}, func() time.Time { return then })
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(append([]string{"--control-plane", address}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestAnswersAreShownAsInTheGoldenFiles(t *testing.T) {
	for name, args := range map[string]string{
		"services.txt":   "services",
		"services.json":  "services -n default -o json",
		"instances.txt":  "instances orders",
		"held.txt":       "instances carts",
		"all.txt":        "instances",
		"instances.yaml": "instances orders.default -o yaml",
		"sidecars.txt":   "sidecars",
		"sidecars.json":  "sidecars -o json",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := run(t, &fixed{}, strings.Fields(args)...)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, string(want)); diff != "" {
				t.Errorf("(-got, +want):\n%s", diff)
			}
		})
	}
}

func TestErrorsSayWhatAndWhere(t *testing.T) {
	for args, want := range map[string]string{
		"instances nope":               "service nope.default was never known",
		"instances refused":            "  namespace: is bad\n  service: \"is \\x1b[31mworse\"",
		"watch a.b.c":                  `"a.b.c" is not SERVICE`,
		"services -o xml":              "xml",
		"services --timeout 1ns":       "did not answer within 1ns",
		"instances one two":            "accepts at most 1 arg",
		"services --control-plane x:y": "x:y",
	} {
		if _, err := run(t, &fixed{}, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestMisuseIsToldBeforeAnybodyIsAsked(t *testing.T) {
	for args, want := range map[string]string{
		"services --timeout 0s":           "--timeout is 0s: it must be more than 0",
		"instances --timeout -1s":         "--timeout is -1s: it must be more than 0",
		"sidecars --timeout 0s":           "--timeout is 0s",
		"watch --timeout 0s":              "--timeout is 0s",
		"services --timeout soon":         `--timeout "soon": time: invalid duration`,
		"services -n BAD_NS":              `--namespace "BAD_NS": must consist of a-z`,
		"instances a_b":                   `"a_b" is not SERVICE or SERVICE.NAMESPACE: service name "a_b": must consist of a-z`,
		"instances a.BAD_NS":              `"a.BAD_NS" is not SERVICE or SERVICE.NAMESPACE: namespace "BAD_NS": must consist of a-z`,
		"watch a.b.c":                     `namespace "b.c": must consist of a-z`,
		"watch a.b_c.svc.cluster.local":   `namespace "b_c.svc.cluster.local": must consist of a-z`,
		"instances orders:http":           `service name "orders:http": must consist of a-z`,
		"instances .default":              `service name "": must not be empty`,
		"instances orders. --timeout -1s": "--timeout is -1s",
	} {
		var out bytes.Buffer
		root := command(&out, &out, time.Now)
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"--control-plane", "127.0.0.1:1"}, strings.Fields(args)...))
		if code := flags.Execute(root); code != flags.ExitUsage || !strings.Contains(out.String(), want) {
			t.Errorf("%s: exit code %d, %s\nwant %q", args, code, out.String(), want)
		}
	}
}

func TestServiceIsNamedAsApplicationsNameIt(t *testing.T) {
	for arg, want := range map[string]string{
		"orders":                           "orders.default",
		"orders.shop":                      "orders.shop",
		"Orders.Shop.":                     "orders.shop",
		"orders.shop.svc":                  "orders.shop",
		"orders.shop.svc.cluster.local":    "orders.shop",
		"orders.default.svc.cluster.local": "orders.default",
	} {
		if got, err := serviceOf(arg); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v, want %s", arg, got, err, want)
		}
	}
}

func TestControlPlaneThatIsNotThereIsSaidSo(t *testing.T) {
	root := command(&bytes.Buffer{}, &bytes.Buffer{}, time.Now)
	root.SilenceErrors, root.SilenceUsage = true, true
	for _, args := range []string{"services", "watch"} {
		root.SetArgs([]string{args, "--control-plane", "127.0.0.1:1"})
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1 cannot be reached") {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestWatchGoesOnWhereItBroke(t *testing.T) {
	f := &fixed{}
	address, _ := serve(t, f)
	var out, errOut output
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		root := command(&out, &errOut, time.Now)
		root.SilenceErrors, root.SilenceUsage = true, true
		root.SetArgs([]string{"watch", "--control-plane", address})
		ended <- root.ExecuteContext(ctx)
	}()
	out.await(t, "fresh")
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if f.resumed.Load() != "t-9" || !strings.Contains(errOut.String(), "going on from t-9") {
		t.Errorf("resumed from %v, said %q", f.resumed.Load(), errOut.String())
	}
	want := "8          snapshot: 1 services, 2 instances\n" +
		"8          instance  orders.default a1 10.0.0.1:15006 HEALTHY\n" +
		"8          instance  orders.default a2 fd00::2 UNCHECKED\n" +
		"9          removed   orders.default a1\n" +
		"10         service   fresh.default\n"
	if diff := cmp.Diff(out.String(), want); diff != "" {
		t.Errorf("(-got, +want):\n%s", diff)
	}
}
