package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// director is told of each call by the participant that receives it, and says what is to be done with it. It lets things happen at moments that
// somebody waits for. It is safe for concurrent use.
type director struct {
	seed    uint64
	timeout time.Duration // of the calls

	mu       sync.Mutex
	healed   bool                 // no faults any more
	calls    []call               // all that were received
	faults   map[string]int       // how often each was handed out
	open     map[int]open         // calls that are over later than their answer
	attempts map[string]int       // of calls that do not say which they are, by key
	last     int                  // the number of the last of these
	moments  map[string][]*moment // what is to happen at the next ones, by momentName
	dying    map[int]string       // how a process is to die with its next call, by its number
	dead     map[int]bool         // processes that are gone: what they had said may be read later
}

// open is a call that goes on behind its answer.
type open struct{ process int }

func newDirector(seed uint64) *director {
	return &director{seed: seed, timeout: timeout, attempts: map[string]int{}, faults: map[string]int{}, open: map[int]open{}, moments: map[string][]*moment{}, dying: map[int]string{}, dead: map[int]bool{}}
}

// The moments of a call.
const (
	atReceived  = "received"
	atCommitted = "committed"
)

func momentName(world, moment string) string { return world + " " + moment }

// moment is what is waited for.
type moment struct {
	strike func(*call)
	taken  bool // it has come
}

// await has strike called when a call of a world's sagas is received, or has been committed, while its participant waits: one strike at a time. The
// returned function calls it off, and reports whether it came in time for that.
func (d *director) await(world, at string, strike func(*call)) (off func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, name := &moment{strike: strike}, momentName(world, at)
	d.moments[name] = append(d.moments[name], m)
	return func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.moments[name] = slices.DeleteFunc(d.moments[name], func(other *moment) bool { return other == m })
		return !m.taken
	}
}

// take returns the strike of a moment that has come, or nil. The caller holds mu.
func (d *director) take(name string) (strike func(*call)) {
	all := d.moments[name]
	if len(all) == 0 {
		return nil
	}
	all[0].taken = true
	d.moments[name] = all[1:]
	return all[0].strike
}

// letDie has a participant die with its next call.
func (d *director) letDie(process int, how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dying[process] = how
}

// begin takes note of a participant that has begun.
func (d *director) begin(process int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dead, process) // numbers come again
}

// forget takes note that a participant is gone, and its calls with it.
func (d *director) forget(process int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.dying, process)
	d.dead[process] = true
	for n, o := range d.open {
		if o.process == process {
			delete(d.open, n)
		}
	}
}

// heal ends all faults.
func (d *director) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.healed = true
	clear(d.dying)
}

// isQuiet reports whether all calls are over.
func (d *director) isQuiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open) == 0
}

// held is the fault of a call that is on its way for long, which its participant does not see.
const held = "on its way for seconds"

// hold returns how long a call is on its way: some until their coordinator has given up, or has been deposed.
func (d *director) hold(key, attempt string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := randomOf(d.seed, "hold "+key+" "+attempt)
	if d.healed || r.IntN(50) > 0 {
		return 0
	}
	d.faults[held]++
	return time.Second + time.Duration(r.Int64N(int64(lease+2*time.Second)))
}

// received returns all calls, and how often each fault was handed out.
func (d *director) received() ([]call, map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls, d.faults
}

// worldOf returns the world that a saga is of: its id begins with it.
func worldOf(key string) string {
	world, _, _ := strings.Cut(key, "-")
	return world
}

// receive takes note of a call, and decides what is done with it. strike, unless it is nil, is to be called first.
func (d *director) receive(c call) (o order, strike func(*call)) {
	_, _, what := split(c.Key)
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Attempt == 0 {
		d.attempts[c.Key]++
		c.Attempt = d.attempts[c.Key]
	}
	if !d.healed {
		o = orderFor(d.seed, c.Key, c.Attempt, what == action, d.timeout)
		world := worldOf(c.Key)
		strike = d.take(momentName(world, atReceived))
		if how := d.dying[c.Process]; how != "" {
			o = order{Fault: how}
			delete(d.dying, c.Process)
		} else if len(d.moments[momentName(world, atCommitted)]) > 0 {
			o = order{Fault: tells}
		}
	}
	if o.Delay > 0 && !d.dead[c.Process] {
		d.last++
		o.Over = d.last
		d.open[o.Over] = open{c.Process}
	}
	c.fault = o.Fault
	d.faults[o.Fault]++
	d.calls = append(d.calls, c)
	return o, strike
}

// committed returns what is to be called now that a call has been committed.
func (d *director) committed(c call) (strike func(*call)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.take(momentName(worldOf(c.Key), atCommitted))
}

// ServeHTTP implements http.Handler, for the participants.
func (d *director) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c call
	var over int
	var into any = &c
	if r.URL.Path == "/over" {
		into = &over
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var o order
	switch r.URL.Path {
	case "/received":
		c.At = now()
		var strike func(*call)
		if o, strike = d.receive(c); strike != nil {
			strike(&c)
		}
	case "/committed":
		if strike := d.committed(c); strike != nil {
			strike(&c)
		}
	case "/over":
		d.mu.Lock()
		delete(d.open, over)
		d.mu.Unlock()
	}
	_, _ = w.Write(text(o))
}
