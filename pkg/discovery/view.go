package discovery

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// View is the registry in memory, as of a revision. It is safe for concurrent use.
type View struct {
	log    *slog.Logger
	domain string // of the identities that are taken; "": any

	mu       sync.Mutex
	synced   bool                          // guarded by mu
	cluster  uint64                        // guarded by mu
	revision int64                         // guarded by mu
	inForce  int64                         // guarded by mu; see Settle
	sum      uint64                        // guarded by mu; of all that watchers are told, see history
	services map[mesh.ServiceName]*service // guarded by mu
	replicas map[string]bool               // guarded by mu; alive
	faulty   map[string]string             // guarded by mu; why, by key
	moved    chan struct{}                 // guarded by mu; closed and renewed when inForce moves
	history  history                       // guarded by mu
	holds    map[Key]map[*hold]struct{}    // guarded by mu
}

// hold waits for a record to be no longer what its holder has written.
type hold struct {
	own  func(*Record) bool // nil is passed for one that is gone
	lost chan struct{}
}

// service is what is known of one.
type service struct {
	ports     []*meshv1.Port
	recorded  bool // its own key says all of ports
	instances map[string]*Record
	revision  int64
}

// NewView returns an empty view. Instances whose identity is not of trustDomain are set
// aside; empty: of any.
func NewView(log *slog.Logger, trustDomain string) *View {
	return &View{
		log:      log,
		domain:   trustDomain,
		services: map[mesh.ServiceName]*service{},
		replicas: map[string]bool{},
		faulty:   map[string]string{},
		moved:    make(chan struct{}),
		holds:    map[Key]map[*hold]struct{}{},
	}
}

// Changes is what a batch changed.
type Changes struct {
	Services []mesh.ServiceName // sorted
	// Lost are the instances that nobody saw leave: the lease ran out, the stream fell
	// silent, or the control plane died that held it. Who says good-bye, is removed
	// through the API, drains, or whose connection broke, is not among them, nor one
	// that had no lease and was deleted by hand.
	Lost []*Record
}

// Apply takes in what the mirror delivers: one batch, or several at once, between
// which nobody sees it. A snapshot is a batch of all there is. Whoever calls it calls
// Settle when what depends on these services has followed.
func (v *View) Apply(batches ...store.Batch) Changes {
	v.mu.Lock()
	defer v.mu.Unlock()
	touched := map[mesh.ServiceName]bool{}
	var lost []*Record
	for _, b := range batches {
		lost = append(lost, v.apply(b, touched)...)
	}
	return Changes{Services: slices.SortedFunc(maps.Keys(touched), compareNames), Lost: lost}
}

// apply notes which services a batch touches, and returns who was lost.
func (v *View) apply(b store.Batch, touched map[mesh.ServiceName]bool) (lost []*Record) {
	r := revision{number: b.Revision, touched: touched}
	departed := departedIn(b.Puts)
	for _, path := range b.Deletes {
		if gone := v.remove(path, &r); gone != nil && gone.losable() && !departed[gone.Key] {
			lost = append(lost, gone)
		}
	}
	for _, e := range b.Puts {
		v.put(e, &r)
	}
	if r.sum = v.sum; v.follows(b, &r) {
		v.history.add(r)
	} else {
		v.history.restart(b.Revision, v.sum)
		v.inForce = min(v.inForce, b.Revision)
	}
	v.cluster, v.revision, v.synced = b.ClusterID, b.Revision, true
	return lost
}

// follows reports whether a batch is the next revision after what was before. It is
// not if it comes from another store, from an older state of this one, or stands for
// any number of revisions: then watchers begin anew, from a snapshot.
func (v *View) follows(b store.Batch, r *revision) bool {
	if !v.synced || b.ClusterID != v.cluster || b.Revision < v.revision || r.forgot {
		return false
	}
	return !b.Synthetic || r.empty()
}

// Settle says that everything up to the revision applied last is in force: Await
// and the watchers learn of it now, so that nobody is told of a change that the
// data planes are not being told of. Only a snapshot may be ahead of that.
func (v *View) Settle() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inForce = v.revision
	close(v.moved)
	v.moved = make(chan struct{})
}

