package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/dbserver"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
)

// The worlds: their sagas' ids begin with these.
const (
	alone = "alone" // one control plane, with an etcd of its own
	pair  = "pair"  // two that share one
)

// coordinator is a control plane that coordinates sagas.
type coordinator struct {
	*kept
	world string
	url   string
}

// member is a participant's process.
type member struct {
	*kept
	service string
	address string
}

// world is all processes.
type world struct {
	bin, dir, self string
	withServers    bool // PostgreSQL and MariaDB take part
	withDTM        bool // the participants are called by dtm
	director       *director
	server         *http.Server // the director's
	at             string       // its address

	servers      []*dbserver.Server  // of databases
	databases    map[string]database // by service
	coordinators []*coordinator
	members      []*member
	etcd         *kept
	etcdAt       string // its address
	egressAt     string
	egress       *egress

	keeping context.CancelFunc
	kept    sync.WaitGroup
	mu      sync.Mutex
	broken  []error // guarded by mu: what could not be kept

	effects []effect // all that there are, once it has stopped
}

//go:embed participant.py
var participantPython []byte

// The services.
const (
	stock   = "stock"   // two processes with one database
	money   = "money"   // one
	letters = "letters" // in Python
	books   = "books"   // on PostgreSQL
	freight = "freight" // on MariaDB
)

func (w *world) services() []string { return slices.Sorted(maps.Keys(w.databases)) }

// begin starts what the others need. What it returns ends when they are not to be kept any more.
func (w *world) begin(ctx context.Context) (keeping context.Context, err error) {
	if w.self, err = os.Executable(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.at = l.Addr().String()
	w.server = &http.Server{Handler: w.director, ReadHeaderTimeout: time.Minute}
	go func() { _ = w.server.Serve(l) }()
	keeping, w.keeping = context.WithCancel(ctx)
	return keeping, nil
}

// start starts a world of the programs in bin. Its logs are in dir. The caller must stop it, also after an error.
func (w *world) start(ctx context.Context) error {
	keeping, err := w.begin(ctx)
	if err != nil {
		return err
	}
	if err := w.startMembers(ctx, keeping); err != nil {
		return err
	}
	if err := errors.Join(w.startEtcd(keeping), w.startEgress()); err != nil {
		return err
	}
	for _, c := range []*coordinator{{world: alone, kept: &kept{name: "alone"}}, {world: pair, kept: &kept{name: "pair-1"}}, {world: pair, kept: &kept{name: "pair-2"}}} {
		if err := w.startCoordinator(ctx, keeping, c); err != nil {
			return err
		}
	}
	return nil
}

// keep keeps a process, and returns when it serves.
func (w *world) keep(ctx context.Context, k *kept) error {
	started := make(chan struct{})
	failed := make(chan error, 1)
	w.kept.Go(func() {
		if err := k.run(ctx, started); err != nil {
			failed <- err
			w.mu.Lock()
			defer w.mu.Unlock()
			w.broken = append(w.broken, fmt.Errorf("%s: %w", k.name, err))
		}
	})
	select {
	case <-started:
		return nil
	case err := <-failed:
		return err
	}
}

// shortly is the pause before a process is started again.
func shortly() time.Duration { return time.Duration(rand.IntN(400)) * time.Millisecond }

func (w *world) startMembers(ctx, keeping context.Context) error {
	w.databases = map[string]database{stock: sqlite(filepath.Join(w.dir, "stock.db")), money: sqlite(filepath.Join(w.dir, "money.db"))}
	names := []string{stock, stock, money}
	script := filepath.Join(w.dir, "participant.py")
	python, err := exec.LookPath("python3")
	switch {
	case w.withDTM:
		err = nil
	case err == nil:
		err = os.WriteFile(script, participantPython, 0o600)
		w.databases[letters] = sqlite(filepath.Join(w.dir, "letters.db"))
		names = append(names, letters)
	default:
		say("there is no python3 here: the participant that is written in Python does not take part")
		err = nil
	}
	if err != nil {
		return err
	}
	if w.withServers {
		if err := w.startServers(ctx); err != nil {
			return err
		}
		names = append(names, books, books, freight, freight)
	}
	var more []string
	if w.withDTM {
		more = append(more, dtmTable)
	}
	for service, d := range w.databases {
		if err := d.make(ctx, more...); err != nil {
			return fmt.Errorf("the database of %s: %w", service, err)
		}
	}
	for n, service := range names {
		address, err := play.FreeAddress()
		if err != nil {
			return err
		}
		m := &member{service: service, address: address}
		name := fmt.Sprintf("%s-%d", service, n)
		m.kept = &kept{name: name, ready: "(listens)", pause: shortly, gone: w.director.forget, begin: func() (*play.Process, error) {
			d := w.databases[service]
			program, args := w.self, []string{"-participant", service, "-listen", address, "-director", w.at,
				"-dialect", fmt.Sprint(uint8(d.dialect)), "-driver", d.driver, "-dsn", d.dsn}
			if w.withDTM {
				args = append(args, "-dtm-barrier")
			}
			if service == letters {
				program, args = python, []string{script, address, w.at, service, filepath.Join(w.dir, "letters.db")}
			}
			p, err := play.Start(w.dir, name, program, args...)
			if err == nil {
				w.director.begin(p.ID())
			}
			return p, err
		}}
		w.members = append(w.members, m)
		if err := w.keep(keeping, m.kept); err != nil {
			return err
		}
	}
	return nil
}

// startServers starts those of databases. They are not killed: what they promise is theirs to keep.
func (w *world) startServers(ctx context.Context) error {
	p, err := dbserver.PostgreSQL()
	if err != nil {
		return err
	}
	w.servers = append(w.servers, p)
	w.databases[books] = database{barrier.PostgreSQL, "pgx", "host=" + p.Dir + " user=" + p.User + " dbname=postgres"}
	m, err := dbserver.MariaDB()
	if err != nil {
		return err
	}
	w.servers = append(w.servers, m)
	dsn := "root@unix(" + m.Dir + "/socket)/"
	w.databases[freight] = database{barrier.MySQL, "mysql", dsn + freight}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, "CREATE SCHEMA "+freight)
	return err
}

