package discovery

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Run keeps this replica's own key alive, removes instances whose replica died, and
// records services that others wrote, until ctx ends. Call it once, when the view
// has seen its first snapshot.
func (r *Registry) Run(ctx context.Context) error {
	defer r.stop()
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	r.background(func() { r.stayAlive(alive) })
	r.background(func() {
		for r.pulse.beat(time.Now()); sleep(alive, beatInterval); {
			r.pulse.beat(time.Now())
		}
	})
	return r.tidy(ctx)
}

// stop ends what runs in the background, and waits for it.
func (r *Registry) stop() {
	r.mu.Lock()
	close(r.stopped)
	r.mu.Unlock()
	r.lost.Wait()
}

// stayAlive keeps the replica's key for as long as ctx lives.
func (r *Registry) stayAlive(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.beAlive(ctx); ctx.Err() == nil {
			r.log.Warn("this replica's lease was lost; making another", "error", err)
			sleep(ctx, time.Second)
		}
	}
}

// beAlive returns when the lease is lost.
func (r *Registry) beAlive(ctx context.Context) error {
	lease, err := r.store.Grant(ctx, replicaTTL)
	if err != nil {
		return err
	}
	defer r.revoke(ctx, lease.ID)
	_, err = r.store.Txn(ctx, store.Txn{Then: []store.Op{store.PutLeased(replicasPrefix+r.replica, []byte("{}"), lease.ID)}})
	if err != nil {
		return err
	}
	return store.KeepAlive(ctx, r.store, lease)
}

// tidy removes orphans that had their grace, and records services.
func (r *Registry) tidy(ctx context.Context) error {
	// Whoever attached an orphan and died too has a grace of its own.
	type orphan struct {
		Key
		owner string
	}
	since := map[orphan]time.Time{}
	for sleep(ctx, tidyInterval) {
		orphans := map[orphan]time.Time{}
		for _, o := range r.view.orphans(r.replica) {
			id := orphan{o.Key, o.Owner}
			first, known := since[id]
			if !known {
				first = time.Now()
			}
			orphans[id] = first
			if time.Since(first) >= orphanGrace {
				r.tidied("remove an instance whose control plane is gone", r.removeOrphan(ctx, o))
			}
		}
		since = orphans
		for _, s := range r.view.unrecorded() {
			r.tidied("record a service", r.adopt(ctx, s))
		}
	}
	return ctx.Err()
}

// tidied logs what failed; the next round tries again.
func (r *Registry) tidied(what string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		r.log.Warn("could not "+what, "error", err)
	}
}

func (r *Registry) removeOrphan(ctx context.Context, o *Record) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	result, err := r.store.Txn(ctx, store.Txn{
		If:   []store.Compare{store.ModifiedAt(o.Key.path(), o.Revision)},
		Then: []store.Op{store.Delete(o.Key.path())},
	})
	if err == nil && result.Held {
		r.log.Info("instance removed: nobody attached it again", "instance", o.Key.ID, "service", o.Key.Service.String(), "owner", o.Owner)
	}
	return err
}

// adopt records a service whose instances were written without it, or say more
// than it does.
func (r *Registry) adopt(ctx context.Context, s Service) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	compare, op, err := r.recordService(ctx, s.Name, s.Ports, tellsAll)
	if err != nil {
		return err
	}
	if op == nil { // a number went and came back
		r.view.noteRecorded(s)
		return nil
	}
	_, err = r.store.Txn(ctx, store.Txn{If: []store.Compare{compare}, Then: []store.Op{*op}})
	return err
}

// sleep returns false if ctx ended before d had passed.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// alive reports whether a replica of the control plane lives.
func (v *View) alive(replica string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.replicas[replica]
}

// orphans lists the attached instances whose replica is not alive. self always is:
// its key may not have come back through the mirror yet.
func (v *View) orphans(self string) []*Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []*Record
	for _, s := range v.services {
		for _, r := range s.instances {
			if r.Owner != "" && r.Owner != self && !v.replicas[r.Owner] {
				all = append(all, r)
			}
		}
	}
	return all
}

// unrecorded lists the services whose own key lacks something.
func (v *View) unrecorded() []Service {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []Service
	for name, s := range v.services {
		if !s.recorded {
			all = append(all, s.view(name))
		}
	}
	return all
}

// noteRecorded notes that the own key of a service says all that s does.
func (v *View) noteRecorded(s Service) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if now := v.services[s.Name]; now != nil && tellsAll(s.Ports, now.ports) {
		now.recorded = true
	}
}

// count returns how much room is taken for a key that is not there yet: of a
// service or an instance that is known already, it is 0.
func (v *View) count(key Key) (services, instances int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.services[key.Service]
	if s == nil {
		return len(v.services), 0
	}
	if s.instances[key.ID] != nil {
		return 0, 0
	}
	return 0, len(s.instances)
}
