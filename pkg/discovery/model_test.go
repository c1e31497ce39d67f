package discovery_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

// picture is what there is: instances by key with the revision that wrote them, and
// the services known, with 0.
type picture map[string]int64

func (p picture) of(f discovery.Filter) picture {
	part := picture{}
	for path, revision := range p {
		parts := strings.Split(path, "/")
		if (f.Namespace == "" || f.Namespace == parts[0]) && (f.Service == "" || f.Service == parts[1]) {
			part[path] = revision
		}
	}
	return part
}

func servicePath(s mesh.ServiceName) string { return s.Namespace + "/" + s.Name }

func instancePath(k discovery.Key) string { return servicePath(k.Service) + "/" + k.ID }

// follower is a client of a watch, which keeps what it was told.
type follower struct {
	filter  discovery.Filter
	watcher *discovery.Watcher
	token   string
	at      int64
	state   picture
	// past holds what was known at earlier tokens.
	past map[string]picture
}

// model drives a store at random, and knows what was true at each revision.
type model struct {
	t         *testing.T
	rand      *rand.Rand
	memory    *memstore.Store
	store     *storetest.Interrupter
	view      *discovery.View
	truth     map[int64]picture
	lease     store.LeaseID
	backup    memstore.Backup
	backupAt  int64
	followers []*follower
	told      map[string]int // events by kind
}

func TestEveryWatcherKnowsTheTruthAtEveryToken(t *testing.T) {
	told := map[string]int{}
	for seed := range uint64(25) {
		inBubble(t, func(t *testing.T, s *memstore.Store) {
			m := &model{t: t, rand: rand.New(rand.NewPCG(seed, 0)), memory: s, store: &storetest.Interrupter{Store: s}, truth: map[int64]picture{}, told: told}
			m.view = settled(newPlane(t, m.store, "r1")).view
			m.note()
			m.save()
			for _, f := range []discovery.Filter{{}, {}, {Namespace: "x"}, {Namespace: "y"}, {Namespace: "x", Service: "a"}, {Namespace: "x", Service: "b"}} {
				m.followers = append(m.followers, &follower{filter: f, watcher: m.view.Watch(f, ""), past: map[string]picture{}})
			}
			for step := range 300 {
				m.step()
				for _, f := range m.followers {
					m.follow(f)
				}
				if t.Failed() {
					t.Fatalf("seed %d, step %d", seed, step)
				}
			}
			for _, f := range m.followers {
				m.readAll(f)
				if want := m.truth[m.head()].of(f.filter); !maps.Equal(f.state, want) {
					t.Errorf("seed %d: at the end %+v knows\n%v, want\n%v", seed, f.filter, f.state, want)
				}
			}
		})
	}
	t.Logf("events told: %v", told)
	for _, kind := range []string{"snapshot", "revision", "bookmark", "resumed", "resumed from further back"} {
		if told[kind] < 50 {
			t.Errorf("%d of kind %q; the test does not test much", told[kind], kind)
		}
	}
}

func (m *model) head() int64 {
	head, err := m.memory.Head(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	return head.Revision
}

// note writes down what is true now.
func (m *model) note() {
	now := picture{}
	page, err := m.memory.List(context.Background(), store.ListRequest{Prefix: store.Root, Limit: store.MaxPageSize})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range page.Entries {
		if service, ok := strings.CutPrefix(e.Key, store.Root+"services/"); ok {
			now[service] = 0
		}
		if path, ok := strings.CutPrefix(e.Key, store.Root+"instances/"); ok {
			now[path] = e.ModRevision
		}
	}
	m.truth[page.Revision] = now
}

// pass lets time go by; a lease that ends meanwhile makes one revision.
func (m *model) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	m.note()
}

func (m *model) save() { m.backup, m.backupAt = m.memory.Backup(), m.head() }

// step does something to the store.
func (m *model) step() {
	switch n := m.rand.IntN(100); {
	case n < 80:
		m.write()
	case n < 83: // the instances with this lease go at one revision
		m.pass(6 * time.Second)
	case n < 86:
		m.save()
	case n < 88:
		// The mirror knows another past by the newest key that it knows of: see store.Mirror.
		txn(m.t, m.memory, store.Put(store.Root+"policies/x/a", fmt.Append(nil, m.rand.Uint64())))
		m.pass(0)
		m.memory.Restore(m.backup)
		for revision := range m.truth {
			if revision > m.backupAt {
				delete(m.truth, revision)
			}
		}
		m.lease = 0
		for range m.rand.IntN(4) {
			m.write()
		}
		m.pass(30 * time.Second)
	case n < 90: // what happens meanwhile cannot be followed one by one
		m.store.Cut()
		for range m.rand.IntN(6) {
			m.write()
		}
		_ = m.memory.Compact(context.Background(), m.head()) // it may be compacted already
		m.store.Restore()
		m.pass(30 * time.Second)
	case n < 93:
		m.memory.BreakWatches()
		m.write()
		m.pass(30 * time.Second)
	}
	synctest.Wait()
}