// Await blocks until a revision is in force, or ctx ends.
func (v *View) Await(ctx context.Context, revision int64) error {
	for {
		v.mu.Lock()
		done, moved := v.inForce >= revision, v.moved
		v.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func compareNames(a, b mesh.ServiceName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func (v *View) put(e store.Entry, r *revision) {
	switch {
	case strings.HasPrefix(e.Key, instancesPrefix):
		v.putInstance(e, r)
	case strings.HasPrefix(e.Key, servicesPrefix):
		name, ok := serviceOf(e.Key)
		ports, err := decodeService(e.Value)
		if !ok || err != nil {
			v.setAside(e.Key, "not a service")
			return
		}
		delete(v.faulty, e.Key)
		s := v.service(name, r)
		s.ports, _ = mergePorts(s.ports, ports)
		_, more := mergePorts(ports, s.ports)
		s.recorded, s.revision = !more, max(s.revision, e.ModRevision) // a listing is in the order of keys
		r.touched[name] = true
	case strings.HasPrefix(e.Key, replicasPrefix):
		v.replicas[strings.TrimPrefix(e.Key, replicasPrefix)] = true
	}
}

func (v *View) putInstance(e store.Entry, r *revision) {
	record, err := decode(e, v.domain)
	if err != nil {
		// The instance that was there goes on as it was: a slip of the pen is no reason
		// to stop its traffic.
		v.setAside(e.Key, err.Error())
		return
	}
	delete(v.faulty, e.Key)
	s := v.service(record.Key.Service, r)
	var more bool
	if s.ports, more = mergePorts(s.ports, record.Instance.GetPorts()); more {
		s.recorded = false
	}
	if old := s.instances[record.Key.ID]; old != nil {
		v.sum ^= old.sum
	}
	v.sum ^= record.sum
	s.instances[record.Key.ID] = record
	v.tellHolders(record.Key, record)
	s.revision = max(s.revision, e.ModRevision)
	r.changed = append(r.changed, record)
	r.touched[record.Key.Service] = true
}

func (v *View) service(name mesh.ServiceName, r *revision) *service {
	s := v.services[name]
	if s == nil {
		s = &service{instances: map[string]*Record{}}
		v.services[name] = s
		v.sum ^= sum(servicePath(name), 0, nil)
		r.services = append(r.services, name)
	}
	return s
}

// remove returns the instance that was there, if the path is one's.
func (v *View) remove(path string, r *revision) (gone *Record) {
	delete(v.faulty, path)
	switch {
	case strings.HasPrefix(path, instancesPrefix):
		key, ok := keyOf(path)
		s := v.services[key.Service]
		if !ok || s == nil || s.instances[key.ID] == nil {
			return nil
		}
		gone = s.instances[key.ID]
		v.sum ^= gone.sum
		delete(s.instances, key.ID)
		v.tellHolders(key, nil)
		s.revision = r.number
		r.removed = append(r.removed, key)
		r.touched[key.Service] = true
	case strings.HasPrefix(path, servicesPrefix):
		name, ok := serviceOf(path)
		s := v.services[name]
		if !ok || s == nil {
			return nil
		}
		if s.recorded = false; len(s.instances) == 0 {
			delete(v.services, name)
			v.sum ^= sum(servicePath(name), 0, nil)
			r.forgot = true
		}
		r.touched[name] = true
	case strings.HasPrefix(path, replicasPrefix):
		delete(v.replicas, strings.TrimPrefix(path, replicasPrefix))
	}
	return gone
}

// losable reports whether the record could go without anybody's doing, and was meant
// to stay.
func (r *Record) losable() bool {
	return (r.Owner != "" || r.Lease != 0) && r.Instance.GetStatus() != meshv1.Status_DRAINING
}

// setAside notes a value that cannot be read.
func (v *View) setAside(path, why string) {
	if v.faulty[path] != why {
		v.log.Warn("value set aside", "key", path, "reason", why)
	}
	v.faulty[path] = why
}

// Service is a service as of a revision. Its parts are shared: do not change them.
type Service struct {
	Name      mesh.ServiceName
	Ports     []*meshv1.Port
	Instances []*Record // sorted by id
	Revision  int64     // that last changed it
}

// Service returns a service, false if it was never known.
func (v *View) Service(name mesh.ServiceName) (Service, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.services[name]
	if s == nil {
		return Service{}, false
	}
	return s.view(name), true
}

func (s *service) view(name mesh.ServiceName) Service {
	return Service{
		Name:  name,
		Ports: s.ports,
		Instances: slices.SortedFunc(maps.Values(s.instances), func(a, b *Record) int {
			return cmp.Compare(a.Key.ID, b.Key.ID)
		}),
		Revision: s.revision,
	}
}

// Services lists the services of a namespace, or of all if it is empty, sorted,
// and the revision they are of.
func (v *View) Services(namespace string) ([]Service, int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := []Service{}
	for _, name := range slices.SortedFunc(maps.Keys(v.services), compareNames) {
		if namespace == "" || name.Namespace == namespace {
			all = append(all, v.services[name].view(name))
		}
	}
	return all, v.revision
}

// Instance returns a live instance.
func (v *View) Instance(k Key) (*Record, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s := v.services[k.Service]; s != nil {
		r, ok := s.instances[k.ID]
		return r, ok
	}
	return nil, false
}

// hold returns a channel that is closed when the record of a key is not own, or is no
// longer, unless ctx ends before.
func (v *View) hold(ctx context.Context, k Key, own func(*Record) bool) <-chan struct{} {
	h := &hold{own: own, lost: make(chan struct{})}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.holds[k] == nil {
		v.holds[k] = map[*hold]struct{}{}
	}
	v.holds[k][h] = struct{}{}
	var now *Record
	if s := v.services[k.Service]; s != nil {
		now = s.instances[k.ID]
	}
	v.tellHolders(k, now)
	context.AfterFunc(ctx, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.letGo(k, h)
	})
	return h.lost
}

// tellHolders tells those whose record it is no longer.
func (v *View) tellHolders(k Key, now *Record) {
	for h := range v.holds[k] {
		if !h.own(now) {
			close(h.lost)
			v.letGo(k, h)
		}
	}
}

func (v *View) letGo(k Key, h *hold) {
	if delete(v.holds[k], h); len(v.holds[k]) == 0 {
		delete(v.holds, k)
	}
}

// held reports whether somebody holds a record.
func (v *View) held(r *Record) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for h := range v.holds[r.Key] {
		if h.own(r) {
			return true
		}
	}
	return false
}

// Faulty lists the keys whose values were set aside, and why.
func (v *View) Faulty() map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.faulty)
}

// Revision returns the newest revision seen, and whether the first snapshot has come.
func (v *View) Revision() (revision int64, synced bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.revision, v.synced
}
