package meshctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxAnswer bounds an answer of the control plane.
const maxAnswer = 64 << 20

// client is what the commands share.
type client struct {
	address flags.Address
	format  string
	timeout time.Duration
	out     io.Writer
	err     io.Writer
	now     func() time.Time
}

// Command returns the command line, which writes answers to out, and what happens
// meanwhile to err.
func Command(out, err io.Writer) *cobra.Command { return command(out, err, time.Now) }

func command(out, err io.Writer, now func() time.Time) *cobra.Command {
	c := &client{address: "127.0.0.1:15010", out: out, err: err, now: now}
	root := &cobra.Command{Use: "meshctl", Short: "Show what the control plane knows, and look after sagas", Version: flags.Version()}
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if c.timeout <= 0 {
			return flags.Usagef("--timeout is %v: it must be more than 0", c.timeout)
		}
		return nil
	}
	f := root.PersistentFlags()
	f.Var(&c.address, "control-plane", "the control plane's gRPC listener")
	f.VarP(flags.OneOf(&c.format, table, table, asJSON, asYAML), "output", "o", "how to show it")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long the control plane may take to answer")
	root.AddCommand(c.services(), c.instances(), c.sidecars(), c.watch(), c.saga())
	return root
}

// call connects, and does something within the timeout.
func (c *client) call(ctx context.Context, do func(context.Context, grpc.ClientConnInterface) error) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return c.explain(do(ctx, conn))
}

func (c *client) connect() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+string(c.address),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithUserAgent("meshctl/"+flags.Version()),
		// A control plane that froze or whose network went is noticed within 15 s; one
		// that came back is tried every 2 s, not every two minutes as gRPC would.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return nil, fmt.Errorf("--control-plane: %w", err)
	}
	return conn, nil
}

// explain puts a gRPC status into words.
func (c *client) explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, d := range s.Details() {
		bad, is := d.(*errdetails.BadRequest)
		if !is {
			continue
		}
		var lines []string
		for _, v := range bad.GetFieldViolations() {
			lines = append(lines, fmt.Sprintf("  %s: %s", plain(v.GetField()), plain(v.GetDescription())))
		}
		return fmt.Errorf("the control plane refused:\n%s", strings.Join(lines, "\n"))
	}
	switch s.Code() {
	case codes.Unavailable:
		if strings.HasPrefix(s.Message(), "the control plane ") { // it answered: not yet, or not any more
			return errors.New(plain(s.Message()))
		}
		return fmt.Errorf("the control plane at %s cannot be reached (%s): does it run, and is --control-plane right?", c.address, plain(s.Message()))
	case codes.DeadlineExceeded:
		return fmt.Errorf("the control plane at %s did not answer within %v (--timeout)", c.address, c.timeout)
	default:
		return errors.New(plain(s.Message()))
	}
}

func (c *client) services() *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use:   "services",
		Short: "List the services that have, or once had, an instance",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mesh.CheckLabel(namespace); namespace != "" && err != nil {
				return flags.Usagef("--namespace %q: %w", namespace, err)
			}
			return c.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				r, err := meshv1.NewRegistryClient(conn).ListServices(ctx, &meshv1.ListServicesRequest{Namespace: namespace})
				if err != nil {
					return err
				}
				return c.show(r, func() [][]string { return serviceRows(r.GetServices()) })
			})
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only of this namespace (default: all)")
	return cmd
}

func (c *client) instances() *cobra.Command {
	return &cobra.Command{
		Use:   "instances [SERVICE[.NAMESPACE]]",
		Short: "List the live instances of a service, or of all",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				r, err := listInstances(ctx, meshv1.NewRegistryClient(conn), args)
				if err != nil {
					return err
				}
				err = c.show(r, func() [][]string { return instanceRows(r.GetInstances(), c.now()) })
				if err != nil || c.format != table || len(r.GetHeld()) == 0 {
					return err
				}
				return writeTable(c.out, append([][]string{{""}}, heldRows(r.GetHeld(), c.now())...))
			})
		},
	}
}

// listInstances lists those of one service, or, without an argument, of all: as of
// the snapshot of a watch, so at one revision.
func listInstances(ctx context.Context, api meshv1.RegistryClient, args []string) (*meshv1.ListInstancesResponse, error) {
	if len(args) == 1 {
		name, err := serviceOf(args[0])
		if err != nil {
			return nil, err
		}
		return api.ListInstances(ctx, &meshv1.ListInstancesRequest{Namespace: name.Namespace, Service: name.Name})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := api.Watch(ctx, &meshv1.WatchRequest{})
	if err != nil {
		return nil, err
	}
	first, err := w.Recv()
	if err != nil {
		return nil, err
	}
	return &meshv1.ListInstancesResponse{Instances: first.GetChanged(), Revision: first.GetStoreRevision()}, nil
}

// serviceOf reads SERVICE[.NAMESPACE], as applications may spell it.
func serviceOf(arg string) (mesh.ServiceName, error) {
	if d, err := mesh.ParseDestination(arg); err == nil && d.Port == "" {
		return d.Service, nil
	}
	name, namespace, _ := strings.Cut(arg, ".")
	_, err := mesh.NewServiceName(name, namespace) // says which part is wrong, and why
	return mesh.ServiceName{}, flags.Usagef("%q is not SERVICE or SERVICE.NAMESPACE: %w", arg, err)
}

func (c *client) sidecars() *cobra.Command {
	return &cobra.Command{
		Use:   "sidecars",
		Short: "List the connected sidecars, and what they applied and refused",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.call(cmd.Context(), func(ctx context.Context, conn grpc.ClientConnInterface) error {
				r, err := meshv1.NewSidecarsClient(conn).ListSidecars(ctx, &meshv1.ListSidecarsRequest{})
				if err != nil {
					return err
				}
				if err := c.show(r, func() [][]string { return sidecarRows(r.GetSidecars(), c.now()) }); err != nil || c.format != table {
					return err
				}
				if refused := refusedRows(r.GetSidecars(), c.now()); len(refused) > 1 {
					return writeTable(c.out, append([][]string{{""}}, refused...))
				}
				return nil
			})
		},
	}
}

func (c *client) watch() *cobra.Command {
	var token string
	cmd := &cobra.Command{
		Use:   "watch [SERVICE[.NAMESPACE]]",
		Short: "Show every change of the registry, until Ctrl-C",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := &meshv1.WatchRequest{Revision: token}
			if len(args) == 1 {
				name, err := serviceOf(args[0])
				if err != nil {
					return err
				}
				r.Namespace, r.Service = name.Namespace, name.Name
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return c.follow(ctx, r)
		},
	}
	cmd.Flags().StringVar(&token, "token", "", "go on after this token of an earlier watch")
	return cmd
}
