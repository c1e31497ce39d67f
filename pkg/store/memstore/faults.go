package memstore

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// faults is what tests asked for.
type faults struct {
	down    bool
	stalled bool
	unknown []bool // for each of the next transactions: applied or not
}

// takeUnknown returns whether the next transaction shall be applied, and the error it shall report, if any.
func (f *faults) takeUnknown() (apply bool, unknown error) {
	if len(f.unknown) == 0 {
		return true, nil
	}
	apply = f.unknown[0]
	f.unknown = f.unknown[1:]
	return apply, fmt.Errorf("%w: by request", store.ErrUnknownOutcome)
}

// FailNextTxn makes the next transaction (of several calls, the one after those already due to fail) end with store.ErrUnknownOutcome, applied or not.
func (s *Store) FailNextTxn(applied bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.unknown = append(s.faults.unknown, applied)
}

// SetDown makes every request fail with store.ErrUnavailable, and ends the watches, until it is called with false. Leases go
// on expiring.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.down = down
	if down {
		s.endWatches(store.ErrUnavailable)
	}
}

// StallWatches makes the watches hang, as behind a network partition, until it is called with false or they are ended: neither
// changes nor progress come through.
func (s *Store) StallWatches(stalled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.stalled = stalled
	s.wake()
}

// BreakWatches ends all watches with store.ErrUnavailable.
func (s *Store) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWatches(store.ErrUnavailable)
}

// Backup is a copy of all keys with their history, without leases.
type Backup struct{ data data }

// Backup returns a copy of the state.
func (s *Store) Backup() Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Backup{s.data.clone()}
}

// Restore replaces the state, revision and ClusterID included, and ends all watches: what an operator does who starts etcd
// from an older backup. All leases are gone; keys that belonged to one stay.
func (s *Store) Restore(b Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = b.data.clone()
	for _, l := range s.leases {
		l.timer.Stop()
	}
	clear(s.leases)
	s.endWatches(store.ErrUnavailable)
}

func (d data) clone() data {
	d.versions = maps.Clone(d.versions)
	for key, vs := range d.versions {
		d.versions[key] = slices.Clone(vs)
	}
	d.log = slices.Clone(d.log)
	return d
}
