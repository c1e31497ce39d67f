package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/barrier"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
)

// settings are what the command line says.
type settings struct {
	seconds int
	rate    int
	seed    uint64
	bin     string
	report  string
	servers bool // of databases
	dtm     string
	dtmSync bool
}

func main() {
	var s settings
	var etcd, service, listen, director, driver, dsn string
	var dialect uint
	var isDTM bool
	flag.IntVar(&s.seconds, "seconds", 120, "how long sagas are started and processes killed, 20 at least")
	flag.IntVar(&s.rate, "rate", 25, "sagas that are started per second and world")
	flag.Uint64Var(&s.seed, "seed", 0, "of sagas, faults and strikes; 0: chance")
	flag.StringVar(&s.bin, "bin", "bin", "folder of the programs")
	flag.StringVar(&s.report, "report", "bin/sagachaos.txt", "where the report goes")
	flag.BoolVar(&s.servers, "databases", false, "participants on PostgreSQL and MariaDB, too, which make saga-databases installs")
	flag.StringVar(&s.dtm, "dtm", "", "do so to dtm instead, at this path, beside which its schema is, dtm.sql; to be called with a -rate of 2")
	flag.BoolVar(&s.dtmSync, "dtm-sync", false, "let dtm write a step's outcome before it calls the next step")
	flag.BoolVar(&isDTM, "dtm-barrier", false, "of a participant: it is called by dtm")
	flag.StringVar(&etcd, "etcd", "", "be an etcd with this data directory")
	flag.StringVar(&service, "participant", "", "be a participant of this service")
	flag.StringVar(&listen, "listen", "", "the address of either")
	flag.StringVar(&director, "director", "", "who tells a participant what to do")
	flag.UintVar(&dialect, "dialect", 0, "of a participant's database")
	flag.StringVar(&driver, "driver", "", "of a participant's database")
	flag.StringVar(&dsn, "dsn", "", "of a participant's database")
	flag.Parse()
	var err error
	switch {
	case etcd != "":
		err = beEtcd(etcd, listen)
	case service != "":
		p := &part{service: service, director: director, isDTM: isDTM, database: database{barrier.Dialect(dialect), driver, dsn}} //nolint:gosec // this program says it
		err = p.serve(context.Background(), listen)
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = s.run(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sagachaos:", err)
		os.Exit(1)
	}
}

// beEtcd is an etcd until it is told to stop.
func beEtcd(dir, listen string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	e, err := etcdembed.Start(ctx, etcdembed.Config{DataDir: dir, Listen: listen})
	if err != nil {
		return err
	}
	fmt.Println("listens")
	select {
	case err = <-e.Err():
	case <-ctx.Done():
	}
	return errors.Join(err, e.Stop())
}

// say tells people how it goes on.
func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// run starts a world, breaks it, and judges. An error says that something is not as it must be.
func (s settings) run(ctx context.Context) error {
	if s.seconds < 20 {
		return errors.New("-seconds (SAGA_CHAOS_SECONDS) is less than 20")
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	dir, err := play.NewDir()
	if err != nil {
		return err
	}
	say("starting control planes, an etcd and participants; their logs are in %s; seed %d", dir, s.seed)
	c := &chaos{settings: s, world: &world{bin: s.bin, dir: dir, withServers: s.servers, director: newDirector(s.seed)}, ledger: newLedger(),
		parked: map[string]int{}, began: time.Now()}
	c.havoc = &havoc{world: c.world, done: map[string]int{}}
	if s.dtm != "" {
		c.world.withDTM, c.world.director.timeout = true, dtmTimeout
		if err = c.world.startDTM(ctx, s.dtm, s.dtmSync); err == nil {
			err = c.runDTM(ctx)
		}
	} else if err = c.world.start(ctx); err == nil {
		err = c.run(ctx)
	}
	endErr := c.world.stop()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return fmt.Errorf("%w\nthe logs are in %s", errors.Join(err, endErr), dir)
	}
	v, err := c.judge(endErr)
	if err != nil {
		return fmt.Errorf("%w\nthe logs are in %s", err, dir)
	}
	text := c.text(v)
	fmt.Print(text)
	if err := os.WriteFile(s.report, []byte(text), 0o600); err != nil {
		return err
	}
	if len(v.Violations) > 0 {
		return fmt.Errorf("%d violations: see %s; the logs are in %s; -seed %d makes the same sagas and faults again", len(v.Violations), s.report, dir, s.seed)
	}
	return os.RemoveAll(dir)
}

// chaos is one run.
type chaos struct {
	settings
	world  *world
	ledger *ledger
	havoc  *havoc
	began  time.Time
	of     []*clients

	broke, healed time.Duration  // how long each took
	parked        map[string]int // sagas that were parked, by where and by what was done then
}

// run starts sagas and breaks processes, heals everything, and reads what has become of the sagas.
func (c *chaos) run(ctx context.Context) error {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	for _, world := range []string{alone, pair} {
		of := &clients{seed: c.seed, world: world, services: c.world.services(), ledger: c.ledger, http: &http.Client{Transport: transport}}
		for _, p := range c.world.of(world) {
			of.urls = append(of.urls, p.url)
		}
		c.of = append(c.of, of)
	}
	say("sagas are started, and processes killed and frozen, for %d s", c.seconds)
	begun := time.Now()
	loading, over := context.WithTimeout(ctx, time.Duration(c.seconds)*time.Second)
	defer over()
	settling, cancel := context.WithTimeout(ctx, time.Duration(c.seconds)*time.Second+settleTime)
	defer cancel()
	var all sync.WaitGroup
	for _, of := range c.of {
		all.Go(func() { of.run(settling, loading, time.Second/time.Duration(c.rate), 200) })
	}
	all.Go(func() { c.havoc.run(loading, c.seed) })
	<-loading.Done()
	c.broke = time.Since(begun)
	say("everything is healed; what is open has to end")
	// A strike that was under way may end behind this, as one that lets a process go on does.
	c.world.heal()
	all.Wait()
	c.world.heal()
	if err := c.settle(settling); err != nil {
		return err
	}
	if err := c.decide(settling); err != nil {
		return err
	}
	c.healed = time.Since(begun) - c.broke
	return nil
}

// settleTime bounds the time in which all has to end once everything is healed.
const settleTime = 2 * time.Minute

// readers is how many sagas are read at once.
const readers = 16

// each calls f with each of these sagas, several at once.
func (c *chaos) each(ids []string, f func(of *clients, id string)) {
	todo := make(chan string)
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for id := range todo {
				for _, of := range c.of {
					if of.world == worldOf(id) {
						f(of, id)
					}
				}
			}
		})
	}
	for _, id := range ids {
		todo <- id
	}
	close(todo)
	all.Wait()
}

