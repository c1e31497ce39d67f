package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// settings are what the command line says.
type settings struct {
	Seconds int    `json:"seconds"` // under load
	Idle    int    `json:"idle"`    // connections
	Streams int    `json:"streams"`
	Bulk    int64  `json:"bulk"` // bytes in a body
	Seed    uint64 `json:"seed"`
	bin     string
	report  string
}

func main() {
	var s settings
	var id, appHTTP, appGRPC, appTCP string
	flag.IntVar(&s.Seconds, "seconds", 180, "how long the load lasts, 30 at least")
	flag.IntVar(&s.Idle, "idle", 10_000, "idle connections")
	flag.IntVar(&s.Streams, "streams", 1_000, "long streams")
	flag.Int64Var(&s.Bulk, "bulk", 1<<30, "bytes in each of the large bodies")
	flag.Uint64Var(&s.Seed, "seed", 0, "of what is broken when; 0: chance")
	flag.StringVar(&s.bin, "bin", "bin", "folder of the programs")
	flag.StringVar(&s.report, "report", "bin/soak", "where the report goes, as .txt and .json")
	flag.StringVar(&id, "app", "", "be an application with this id, as the soak starts them")
	flag.StringVar(&appHTTP, "app-http", "", "its address for HTTP")
	flag.StringVar(&appGRPC, "app-grpc", "", "its address for gRPC")
	flag.StringVar(&appTCP, "app-tcp", "", "its address for TCP")
	flag.Parse()
	var err error
	if id != "" {
		err = app{id}.serve(context.Background(), appHTTP, appGRPC, appTCP)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = s.run(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// say tells people how it goes on.
func say(format string, args ...any) {
	fmt.Printf("%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// run starts a world, soaks it, and reports. An error says that something is not as it must be.
func (s settings) run(ctx context.Context) error {
	if s.Seconds < 30 {
		return errors.New("-seconds (SOAK_SECONDS) is less than 30")
	}
	if err := s.enoughDescriptors(); err != nil {
		return err
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	dir, err := play.NewDir()
	if err != nil {
		return err
	}
	w := &world{bin: s.bin, dir: dir}
	r := &report{Settings: s}
	say("starting a control plane, applications and sidecars; their logs are in %s", dir)
	err = w.start(ctx)
	if err == nil {
		err = s.soak(ctx, w, r)
	}
	if endErr := w.stop(); endErr != nil {
		r.fault("at the end: %v", endErr)
	}
	complaints, logErr := scanLogs(dir)
	r.Faults = append(r.Faults, complaints...)
	err = errors.Join(err, logErr)
	if err != nil {
		return fmt.Errorf("%w\nthe logs are in %s", err, dir)
	}
	if err := r.write(s.report); err != nil {
		return err
	}
	if len(r.Faults) > 0 {
		return fmt.Errorf("%d things are not as they must be: see %s.txt; the logs are in %s", len(r.Faults), s.report, dir)
	}
	return os.RemoveAll(dir)
}

// enoughDescriptors fails where this process, or a sidecar, may not open as many as it takes.
func (s settings) enoughDescriptors() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if needed := uint64(s.Idle + 2*s.Streams + 2000); limit.Cur < needed {
		return fmt.Errorf("it takes %d file descriptors, and a process may open %d: raise the limit (ulimit -n), or hold fewer idle connections (-idle) and streams (-streams)",
			needed, limit.Cur)
	}
	return nil
}

// soak lets everything happen. An error says that it could not go on; what the mesh did wrong is
// in the report.
func (s settings) soak(ctx context.Context, w *world, r *report) error {
	l := newLedger()
	if err := (&changes{world: w, ledger: l}).begin(); err != nil {
		return err
	}
	say("bodies of %d bytes", s.Bulk)
	bulks, faults, err := carryBulk(ctx, w, s.Bulk)
	r.Bulk = bulks
	r.Faults = append(r.Faults, faults...)
	if err != nil {
		return err
	}
	before, err := takeAll(ctx, subjects(w))
	if err != nil {
		return err
	}
	say("%d idle connections, %d long streams, load, changes, havoc (seed %d)", s.Idle, s.Streams, s.Seed)
	began := time.Now()
	b, err := s.load(w, l)
	if err != nil {
		return err
	}
	watching, err := s.happen(ctx, w, l, b, r)
	b.end()
	r.Took = time.Since(began)
	if err := errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	r.judge(s, l, watching)
	return s.settle(ctx, w, r, before)
}

// burden is what the mesh carries.
type burden struct {
	idle    *idlers
	streams *holder
	short   *load
}

func (s settings) load(w *world, l *ledger) (b burden, err error) {
	b.idle = holdIdle(w, l, s.Idle)
	if b.streams, err = holdStreams(w, l, s.Streams); err != nil {
		return b, err
	}
	b.short, err = startLoad(w, l)
	return b, err
}

// held returns what is open now.
func (b burden) held() held {
	return held{Idle: b.idle.open.Load(), Streams: b.streams.open.Load()}
}

// end ends the short requests, then what is held.
func (b burden) end() {
	b.short.end()
	b.streams.end()
	b.idle.end()
}

// happen lets the configuration change and things break for as long as the load lasts, and
// measures from when everything is warm.
func (s settings) happen(ctx context.Context, w *world, l *ledger, b burden, r *report) (*watch, error) {
	began, lasts := time.Now(), time.Duration(s.Seconds)*time.Second
	lasting, over := context.WithTimeout(ctx, lasts)
	defer over()
	var happening sync.WaitGroup
	var havocErr, warmErr, endErr error
	happening.Go(func() { (&changes{world: w, ledger: l}).run(lasting) })
	happening.Go(func() {
		defer over() // where it could not go on
		h := &havoc{world: w, ledger: l, random: rand.New(rand.NewPCG(s.Seed, 0)), log: say}
		havocErr = h.wreak(lasting, began.Add(lasts*2/5))
	})
	watching := &watch{}
	happening.Go(func() {
		warmUp(lasting, lasts, func() bool {
			r.Held = b.held()
			return r.Held.isAll(s)
		})
		watching.since = time.Now()
		r.live[0], warmErr = liveOf(ctx, subjects(w))
		watching.run(lasting, subjects(w))
	})
	happening.Wait()
	r.HeldAtEnd = b.held()
	say("the end of the load: %d idle connections and %d long streams are open", r.HeldAtEnd.Idle, r.HeldAtEnd.Streams)
	r.live[1], endErr = liveOf(ctx, subjects(w))
	return watching, errors.Join(havocErr, warmErr, endErr)
}

// warmUp waits for a third of the time, and on a slow machine for up to half of it until all is
// open.
func warmUp(ctx context.Context, all time.Duration, open func() bool) {
	third, half := time.After(all/3), time.After(all/2)
	select {
	case <-ctx.Done():
		return
	case <-third:
	}
	for !open() {
		select {
		case <-ctx.Done():
			return
		case <-half:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settleTime bounds the wait for what is left over.
const settleTime = 20 * time.Second

// settle waits until processes use no more than before the load.
func (s settings) settle(ctx context.Context, w *world, r *report, before map[string]sample) error {
	delete(before, "controlplane") // which was killed since
	for deadline := time.Now().Add(settleTime); ; {
		after, err := takeAll(ctx, subjects(w))
		if err != nil {
			return err
		}
		r.Rest = map[string]rested{}
		var faults []string
		for name, b := range before {
			r.Rest[name] = rested{Before: b, After: after[name]}
			for _, f := range left(b, after[name]) {
				faults = append(faults, name+": "+f)
			}
		}
		if len(faults) == 0 || time.Now().After(deadline) {
			r.Faults = append(r.Faults, faults...)
			if len(r.Faults) > 0 {
				return saveProfiles(ctx, w)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// saveProfiles writes what there is in each sidecar beside its log.
func saveProfiles(ctx context.Context, w *world) error {
	for _, s := range w.watched() {
		for name, path := range map[string]string{"goroutines.txt": "goroutine?debug=1", "heap.pb.gz": "heap"} {
			profile, err := get(ctx, "http://"+s.admin+"/debug/pprof/"+path)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if err := os.WriteFile(filepath.Join(w.dir, s.name+"-"+name), profile, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