// write makes one revision of one to three services.
func (m *model) write() {
	var ops []store.Op
	for _, service := range []string{"x/a", "x/b", "y/a"} {
		if len(ops) > 0 && m.rand.IntN(3) > 0 {
			continue
		}
		prefix := store.Root + "instances/" + service + "/"
		if m.rand.IntN(30) == 0 { // forgotten
			ops = append(ops, store.DeletePrefix(prefix), store.Delete(store.Root+"services/"+service))
			continue
		}
		ops = append(ops, store.Put(store.Root+"services/"+service, []byte(`{}`)))
		for n := range 3 {
			switch path := fmt.Sprint(prefix, n); m.rand.IntN(6) {
			case 0:
				ops = append(ops, store.Put(path, value("10.0.0.1")))
			case 1:
				ops = append(ops, store.PutLeased(path, value("10.0.0.2"), m.someLease()))
			case 2:
				ops = append(ops, store.Delete(path))
			}
		}
	}
	txn(m.t, m.memory, ops...)
	m.note()
}

func (m *model) someLease() store.LeaseID {
	if m.lease == 0 || !lives(m.t, m.memory, m.lease) {
		l, err := m.memory.Grant(context.Background(), 5*time.Second)
		if err != nil {
			m.t.Fatal(err)
		}
		m.lease = l.ID
	}
	return m.lease
}

// follow lets a client read as much as it likes, wait, or begin again where it was or
// further back.
func (m *model) follow(f *follower) {
	switch n := m.rand.IntN(20); {
	case n < 8:
		m.readAll(f)
	case n < 12:
		m.read(f)
	case n < 14:
		m.told["resumed"]++
		f.watcher = m.view.Watch(f.filter, f.token)
	case n < 15:
		for token, state := range f.past {
			m.told["resumed from further back"]++
			f.token, f.state, f.at = token, state, 0
			f.watcher = m.view.Watch(f.filter, token)
			break
		}
	case n < 16 && f.token != "":
		m.pass(6 * time.Second) // the lease is gone
		m.readAll(f)
		e, err := f.watcher.Next(context.Background()) // nothing happens but time
		if err != nil || !e.Bookmark {
			m.t.Errorf("%q, %v; want a bookmark", describe(e), err)
		}
		m.take(f, e)
	}
}

func (m *model) readAll(f *follower) {
	for m.read(f) {
	}
}

func (m *model) read(f *follower) bool {
	e, ok := poll(m.t, f.watcher)
	if ok {
		m.take(f, e)
	}
	return ok
}

// take brings a client's state up to date, and compares it with the truth.
func (m *model) take(f *follower, e discovery.Event) {
	before := f.state
	if f.state = maps.Clone(f.state); e.Snapshot {
		f.state = picture{}
	}
	for _, s := range e.Services {
		f.state[servicePath(s)] = 0
	}
	for _, r := range e.Changed {
		if !e.Snapshot && r.Revision != e.Revision {
			m.t.Errorf("%q tells of revision %d", describe(e), r.Revision)
		}
		f.state[instancePath(r.Key)] = r.Revision
	}
	for _, k := range e.Removed {
		if _, there := f.state[instancePath(k)]; !there {
			m.t.Errorf("%q removes what is not there", describe(e))
		}
		delete(f.state, instancePath(k))
	}
	if want := m.truth[e.Revision].of(f.filter); !maps.Equal(f.state, want) {
		m.t.Errorf("%+v after %q knows\n%v, want\n%v", f.filter, describe(e), f.state, want)
	}
	kind := "revision"
	switch {
	case e.Snapshot:
		kind = "snapshot"
	case e.Bookmark:
		kind = "bookmark"
	default:
		m.inOrder(f, e, before)
	}
	m.told[kind]++
	f.token, f.at = e.Token, e.Revision
	f.past[e.Token] = f.state
}

// inOrder checks that nothing was doubled, and that nothing that concerns the client
// happened between its last event and this one.
func (m *model) inOrder(f *follower, e discovery.Event, before picture) {
	if e.Revision <= f.at {
		m.t.Errorf("%q after revision %d", describe(e), f.at)
	}
	if maps.Equal(f.state, before) {
		m.t.Errorf("%q changes nothing", describe(e))
	}
	if then, known := m.truth[e.Revision-1]; known && !maps.Equal(then.of(f.filter), before) {
		m.t.Errorf("%q comes after revisions that were left out", describe(e))
	}
}
