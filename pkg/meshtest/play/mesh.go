package play

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/tracing/otlptest"
)

// startTime bounds the start of a process.
const startTime = 20 * time.Second

// stopTime bounds the end of one, its drain included.
const stopTime = 15 * time.Second

// Instance is an instance of a service: its process, and its sidecar's.
type Instance struct {
	ID           string
	app, sidecar *Process
	appAddr      string
}

// Mesh is a control plane, instances of a service, services that take part in sagas, and the sidecar of a client.
type Mesh struct {
	// Spans receives the spans of all sidecars.
	Spans *otlptest.Receiver

	bin, dir   string
	grpc, http string // of the control plane

	mu        sync.Mutex
	plane     *Process
	client    *Process
	outbound  string
	admin     string
	instances []*Instance // guarded by mu; those of orders that run
	parties   []*Instance // guarded by mu; that take part in sagas
}

// NewMesh makes a mesh of the programs in the folder bin, of which none runs yet. Its
// state and logs are in dir. The caller must stop it.
func NewMesh(bin, dir string) (*Mesh, error) {
	m := &Mesh{bin: bin, dir: dir}
	var err error
	if m.grpc, err = FreeAddress(); err != nil {
		return nil, err
	}
	if m.http, err = FreeAddress(); err != nil {
		return nil, err
	}
	if m.Spans, err = otlptest.Start(otlptest.Config{}); err != nil {
		return nil, err
	}
	return m, nil
}

// StartControlPlane starts it, or starts it again where it was.
func (m *Mesh) StartControlPlane(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := Start(m.dir, "controlplane", m.program("controlplane"), "--data-dir", filepath.Join(m.dir, "data"),
		"--grpc-addr", m.grpc, "--http-addr", m.http, "--otlp-endpoint", m.Spans.GRPCEndpoint(), "--drain-time", "500ms")
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.plane = p
	m.mu.Unlock()
	if m.grpc, err = p.Await(ctx, `control plane listens" grpc=(\S+)`); err != nil {
		return err
	}
	m.http, err = p.Await(ctx, `control plane listens" grpc=\S+ http=(\S+)`)
	return err
}

// KillControlPlane ends it with SIGKILL.
func (m *Mesh) KillControlPlane() { m.plane.Kill() }

func (m *Mesh) program(name string) string { return filepath.Join(m.bin, name) }

// clientName names the client's sidecar's log.
const clientName = "shop-sidecar"

// StartClient starts the sidecar of the client, which only calls.
func (m *Mesh) StartClient(ctx context.Context, traceRatio float64) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := m.startSidecar(clientName, "--service", "shop", "--instance-id", "shop-1", "--trace-ratio", fmt.Sprint(traceRatio),
		"--access-log", "json")
	if err != nil {
		return err
	}
	m.client = p
	if m.outbound, err = p.Await(ctx, `listener=outbound address=(\S+)`); err != nil {
		return err
	}
	m.admin, err = p.Await(ctx, `listener=admin address=(\S+)`)
	return err
}

func (m *Mesh) startSidecar(name string, args ...string) (*Process, error) {
	args = append([]string{
		"--control-plane", m.grpc, "--outbound-addr", "127.0.0.1:0",
		"--admin-addr", "127.0.0.1:0", "--otlp-endpoint", m.Spans.GRPCEndpoint(), "--access-log", "off",
	}, args...)
	return Start(m.dir, name, m.program("sidecar"), args...)
}

// StartInstance starts an instance of the orders service, and its sidecar.
func (m *Mesh) StartInstance(ctx context.Context, id string) error {
	return m.startBeside(ctx, &m.instances, "orders", id, nil, "--label", "version=v1")
}

// StartParty starts a service that takes part in sagas with one step, by which it is known here, and its sidecar.
func (m *Mesh) StartParty(ctx context.Context, service, step string) error {
	return m.startBeside(ctx, &m.parties, service, step, []string{"-step", step, "-db", filepath.Join(m.dir, service+".db")})
}

