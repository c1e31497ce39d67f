package etcdembed_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/internal/freeze"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

// process is an etcd in a process of its own: this test binary, started again.
type process struct {
	t       *testing.T
	dir     string
	listen  string
	command *exec.Cmd
	stdin   io.Closer
}

func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{t: t, dir: dir, listen: fmt.Sprintf("127.0.0.1:%d", freeport.For(t))}
	p.start()
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.command = exec.Command(os.Args[0])
	p.command.Env = append(os.Environ(), childDir+"="+p.dir, "FAIRLEAD_TEST_ETCD_LISTEN="+p.listen)
	p.command.Stderr = os.Stderr
	stdin, err := p.command.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "error") {
		p.t.Fatalf("etcd process: %s %v", line, err)
	}
	p.listen = strings.TrimSpace(line)
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the process in order.
func (p *process) stop() {
	p.t.Helper()
	_ = p.stdin.Close() // if the process is gone, Wait says so
	if err := p.command.Wait(); err != nil {
		p.t.Fatalf("etcd process: %v", err)
	}
}

// kill ends the process without asking.
func (p *process) kill() {
	_ = p.command.Process.Kill() // it may have ended already
	_ = p.command.Wait()         // killed is what it shall be
}

func (p *process) connect() *etcdstore.Store {
	p.t.Helper()
	s, err := etcdstore.New(p.t.Context(), etcdstore.Config{Endpoints: []string{"http://" + p.listen}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			p.t.Error(err)
		}
	})
	return s
}

func newProcessStore(t *testing.T) store.Store { return startProcess(t, t.TempDir()).connect() }

func TestContractInASeparateProcess(t *testing.T) { storetest.Run(t, newProcessStore) }

func TestMirrorContractInASeparateProcess(t *testing.T) { storetest.RunMirror(t, newProcessStore) }

func TestADeadEndpointHoldsUpNobody(t *testing.T) {
	p := startProcess(t, t.TempDir())
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	s, err := etcdstore.New(t.Context(), etcdstore.Config{Endpoints: []string{"http://" + dead.Addr().String(), "http://" + p.listen}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }() // nothing is to be lost on it
	put(t, s, "1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if size, err := s.Size(ctx); err != nil || size.Bytes == 0 {
		t.Errorf("size %+v, %v; want that which the living endpoint tells", size, err)
	}
}

func TestASecondProcessOnTheSameDirectoryIsToldWhoHasIt(t *testing.T) {
	p := startProcess(t, t.TempDir())
	_, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: p.dir})
	if err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("error %v, want one that names the process", err)
	}
}

func TestMirrorNoticesAFrozenServer(t *testing.T) {
	p := startProcess(t, t.TempDir())
	i := &storetest.Interrupter{Store: p.connect()}
	put(t, i, "1")
	m, recorder := storetest.StartMirror(t, i, store.Root)
	watches := i.Watches.Load()
	storetest.Eventually(t, "the watch answers", func() bool {
		before := m.LastProgress()
		time.Sleep(200 * time.Millisecond)
		return m.LastProgress().After(before)
	})

	freeze.Process(t, p.command.Process)
	time.Sleep(2 * time.Second) // StaleAfter is 1 s
	if stale := time.Since(m.LastProgress()); stale < time.Second || !m.Synced() || len(recorder.State()) != 1 {
		t.Errorf("progress %v ago, synced %t, %d keys; want no progress while frozen and nothing forgotten", stale, m.Synced(), len(recorder.State()))
	}
	p.signal(syscall.SIGCONT)

	last := put(t, i, "2")
	storetest.Eventually(t, "the mirror goes on", func() bool { return m.Revision() >= last })
	if i.Watches.Load() == watches {
		t.Error("the silent watch was not replaced")
	}
	for _, b := range recorder.Batches() {
		if b.Synthetic {
			t.Errorf("batch %+v; want a resumption without listing anew", b)
		}
	}
}

