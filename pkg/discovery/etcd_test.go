package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// process is a control plane's registry with the etcd inside it.
type process struct {
	*plane
	etcd *etcdembed.Server
}

func startProcess(t *testing.T, dir, replica string) process {
	t.Helper()
	etcd, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = etcd.Stop() }) // if the test has not come to it
	p := process{newPlane(t, etcd.Store(), replica), etcd}
	p.eventually("the first snapshot", func() bool { _, synced := p.view.Revision(); return synced })
	p.run()
	return p
}

// end stops the process as a signal would.
func (p process) end() {
	p.t.Helper()
	p.stop()
	if err := p.etcd.Stop(); err != nil {
		p.t.Error(err)
	}
}

// eventually waits for what has no event to wait for.
func (p process) eventually(what string, holds func() bool) {
	p.t.Helper()
	for range 600 {
		if holds() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("within 30 s not: %s; instances %s", what, p.ids())
}

func TestTheRegistryOnARealEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts etcd twice and waits for a lease to expire")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	p := startProcess(t, dir, "first")
	w := p.view.Watch(discovery.Filter{}, "")
	if e, err := w.Next(ctx); err != nil || !e.Snapshot {
		t.Fatalf("%q, %v; want a snapshot", describe(e), err)
	}
	p.mustRegister(withTTL(instance("leased"), 3600))
	old := leaseOf(t, p.raw, "leased")
	p.mustRegister(withTTL(instance("leased"), 5))
	if lives(t, p.raw, old) {
		t.Error("the lease of the registration that was replaced lives on")
	}
	if ttl, err := p.registry.Renew(ctx, key("leased")); err != nil || ttl != 5*time.Second {
		t.Errorf("renewed for %v, %v", ttl, err)
	}
	p.mustAttach(instance("lost")).Broke()
	a := p.mustAttach(instance("attached"))
	if err := a.SetStatus(ctx, meshv1.Status_DRAINING); err != nil {
		t.Error(err)
	}
	txn(t, p.raw, store.Put(path("manual"), value("10.0.0.1")))
	p.eventually("the lease has expired, and the lost one is removed", func() bool { return p.ids() == "[attached manual]" })
	if _, err := p.registry.Renew(ctx, key("leased")); !errors.Is(err, discovery.ErrNotFound) {
		t.Errorf("renewing what has expired: %v, want ErrNotFound", err)
	}

	// What the watcher was told adds up to what there is.
	told := map[string]bool{}
	for len(told) != 2 || !told["attached"] || !told["manual"] {
		e, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("told of %v, then %v", told, err)
		}
		for _, r := range e.Changed {
			told[r.Key.ID] = true
		}
		for _, k := range e.Removed {
			delete(told, k.ID)
		}
	}
	token := newestToken(t, p)
	p.end()

	p = startProcess(t, dir, "second")
	p.wantIDs("after the restart", "[attached manual]")
	r, _ := p.view.Instance(key("attached"))
	if r.Owner != "first" || r.Instance.GetStatus() != meshv1.Status_DRAINING {
		t.Errorf("after the restart: %+v", r)
	}
	w = p.view.Watch(discovery.Filter{}, token)
	p.mustRegister(withTTL(instance("new"), 3600))
	if e, err := w.Next(ctx); err != nil || e.Snapshot || len(e.Changed) != 1 || e.Changed[0].Key.ID != "new" {
		t.Errorf("a token of before got %q, %v; want what happened since", describe(e), err)
	}
	if _, err := p.registry.Deregister(ctx, key("new")); err != nil {
		t.Error(err)
	}
	first := a.Instance().GetRegisteredAt().AsTime()
	a = p.mustAttach(instance("attached"))
	if !a.Instance().GetRegisteredAt().AsTime().Equal(first) {
		t.Errorf("registered at %v, want %v, when it was first", a.Instance().GetRegisteredAt().AsTime(), first)
	}
	if err := a.Detach(ctx); err != nil {
		t.Error(err)
	}
	p.wantIDs("after its good-bye", "[manual]")
	p.end()
}

// newestToken returns the token of the newest state.
func newestToken(t *testing.T, p process) string {
	t.Helper()
	e, ok := poll(t, p.view.Watch(discovery.Filter{}, ""))
	if !ok {
		t.Fatal("no snapshot")
	}
	return e.Token
}

func TestManyWhoRegisterOneServiceAtOnceOnARealEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts etcd")
	}
	p := startProcess(t, t.TempDir(), "first")
	var all sync.WaitGroup
	const instances = 60
	for n := range instances {
		all.Go(func() {
			i := instance(fmt.Sprint("a", n))
			i.Ports[0].Number = uint32(9000 + n) // each on a port of its own, as on one machine
			if _, err := p.registry.Register(t.Context(), i); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, _ := p.view.Service(orders()); len(s.Instances) != instances {
		t.Errorf("%d instances, want %d", len(s.Instances), instances)
	}
	p.end()
}
