package mtls

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Config is what a Keeper needs.
type Config struct {
	Log *slog.Logger // required
	// Inline has what is in no file, by the names that stand for files. It does not change.
	Inline map[string][]byte
	// Every is how often the files are looked at. Default 2 s.
	Every time.Duration
	// MaxHandshakes is how many handshakes of the process, of listeners and clusters, may
	// compute at the same time. Those that wait for their peer do not count. Default: GOMAXPROCS;
	// more would end no sooner, and stand between everybody else and the processors.
	MaxHandshakes int
}

// Keeper keeps the TLS configurations of a process as their files are.
type Keeper struct {
	config Config
	stop   context.CancelFunc
	done   chan struct{}

	places  chan struct{} // holds one for each handshake that computes
	waiting atomic.Int64  // handshakes that wait for a place

	mu   sync.Mutex
	kept map[*kept]struct{} // guarded by mu
}

// NewKeeper starts a Keeper. Close ends it.
func NewKeeper(config Config) *Keeper {
	config.Every = cmp.Or(config.Every, 2*time.Second)
	config.MaxHandshakes = cmp.Or(config.MaxHandshakes, runtime.GOMAXPROCS(0))
	ctx, stop := context.WithCancel(context.Background())
	k := &Keeper{config: config, stop: stop, done: make(chan struct{}), places: make(chan struct{}, config.MaxHandshakes), kept: map[*kept]struct{}{}}
	go k.run(ctx)
	return k
}

// Close ends the looking at files. What was made goes on with what was loaded last.
func (k *Keeper) Close() {
	k.stop()
	<-k.done
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	tick := time.NewTicker(k.config.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, one := range k.all() {
			one.look(k.config.Log, k.config.Every)
		}
	}
}

func (k *Keeper) all() []*kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*kept, 0, len(k.kept))
	for one := range k.kept {
		all = append(all, one)
	}
	return all
}

// Waiting returns how many handshakes could go on, and wait for others to be done.
func (k *Keeper) Waiting() int64 { return k.waiting.Load() }

// Status says how the files of a listener or cluster are.
type Status struct {
	Name string // as it was made with
	// Certificates in force, in the order of the configuration, the authorities last.
	Certificates []Certificate
	Since        time.Time         // when they were loaded
	Reloads      uint64            // how often files have changed and been taken
	Failures     uint64            // how often they could not be taken
	Handshakes   map[string]uint64 // that have ended, by result; see [Results]
	Err          error             // why the files as they are now cannot be; nil: they are in force
}

// Status returns the state of all that there is, by name.
func (k *Keeper) Status() []Status {
	var all []Status
	for _, one := range k.all() {
		one.mu.Lock()
		s := one.status
		one.mu.Unlock()
		s.Handshakes = map[string]uint64{}
		for i, result := range Results() {
			if n := one.ended[i].Load(); n > 0 {
				s.Handshakes[result] = n
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// kept is one configuration and its files.
type kept struct {
	keeper *Keeper
	tls    mesh.TLS
	apply  func(*material) // publishes what was loaded

	// Of the goroutine that looks, after the start.
	files []file
	sum   [sha256.Size]byte
	told  string // the last error that was logged

	ended []atomic.Uint64 // handshakes, by the index of their result

	mu     sync.Mutex
	status Status // guarded by mu
}

// keep loads files for the first time, and looks at them from now on.
func (k *Keeper) keep(name string, t mesh.TLS, apply func(*material)) (*kept, error) {
	m, files, err := load(&t, k.config.Inline)
	if err != nil {
		return nil, fmt.Errorf("%s: common_tls_context.%w", name, err)
	}
	one := &kept{keeper: k, tls: t, apply: apply, files: files, ended: make([]atomic.Uint64, len(Results())), status: Status{Name: name}}
	one.take(k.config.Log, m)
	k.mu.Lock()
	k.kept[one] = struct{}{}
	k.mu.Unlock()
	return one, nil
}

// Close ends the looking at the files.
func (one *kept) Close() {
	one.keeper.mu.Lock()
	defer one.keeper.mu.Unlock()
	delete(one.keeper.kept, one)
}

func (one *kept) take(log *slog.Logger, m *material) {
	one.sum = m.sum
	one.apply(m)
	one.mu.Lock()
	one.status.Certificates, one.status.Since, one.status.Err = m.shown, time.Now(), nil
	name := one.status.Name
	one.mu.Unlock()
	for _, c := range m.shown {
		switch now := time.Now(); {
		case now.After(c.NotAfter):
			log.Warn("certificate has expired: peers will refuse it", "tls", name, "file", c.File, "not_after", c.NotAfter)
		case now.Before(c.NotBefore):
			log.Warn("certificate is not valid yet: peers will refuse it", "tls", name, "file", c.File, "not_before", c.NotBefore)
		}
	}
}

// look reads the files again if they have changed. Certificate and key are two files, and
// may be seen when one is new and the other is not yet; so a fault is told if it is still
// there at the next look.
func (one *kept) look(log *slog.Logger, every time.Duration) {
	one.mu.Lock()
	before, name := one.status.Err, one.status.Name
	one.mu.Unlock()
	if before == nil && !slices.ContainsFunc(one.files, func(f file) bool { return f.hasChanged(2 * every) }) {
		return
	}
	m, files, err := load(&one.tls, one.keeper.config.Inline)
	one.files = files
	if err != nil {
		one.mu.Lock()
		if before == nil {
			one.status.Failures++
		}
		one.status.Err = fmt.Errorf("common_tls_context.%w", err)
		one.mu.Unlock()
		if before != nil && one.told != err.Error() {
			one.told = err.Error()
			log.Error("changed certificates cannot be used; those loaded before stay in force", "tls", name, "error", err)
		}
		return
	}
	one.told = ""
	if m.sum == one.sum {
		one.mu.Lock()
		one.status.Err = nil
		one.mu.Unlock()
		return
	}
	one.take(log, m)
	one.mu.Lock()
	one.status.Reloads++
	one.mu.Unlock()
	log.Info("certificates have changed", "tls", name)
}
