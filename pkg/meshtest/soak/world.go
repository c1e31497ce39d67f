package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/certs"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

const (
	startTime = 30 * time.Second // bounds the start of a process
	// drainTime is how long a sidecar that is told to stop lets streams go on.
	drainTime = 3 * time.Second
)

// The services. Instances of web, rpc and cache are killed and come back, those of the others are left
// alone.
const (
	web         = "web"
	rpc         = "rpc"
	cache       = "cache"
	steady      = "steady"
	steadyRPC   = "steadyrpc"
	steadyCache = "steadycache"
)

// instance is an application and its sidecar. The process fields are changed by the one goroutine
// that breaks things, after the start.
type instance struct {
	service, id string
	protocol    string // what the sidecar is told that the application speaks: http, grpc or tcp
	address     string // of the application: an IP address of its own, so that all have the same ports
	app         *play.Process
	sidecar     *play.Process
}

// sidecar is one that is never killed.
type sidecar struct {
	name     string
	process  *play.Process
	admin    string // host:port
	outbound string
	// Where a client's sidecar takes connections for cache and steadyCache.
	cache, steadyCache string
}

// world is all processes.
type world struct {
	bin, dir   string
	self       string // this program, which is the applications, too
	grpc, http string // of the control plane
	ports      struct{ http, grpc, tcp string }
	authority  *certs.Authority

	mu    sync.Mutex
	plane *play.Process // guarded by mu

	instances []*instance
	extra     *play.Process // an application without a sidecar, registered and deregistered through the API
	clients   []sidecar     // through which the load goes
	kept      []sidecar     // beside applications that are never killed
	edges     []sidecar
	edge      struct {
		secure, plain string // HTTP
		tcp           string // relayed to the applications
		secureTCP     string // relayed to the other one over mutual TLS, and from there to the applications
	}
}

// extraAddress is the IP address of the application without a sidecar.
const extraAddress = "127.0.0.30"

// start starts a world of the programs in bin. Its logs are in dir. The caller must stop it,
// also after an error.
func (w *world) start(ctx context.Context) error {
	var err error
	if w.self, err = os.Executable(); err != nil {
		return err
	}
	for _, at := range []*string{&w.grpc, &w.http, &w.ports.http, &w.ports.grpc, &w.ports.tcp, &w.edge.secure, &w.edge.plain, &w.edge.tcp, &w.edge.secureTCP} {
		if *at, err = play.FreeAddress(); err != nil {
			return err
		}
	}
	for _, port := range []*string{&w.ports.http, &w.ports.grpc, &w.ports.tcp} {
		if _, *port, err = net.SplitHostPort(*port); err != nil {
			return err
		}
	}
	if err := w.startPlane(ctx); err != nil {
		return err
	}
	if w.extra, err = w.startApp(ctx, "extra", extraAddress); err != nil {
		return err
	}
	for _, s := range []struct {
		service  string
		n        int
		protocol string
		isKept   bool
	}{
		{web, 3, "http", false}, {rpc, 2, "grpc", false}, {cache, 2, "tcp", false},
		{steady, 2, "http", true}, {steadyRPC, 2, "grpc", true}, {steadyCache, 1, "tcp", true},
	} {
		for n := range s.n {
			i := &instance{service: s.service, id: fmt.Sprintf("%s-%d", s.service, n+1), protocol: s.protocol, address: fmt.Sprintf("127.0.0.%d", 10+len(w.instances))}
			w.instances = append(w.instances, i)
			if err := errors.Join(w.startAppOf(ctx, i), w.startSidecarOf(ctx, i)); err != nil {
				return err
			}
			if s.isKept {
				admin, err := i.sidecar.Await(ctx, `listener=admin address=(\S+)`)
				if err != nil {
					return err
				}
				w.kept = append(w.kept, sidecar{name: i.id, process: i.sidecar, admin: admin})
			}
		}
	}
	for _, name := range []string{"shop-1", "shop-2"} {
		if err := w.startClient(ctx, name); err != nil {
			return err
		}
	}
	return w.startEdges(ctx)
}

// startClient starts a sidecar beside which there are clients only.
func (w *world) startClient(ctx context.Context, name string) error {
	w.clients = append(w.clients, sidecar{name: name})
	c := &w.clients[len(w.clients)-1]
	var err error
	for _, at := range []*string{&c.cache, &c.steadyCache} {
		if *at, err = play.FreeAddress(); err != nil {
			return err
		}
	}
	if c.process, err = w.startSidecar(name, "--service", "shop", "--instance-id", name, "--outbound-addr", "127.0.0.1:0",
		"--tcp-upstream", c.cache+"="+cache, "--tcp-upstream", c.steadyCache+"="+steadyCache); err != nil {
		return err
	}
	if c.outbound, err = c.process.Await(ctx, `listener=outbound address=(\S+)`); err != nil {
		return err
	}
	c.admin, err = c.process.Await(ctx, `listener=admin address=(\S+)`)
	return err
}

func (w *world) startPlane(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := play.Start(w.dir, "controlplane", w.program("controlplane"), "--data-dir", filepath.Join(w.dir, "data"),
		"--grpc-addr", w.grpc, "--http-addr", w.http, "--drain-time", "500ms")
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.plane = p
	w.mu.Unlock()
	_, err = p.Await(ctx, `(control plane listens)`)
	return err
}

func (w *world) controlPlane() *play.Process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.plane
}

func (w *world) program(name string) string { return filepath.Join(w.bin, name) }