func TestAWriteToAFrozenServerHasAnUnknownOutcome(t *testing.T) {
	p := startProcess(t, t.TempDir())
	s := p.connect()
	put(t, s, "1")
	freeze.Process(t, p.command.Process)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.Txn(ctx, store.Txn{Then: []store.Op{store.Put(key, []byte("2"))}})
	if !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("error %v, want ErrUnknownOutcome", err)
	}
	p.signal(syscall.SIGCONT)
}

func TestMirrorResumesAfterARestartOfTheServer(t *testing.T) {
	p := startProcess(t, t.TempDir())
	s := p.connect()
	put(t, s, "1")
	m, recorder := storetest.StartMirror(t, s, store.Root)
	p.kill()
	p.start()
	last := put(t, p.connect(), "2")
	storetest.Eventually(t, "the mirror goes on", func() bool { return m.Revision() >= last })
	if got := recorder.Batches(); len(got) != 1 || got[0].Synthetic || got[0].Revision != last {
		t.Errorf("batches %+v; want the one of revision %d", got, last)
	}
}

// replaced runs a mirror, puts an older backup or nothing in place of the data while the server is stopped, calls after with
// the new store, and returns when the mirror has noticed.
func replaced(t *testing.T, keepBackup bool, after func(s store.Store)) (*store.Mirror, *storetest.Recorder, *process) {
	t.Helper()
	p := startProcess(t, t.TempDir())
	s := p.connect()
	put(t, s, "old")
	p.stop()
	backup := filepath.Join(t.TempDir(), "etcd")
	if err := os.CopyFS(backup, os.DirFS(filepath.Join(p.dir, "etcd"))); err != nil {
		t.Fatal(err)
	}
	p.start()
	put(t, s, "new")
	if _, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(store.Root+"lost", nil)}}); err != nil {
		t.Fatal(err)
	}
	i := &storetest.Interrupter{Store: s}
	m, recorder := storetest.StartMirror(t, i, store.Root)
	i.Cut()
	p.stop()
	if err := os.RemoveAll(filepath.Join(p.dir, "etcd")); err != nil {
		t.Fatal(err)
	}
	if keepBackup {
		if err := os.CopyFS(filepath.Join(p.dir, "etcd"), os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	after(p.connect())
	i.Restore()
	storetest.Eventually(t, "the difference arrives", func() bool { return len(recorder.Batches()) > 0 })
	return m, recorder, p
}

func TestMirrorRecognisesAnOlderBackup(t *testing.T) {
	m, recorder, p := replaced(t, true, func(store.Store) {})
	b := recorder.Batches()[0]
	if !b.Synthetic || len(b.Puts) != 1 || string(b.Puts[0].Value) != "old" || len(b.Deletes) != 1 || b.Deletes[0] != store.Root+"lost" {
		t.Errorf("batch %+v; want the old value back, the lost key deleted", b)
	}
	last := put(t, p.connect(), "newest")
	storetest.Eventually(t, "the mirror follows the restored store", func() bool { return recorder.State()[key] == "newest" && m.Revision() == last })
}

func TestMirrorRecognisesAnOlderBackupThatWasWrittenTo(t *testing.T) {
	_, recorder, _ := replaced(t, true, func(s store.Store) {
		for range 10 { // beyond the revision that the mirror saw
			put(t, s, "other")
		}
	})
	b := recorder.Batches()[0]
	if !b.Synthetic || len(b.Deletes) != 1 || recorder.State()[key] != "other" {
		t.Errorf("batch %+v; want a synthetic one with the lost key deleted", b)
	}
}

func TestMirrorRecognisesAnotherCluster(t *testing.T) {
	var id uint64
	m, recorder, _ := replaced(t, false, func(s store.Store) {
		head, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id = head.ClusterID
		for range 10 { // so that its revision is not simply lower
			put(t, s, "other")
		}
	})
	b := recorder.Batches()[0]
	if !b.Synthetic || b.ClusterID != id || m.ClusterID() != id || len(b.Deletes) != 1 || len(b.Puts) != 1 {
		t.Errorf("batch %+v; want a synthetic one of cluster %x", b, id)
	}
}