// startBeside starts an instance of a service beside a sidecar. It is among those of a list from then on.
func (m *Mesh) startBeside(ctx context.Context, among *[]*Instance, service, id string, ofApp []string, ofSidecar ...string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	app, err := Start(m.dir, id, m.program("demo/orders"), append([]string{"-instance", id}, ofApp...)...)
	if err != nil {
		return err
	}
	i := &Instance{ID: id, app: app}
	m.mu.Lock()
	*among = append(*among, i)
	m.mu.Unlock()
	if i.appAddr, err = app.Await(ctx, `listens on (\S+)`); err != nil {
		return err
	}
	i.sidecar, err = m.startSidecar(id+"-sidecar", append([]string{"--service", service, "--instance-id", id,
		"--app-addr", i.appAddr, "--inbound-addr", "127.0.0.1:0", "--health-path", "/health"}, ofSidecar...)...)
	if err != nil {
		return err
	}
	_, err = i.sidecar.Await(ctx, `msg=(registered)`)
	return err
}

// Instances returns the ids of those that run.
func (m *Mesh) Instances() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for _, i := range m.instances {
		ids = append(ids, i.ID)
	}
	return ids
}

// take removes an instance from those that run.
func (m *Mesh) take(id string) *Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := slices.IndexFunc(m.instances, func(i *Instance) bool { return i.ID == id })
	i := m.instances[n]
	m.instances = slices.Delete(m.instances, n, n+1)
	return i
}

// instance returns one of orders by its id, or one that takes part in sagas by its step.
func (m *Mesh) instance(id string) *Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Concat(m.instances, m.parties)
	return all[slices.IndexFunc(all, func(i *Instance) bool { return i.ID == id })]
}

// allParties returns those that take part in sagas.
func (m *Mesh) allParties() []*Instance {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.parties)
}

// KillInstance ends an instance and its sidecar with SIGKILL.
func (m *Mesh) KillInstance(id string) {
	i := m.take(id)
	i.sidecar.Kill()
	i.app.Kill()
}

// KillApp ends the application of an instance with SIGKILL, and nothing else.
func (m *Mesh) KillApp(id string) { m.instance(id).app.Kill() }

// RestartApp starts it again, where it was.
func (m *Mesh) RestartApp(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	i := m.instance(id)
	app, err := Start(m.dir, id+"-again", m.program("demo/orders"), "-instance", id, "-addr", i.appAddr)
	if err != nil {
		return err
	}
	m.mu.Lock()
	i.app = app
	m.mu.Unlock()
	_, err = app.Await(ctx, `listens on (\S+)`)
	return err
}

// StopInstance ends an instance as an orchestrator does: the sidecar with SIGTERM,
// which drains, then the application.
func (m *Mesh) StopInstance(id string) error { return m.take(id).stop() }

func (i *Instance) stop() error {
	var err error
	if i.sidecar != nil {
		err = i.sidecar.Stop()
	}
	return errors.Join(err, i.app.Stop())
}

// Stop ends everything in order, and returns what did not end well.
func (m *Mesh) Stop() error {
	var faults []error
	if m.client != nil {
		faults = append(faults, m.client.Stop())
	}
	var stopping sync.WaitGroup
	var mu sync.Mutex
	ending := m.allParties()
	for _, id := range m.Instances() {
		ending = append(ending, m.take(id))
	}
	for _, i := range ending {
		stopping.Go(func() {
			err := i.stop()
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, err)
		})
	}
	stopping.Wait()
	if m.plane != nil {
		faults = append(faults, m.plane.Stop())
	}
	return errors.Join(errors.Join(faults...), m.Spans.Close())
}

// NewDir makes a folder for a mesh, which the caller removes.
func NewDir() (string, error) { return os.MkdirTemp("", "fairlead-") }

// Outbound is where the client reaches its sidecar.
func (m *Mesh) Outbound() string { return m.outbound }

// FreeAddress returns a loopback address that nothing listens on (see freeport.Find).
func FreeAddress() (string, error) {
	port, err := freeport.Find()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}
