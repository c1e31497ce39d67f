package call

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/tracing"
)

// idleTime is how long a connection to an instance lies idle: less than servers let it, of which many end it after two seconds. A call that
// goes out as its connection is ended has no outcome that is known. And those to instances that are gone end by it.
const idleTime = time.Second

// Direct makes calls to the instances of services, where those take requests: at their sidecars, if they have any, else themselves. It balances,
// and breaks circuits, by the policies of the services. It keeps something only of services that were called, and of instances
// that are registered. It starts no goroutine, and is safe for concurrent use.
type Direct struct {
	lookup func(mesh.ServiceName) (translate.Service, bool)
	born   time.Time // when its clock begins
	wire   wire
	log    *slog.Logger

	mu       sync.Mutex
	services map[mesh.ServiceName]*service // guarded by mu; those that were called
}

// service is what is known of one that was called. It is guarded by Direct.mu.
type service struct {
	told     bool // what follows is known
	ports    []translate.Port
	clusters map[string]*cluster // by the names of ports
}

// NewDirect returns calls to instances. lookup returns what is known of a service, false if that is nothing; Changed is told of what changes. Each
// call is a span of tracer, below the one that its saga was started in. log is told of breakers that open and close.
func NewDirect(lookup func(mesh.ServiceName) (translate.Service, bool), tracer *tracing.Tracer, log *slog.Logger) *Direct {
	d := &Direct{lookup: lookup, log: log, born: time.Now(), services: map[mesh.ServiceName]*service{}}
	d.wire.configure(tracer, idleTime)
	return d
}

// Close closes the connections that are idle.
func (d *Direct) Close() { d.wire.close() }

// Call implements coordinator.Caller.
func (d *Direct) Call(ctx context.Context, r *coordinator.Request) saga.Outcome {
	return d.wire.call(ctx, r, func() (target, error) { return d.find(r.Call) })
}

// Changed says that a service is, from now on, as it is described, or, if it is not known, that it is gone. It does not block.
func (d *Direct) Changed(described translate.Service, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.services[described.Name]
	switch {
	case s == nil: // nobody has called it
	case known:
		s.set(described, d.now(), d.log)
	default:
		s.set(translate.Service{}, d.now(), d.log)
		delete(d.services, described.Name)
	}
}

// now is the time by which breakers go.
func (d *Direct) now() int64 { return int64(time.Since(d.born)) }

// find returns an instance for a call. Its error says why there is none.
func (d *Direct) find(call *saga.Call) (target, error) {
	to, err := mesh.ParseDestination(call.Service)
	if err != nil {
		return target{}, err
	}
	d.mu.Lock()
	s := d.services[to.Service]
	if s == nil {
		s = &service{clusters: map[string]*cluster{}}
		d.services[to.Service] = s // so that Changed is heard from here on
	}
	told := s.told
	d.mu.Unlock()
	if !told {
		described, known := d.lookup(to.Service) // without the lock, for who calls Changed may have to be waited for
		d.mu.Lock()
		switch {
		case s.told: // meanwhile, of what is newer
		case known:
			s.set(described, d.now(), d.log)
		case d.services[to.Service] == s:
			delete(d.services, to.Service)
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := s.cluster(to)
	if err != nil {
		return target{}, err
	}
	return c.begin(to.Service, d.now)
}

// set makes a service what is described.
func (s *service) set(described translate.Service, now int64, log *slog.Logger) {
	s.told, s.ports = true, described.Ports
	for name, c := range s.clusters {
		if !slices.ContainsFunc(described.Ports, func(p translate.Port) bool { return p.Name == name }) {
			c.set(nil, described.Policy, now)
			delete(s.clusters, name)
		}
	}
	for _, p := range described.Ports {
		if !p.Protocol.IsHTTP() {
			continue
		}
		c := s.clusters[p.Name]
		if c == nil {
			c = newCluster(log.With("cluster", mesh.ClusterName(described.Name, p.Name)))
			s.clusters[p.Name] = c
		}
		c.http2 = p.Protocol != mesh.ProtocolHTTP
		c.set(described.Endpoints(p.Name), described.Policy, now)
	}
}

// cluster returns the instances at the port of a destination: the first HTTP port if it names none.
func (s *service) cluster(to mesh.Destination) (*cluster, error) {
	if !s.told {
		return nil, fmt.Errorf("service %s was never registered", to.Service)
	}
	at := slices.IndexFunc(s.ports, func(p translate.Port) bool {
		if to.Port == "" {
			return p.Protocol.IsHTTP()
		}
		return p.Name == to.Port || strconv.Itoa(int(p.Number)) == to.Port
	})
	switch {
	case at < 0 && to.Port == "":
		return nil, fmt.Errorf("service %s has no HTTP port", to.Service)
	case at < 0:
		return nil, fmt.Errorf("service %s has no port %s", to.Service, to.Port)
	}
	if c := s.clusters[s.ports[at].Name]; c != nil {
		return c, nil
	}
	return nil, errors.New("port " + to.Port + " of service " + to.Service.String() + " is no HTTP port")
}