func (w *world) startApp(ctx context.Context, id, address string) (*play.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	p, err := play.Start(w.dir, id, w.self, "-app", id, "-app-http", net.JoinHostPort(address, w.ports.http),
		"-app-grpc", net.JoinHostPort(address, w.ports.grpc), "-app-tcp", net.JoinHostPort(address, w.ports.tcp))
	if err != nil {
		return nil, err
	}
	_, err = p.Await(ctx, `(listens)`)
	return p, err
}

func (w *world) startAppOf(ctx context.Context, i *instance) (err error) {
	i.app, err = w.startApp(ctx, i.id, i.address)
	return err
}

// startSidecarOf starts the sidecar beside an instance, and waits until it is registered.
func (w *world) startSidecarOf(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	port, health := w.ports.http, "/health"
	switch i.protocol {
	case "grpc":
		port, health = w.ports.grpc, ""
	case "tcp":
		port, health = w.ports.tcp, ""
	}
	var err error
	i.sidecar, err = w.startSidecar(i.id+"-sidecar", "--service", i.service, "--instance-id", i.id, "--app-addr", net.JoinHostPort(i.address, port),
		"--app-protocol", i.protocol, "--health-path", health, "--inbound-addr", "127.0.0.1:0", "--outbound-addr", "127.0.0.1:0",
		"--drain-timeout", drainTime.String())
	if err != nil {
		return err
	}
	_, err = i.sidecar.Await(ctx, `msg=(registered)`)
	return err
}

func (w *world) startSidecar(name string, args ...string) (*play.Process, error) {
	return play.Start(w.dir, name, w.program("sidecar"),
		append([]string{"--control-plane", w.grpc, "--admin-addr", "127.0.0.1:0", "--access-log", "off"}, args...)...)
}

// serverName is what the certificates of the edges are for.
const serverName = "edge.soak"

// startEdges starts the two sidecars that serve bootstrap files, which the first needs for TLS to
// clients, and both for mutual TLS between them.
func (w *world) startEdges(ctx context.Context) error {
	var err error
	if w.authority, err = certs.NewAuthority("soak"); err != nil {
		return err
	}
	if err := w.authority.Write(w.dir, serverName); err != nil {
		return err
	}
	var inner, innerTCP string
	for _, at := range []*string{&inner, &innerTCP} {
		if *at, err = play.FreeAddress(); err != nil {
			return err
		}
	}
	var webs, relays []string
	for _, i := range w.instances {
		if i.service == web {
			webs = append(webs, net.JoinHostPort(i.address, w.ports.http))
			relays = append(relays, net.JoinHostPort(i.address, w.ports.tcp))
		}
	}
	outer := bootstrap{
		node: "edge-1",
		listeners: []string{
			httpListener("secure", w.edge.secure, "inner", w.dir, false),
			httpListener("plain", w.edge.plain, "inner", "", false),
			tcpListener("relay", w.edge.tcp, "relay", "", false),
			tcpListener("relay-secure", w.edge.secureTCP, "inner-relay", "", false),
		},
		clusters: []string{clusterOf("inner", w.dir, inner), clusterOf("relay", "", relays...), clusterOf("inner-relay", w.dir, innerTCP)},
	}
	second := bootstrap{
		node:      "edge-2",
		listeners: []string{httpListener("inner", inner, "web", w.dir, true), tcpListener("inner-relay", innerTCP, "relay", w.dir, true)},
		clusters:  []string{clusterOf("web", "", webs...), clusterOf("relay", "", relays...)},
	}
	for _, b := range []bootstrap{second, outer} {
		path := filepath.Join(w.dir, b.node+".yaml")
		if err := os.WriteFile(path, []byte(b.yaml()), 0o600); err != nil {
			return err
		}
		s := sidecar{name: b.node}
		if s.process, err = play.Start(w.dir, b.node, w.program("sidecar"), "--bootstrap", path, "--access-log", "off", "--admin-addr", "127.0.0.1:0"); err != nil {
			return err
		}
		w.edges = append(w.edges, s)
		if w.edges[len(w.edges)-1].admin, err = s.process.Await(ctx, `listener=admin address=(\S+)`); err != nil {
			return err
		}
	}
	return nil
}

// watched returns the sidecars that nobody kills.
func (w *world) watched() []sidecar {
	all := append([]sidecar(nil), w.clients...)
	return append(append(all, w.kept...), w.edges...)
}

// of returns the instances of services.
func (w *world) of(services ...string) []*instance {
	var found []*instance
	for _, i := range w.instances {
		for _, s := range services {
			if i.service == s {
				found = append(found, i)
			}
		}
	}
	return found
}

// stop ends everything in order, and returns what did not end well. Sidecars have nothing to do
// any more, so that each ends with code 0.
func (w *world) stop() error {
	var first, then []*play.Process
	for _, s := range append(append([]sidecar(nil), w.edges...), w.clients...) {
		first = append(first, s.process)
	}
	for _, i := range w.instances {
		first, then = append(first, i.sidecar), append(then, i.app)
	}
	return errors.Join(stopAll(first), stopAll(append(then, w.extra, w.controlPlane())))
}

func stopAll(all []*play.Process) error {
	faults := make([]error, len(all))
	var stopping sync.WaitGroup
	for n, p := range all {
		if p != nil {
			stopping.Go(func() { faults[n] = p.Stop() })
		}
	}
	stopping.Wait()
	return errors.Join(faults...)
}