// startEtcd starts the etcd that two control planes share.
func (w *world) startEtcd(keeping context.Context) error {
	address, err := play.FreeAddress()
	if err != nil {
		return err
	}
	w.etcd = &kept{name: "etcd", ready: "(listens)", pause: shortly, begin: func() (*play.Process, error) {
		return play.Start(w.dir, "etcd", w.self, "-etcd", filepath.Join(w.dir, "etcd"), "-listen", address)
	}}
	if err := w.keep(keeping, w.etcd); err != nil {
		return err
	}
	w.etcdAt = address
	return nil
}

// startCoordinator starts a control plane. The one that is alone calls the instances that are registered with it, the others through the egress.
func (w *world) startCoordinator(ctx, keeping context.Context, c *coordinator) error {
	addresses := make([]string, 2)
	for i := range addresses {
		var err error
		if addresses[i], err = play.FreeAddress(); err != nil {
			return err
		}
	}
	c.url = "http://" + addresses[1]
	args := []string{"--data-dir", filepath.Join(w.dir, c.name), "--grpc-addr", addresses[0], "--http-addr", addresses[1], "--drain-time", "500ms"}
	if c.world == pair {
		args = append(args, "--saga-etcd-endpoints", w.etcdAt, "--saga-egress", w.egressAt)
	}
	c.ready, c.pause = `(control plane listens)`, shortly
	c.begin = func() (*play.Process, error) {
		return play.Start(w.dir, c.name, filepath.Join(w.bin, "controlplane"), args...)
	}
	w.coordinators = append(w.coordinators, c)
	if err := w.keep(keeping, c.kept); err != nil || c.world == pair {
		return err
	}
	for n, m := range w.members {
		if err := register(ctx, c.url, n, m); err != nil {
			return err
		}
	}
	return nil
}