// settle waits until each saga has ended or is parked, or ctx ends.
func (c *chaos) settle(ctx context.Context) error {
	all := c.ledger.ids(func(*account) bool { return true })
	c.each(all, func(of *clients, id string) {
		for ctx.Err() == nil {
			v, ok := of.read(ctx, id, true)
			c.ledger.note(id, func(a *account) { a.last, a.absent = v, ok && v.State == "" })
			if ok && (v.State == "" || v.State.Ended() || v.State == saga.Parked) {
				return
			}
		}
	})
	for !c.world.isQuiet() && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// decide does with the parked sagas what people do: some are tried again, of some pivots the truth is looked up and told, and some are left. Then all are read once more.
func (c *chaos) decide(ctx context.Context) error {
	effects, err := c.world.readEffects(ctx)
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, f := range effects {
		done[f.saga+"/"+f.step+"/"+f.what] = true
	}
	parked := c.ledger.ids(func(a *account) bool { return a.last.State == saga.Parked })
	slices.Sort(parked)
	var mu sync.Mutex
	count := func(id string, v view, what string) {
		mu.Lock()
		defer mu.Unlock()
		reason, _, _ := strings.Cut(v.Reason, ":")
		words := strings.Fields(reason)
		c.parked[worldOf(id)+": "+strings.Join(words[min(2, len(words)):], " ")+"; "+what]++
	}
	c.each(parked, func(of *clients, id string) {
		var a account
		c.ledger.note(id, func(b *account) { a = *b })
		pivot := ""
		for i, s := range a.definition.Steps {
			if s.Kind == saga.Pivot && i < len(a.last.Steps) && a.last.Steps[i].State == saga.StepRunning {
				pivot = s.Name
			}
		}
		switch r := randomOf(c.seed, "decide "+id); {
		case r.IntN(5) == 0:
			count(id, a.last, "left as it is")
		case pivot != "" && r.IntN(2) == 0:
			as := "refused"
			if done[id+"/"+pivot+"/"+action] {
				as = "done"
			}
			count(id, a.last, "the pivot resolved as "+as)
			c.ledger.note(id, func(b *account) { b.byHand[pivot] = true })
			of.verb(ctx, id, "resolve", map[string]string{"step": pivot, "as": as})
			of.verb(ctx, id, "resume", nil)
		default:
			count(id, a.last, "tried again")
			of.verb(ctx, id, "retry", nil)
		}
	})
	return c.settle(ctx)
}

// judge gathers the evidence, and judges.
func (c *chaos) judge(endErr error) (v verdict, err error) {
	calls, _ := c.world.director.received()
	v = (&evidence{sagas: c.ledger.sagas, calls: calls, effects: c.world.effects}).judge()
	if endErr != nil {
		v.Violations = append(v.Violations, strings.Split(endErr.Error(), "\n")...)
	}
	logged, err := complaints(c.world.dir)
	v.Violations = append(v.Violations, logged...)
	return v, err
}