// register registers a participant for longer than a run lasts.
func register(ctx context.Context, url string, n int, m *member) error {
	host, port, err := net.SplitHostPort(m.address)
	if err != nil {
		return err
	}
	instance := fmt.Sprintf(`{"id":"%d","address":%q,"ports":[{"number":%s}],"ttl":"3600s"}`, n, host, port)
	for deadline := time.Now().Add(startTime); ; pause(ctx, 100*time.Millisecond) {
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/namespaces/default/services/"+m.service+"/instances", strings.NewReader(instance))
		if err != nil {
			return err
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			return err
		}
		said, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		switch {
		case r.StatusCode == http.StatusOK:
			return nil
		case r.StatusCode != http.StatusServiceUnavailable, time.Now().After(deadline): // which it answers until it has read its store
			return errors.Join(fmt.Errorf("the registration of %s was answered %s: %s", m.name, r.Status, said), err)
		}
	}
}

// startEgress starts what the pair calls through.
func (w *world) startEgress() (err error) {
	services := map[string][]string{}
	for _, m := range w.members {
		services[m.service] = append(services[m.service], m.address)
	}
	if w.egressAt, err = play.FreeAddress(); err != nil {
		return err
	}
	w.egress, err = startEgress(w.egressAt, services, w.director.hold)
	return err
}

// caller finds the coordinator whose call it was: of several, the one that says of its fence in its log that it is its own.
func (w *world) caller(c *call) *coordinator {
	all := w.of(worldOf(c.Key))
	if len(all) == 1 {
		return all[0]
	}
	for _, one := range all {
		b, err := os.ReadFile(filepath.Join(w.dir, one.name+".log"))
		if err == nil && strings.Contains(string(b), fmt.Sprintf(" fence=%d\n", c.Fence)) {
			return one
		}
	}
	return nil
}

// of returns the coordinators of a world.
func (w *world) of(name string) (all []*coordinator) {
	for _, c := range w.coordinators {
		if c.world == name {
			all = append(all, c)
		}
	}
	return all
}

// all returns every process that is kept.
func (w *world) all() (all []*kept) {
	for _, c := range w.coordinators {
		all = append(all, c.kept)
	}
	for _, m := range w.members {
		all = append(all, m.kept)
	}
	if w.etcd != nil {
		all = append(all, w.etcd)
	}
	return all
}

// heal lets everything go on.
func (w *world) heal() {
	w.director.heal()
	for _, k := range w.all() {
		k.thaw()
	}
}

// stop stops all processes: coordinators, then what they call, when every call is over. Then it reads what has become of it all.
func (w *world) stop() error {
	if w.keeping == nil {
		return nil
	}
	w.keeping()
	w.kept.Wait()
	w.mu.Lock()
	errs := slices.Clone(w.broken)
	w.mu.Unlock()
	end := func(k *kept) {
		if p := k.now(); p != nil {
			p.Signal(syscall.SIGCONT)
			if err := p.Stop(); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for _, c := range w.coordinators {
		end(c.kept)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if w.egress != nil {
		errs = append(errs, w.egress.stop(ctx))
	}
	for _, m := range w.members {
		end(m.kept)
	}
	if w.etcd != nil {
		end(w.etcd)
	}
	var err error
	w.effects, err = w.readEffects(ctx)
	errs = append(errs, err, w.server.Shutdown(ctx))
	for _, s := range w.servers {
		errs = append(errs, s.Stop())
	}
	return errors.Join(errs...)
}

// isQuiet reports whether all calls are over.
func (w *world) isQuiet() bool {
	return w.director.isQuiet() && (w.egress == nil || w.egress.held.Load() == 0)
}

// readEffects reads what all participants have changed.
func (w *world) readEffects(ctx context.Context) (all []effect, err error) {
	for _, service := range w.services() {
		some, err := w.databases[service].effects(ctx, service)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// isHavocs reports whether a line says what was done to its process on purpose: a control plane that starts while its etcd is frozen or dead waits for it.
func isHavocs(line string) bool {
	return strings.Contains(line, "sagas stand still") && strings.Contains(line, "no answer from etcd")
}

// complaints are what no process may log, whatever happens to it.
func complaints(dir string) (found []string, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		n := 0
		for line := range strings.Lines(string(b)) {
			for _, c := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "Traceback", "level=ERROR"} {
				if n < 5 && strings.Contains(line, c) && !isHavocs(line) {
					n++
					found = append(found, fmt.Sprintf("%s logs: %.300s", filepath.Base(path), strings.TrimSpace(line)))
					break
				}
			}
		}
	}
	return found, nil
}
