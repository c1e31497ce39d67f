package etcdembed_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdembed"
	"github.com/fairlead-mesh/fairlead/pkg/store/etcdstore"
	"github.com/fairlead-mesh/fairlead/pkg/store/storetest"
)

// childDir is the environment variable that turns the test binary into an etcd process; see process_test.go.
const childDir = "FAIRLEAD_TEST_ETCD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		serve(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// serve runs an etcd until standard input ends.
func serve(dir string) {
	s, err := etcdembed.Start(context.Background(), etcdembed.Config{DataDir: dir, Listen: os.Getenv("FAIRLEAD_TEST_ETCD_LISTEN")})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(s.Listen())
	_, _ = io.Copy(io.Discard, os.Stdin) // only its end matters
	if err := s.Stop(); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func start(t *testing.T, c etcdembed.Config) *etcdembed.Server {
	t.Helper()
	s, err := etcdembed.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newStore(t *testing.T) store.Store {
	return start(t, etcdembed.Config{DataDir: t.TempDir()}).Store()
}

func TestContract(t *testing.T) { storetest.Run(t, newStore) }

func TestMirrorContract(t *testing.T) { storetest.RunMirror(t, newStore) }

const key = store.Root + "a"

func put(t *testing.T, s store.Store, value string) int64 {
	t.Helper()
	r, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(key, []byte(value))}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

func TestDataSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, etcdembed.Config{DataDir: dir})
	before, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, s.Store(), "kept")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if err, open := <-s.Err(); open {
		t.Errorf("an orderly stop was reported as failure: %v", err)
	}
	again := start(t, etcdembed.Config{DataDir: dir})
	e, err := again.Store().Get(t.Context(), key)
	if err != nil || string(e.Value) != "kept" {
		t.Errorf("after the restart: %q, %v", e.Value, err)
	}
	after, err := again.Store().Head(t.Context())
	if err != nil || after.ClusterID != before.ClusterID {
		t.Errorf("cluster id %x, %v; want %x", after.ClusterID, err, before.ClusterID)
	}
}

func TestEachDataDirectoryIsAClusterOfItsOwn(t *testing.T) {
	var ids []uint64
	for range 2 {
		head, err := start(t, etcdembed.Config{DataDir: t.TempDir()}).Store().Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, head.ClusterID)
	}
	if ids[0] == ids[1] {
		t.Errorf("two new data directories have the same cluster id %x", ids[0])
	}
}

func TestSocketIsPrivateAndNoPortIsOpen(t *testing.T) {
	before := listening(t)
	dir := filepath.Join(t.TempDir(), "data")
	s := start(t, etcdembed.Config{DataDir: dir})
	for path, want := range map[string]fs.FileMode{s.Socket(): 0o600, filepath.Dir(s.Socket()): 0o700, dir: 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	for socket := range listening(t) {
		if !before[socket] {
			t.Errorf("a TCP socket was opened: inode %s", socket)
		}
	}
}

// listening returns the inodes of this process's listening TCP sockets.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Skip("needs Linux's /proc:", err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" { // TCP_LISTEN
				all["socket:["+f[9]+"]"] = true
			}
		}
	}
	own := make(map[string]bool)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs Linux's /proc:", err)
	}
	for _, fd := range fds {
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && all[target] {
			own[target] = true
		}
	}
	return own
}

func TestListenOpensALoopbackPortForOthers(t *testing.T) {
	s := start(t, etcdembed.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0"})
	put(t, s.Store(), "1")
	other, err := etcdstore.New(t.Context(), etcdstore.Config{Endpoints: []string{"http://" + s.Listen()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	if e, err := other.Get(t.Context(), key); err != nil || string(e.Value) != "1" {
		t.Errorf("through the port: %q, %v", e.Value, err)
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		config etcdembed.Config
		want   string
	}{
		{"no directory", etcdembed.Config{}, "no data directory"},
		{"every address", etcdembed.Config{DataDir: t.TempDir(), Listen: "0.0.0.0:0"}, "not loopback"},
		{"a public address", etcdembed.Config{DataDir: t.TempDir(), Listen: "192.0.2.1:2379"}, "not loopback"},
		{"a name", etcdembed.Config{DataDir: t.TempDir(), Listen: "localhost:2379"}, "not IP:port"},
		{"a long socket path", etcdembed.Config{DataDir: t.TempDir(), Socket: "/tmp/" + strings.Repeat("x", 103)}, "108 bytes; the system allows 107"},
		{"a socket directory open to others", etcdembed.Config{DataDir: t.TempDir(), Socket: filepath.Join(open, "s")}, "must be 0700"},
		{"a negative quota", etcdembed.Config{DataDir: t.TempDir(), QuotaBytes: -1}, "negative quota"},
	}
	for _, tt := range tests {
		s, err := etcdembed.Start(t.Context(), tt.config)
		if err == nil {
			_ = s.Stop()
		}
		if !errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestALongDataDirectoryGetsAShortSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	s := start(t, etcdembed.Config{DataDir: dir})
	put(t, s.Store(), "1")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(s.Socket())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary socket directory after stop: %v, want it gone", err)
	}
}

func TestASecondServerOnTheSameDirectoryFailsAtOnce(t *testing.T) {
	dir := t.TempDir()
	start(t, etcdembed.Config{DataDir: dir})
	_, err := etcdembed.Start(t.Context(), etcdembed.Config{DataDir: dir})
	if want := fmt.Sprintf("in use by process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestTheQuotaIsReportedAndEnforced(t *testing.T) {
	const quota = 4 << 20
	s := start(t, etcdembed.Config{DataDir: t.TempDir(), QuotaBytes: quota}).Store()
	if size, err := s.Size(t.Context()); err != nil || size.Quota != quota {
		t.Errorf("size %+v, %v; want quota %d", size, err, quota)
	}
	// How much there is, etcd knows when it has written it: ten times in a second.
	for i := range 500 {
		value := make([]byte, 1<<20)
		_, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(fmt.Sprint(key, i), value)}})
		if errors.Is(err, store.ErrNoSpace) {
			return
		}
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	t.Error("500 MiB went into 4 MiB")
}

func TestAFullStoreTakesWritesAgainOnceItsFreePagesAreGivenBack(t *testing.T) {
	server := start(t, etcdembed.Config{DataDir: t.TempDir(), QuotaBytes: 4 << 20})
	s := server.Store()
	keys := 0
	for ; ; keys++ {
		r, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(fmt.Sprint(key, keys), make([]byte, 1<<20))}})
		if errors.Is(err, store.ErrNoSpace) {
			break
		}
		if err != nil || keys == 500 {
			t.Fatalf("write %d: %+v, %v", keys, r, err)
		}
	}
	r, err := s.Txn(t.Context(), store.Txn{Then: []store.Op{store.DeletePrefix(key)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), r.Revision); err != nil {
		t.Fatal(err)
	}
	full, err := s.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for size := full; size.Bytes > full.Bytes/2; { // pages are free once etcd has got to compacting
		if err := server.Defragment(t.Context()); err != nil {
			t.Fatal(err)
		}
		if size, err = s.Size(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "there is room")
}

func TestAFullStoreTakesWritesAgainOnceItIsStartedWithMoreRoom(t *testing.T) {
	dir := t.TempDir()
	server := start(t, etcdembed.Config{DataDir: dir, QuotaBytes: 4 << 20})
	for n := 0; ; n++ {
		_, err := server.Store().Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(fmt.Sprint(key, n), make([]byte, 1<<20))}})
		if errors.Is(err, store.ErrNoSpace) {
			break
		}
		if err != nil || n == 500 {
			t.Fatalf("write %d: %v", n, err)
		}
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	put(t, start(t, etcdembed.Config{DataDir: dir, QuotaBytes: 1 << 30}).Store(), "there is room")
}

func TestHistoryIsCompactedByItself(t *testing.T) {
	s := start(t, etcdembed.Config{DataDir: t.TempDir(), AutoCompactionRetention: time.Second}).Store()
	first := put(t, s, "1")
	storetest.Eventually(t, "the first revision is compacted", func() bool {
		put(t, s, "2")
		_, err := s.List(t.Context(), store.ListRequest{Prefix: key, Revision: first})
		return errors.Is(err, store.ErrCompacted)
	})
}

func TestNobodyAtTheEndpointIsAClearErrorInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	endpoint := "http://" + l.Addr().String()
	_, err = etcdstore.New(t.Context(), etcdstore.Config{Endpoints: []string{endpoint}, ProbeTimeout: 200 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "no answer from etcd at "+endpoint) {
		t.Errorf("error %v, want one that names the endpoint", err)
	}
}

func TestWhoAsksWhileTheServerStopsIsRefused(t *testing.T) {
	s := start(t, etcdembed.Config{DataDir: t.TempDir()})
	var asking sync.WaitGroup
	begun := make(chan struct{}, 8)
	for range cap(begun) {
		asking.Go(func() {
			for n := 0; ; n++ {
				_, err := s.Store().Txn(context.Background(), store.Txn{Then: []store.Op{store.Put(key, []byte("1"))}})
				if err == nil {
					_, err = s.Store().List(context.Background(), store.ListRequest{Prefix: key})
				}
				if n == 1 {
					begun <- struct{}{}
				}
				if err != nil {
					if !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknownOutcome) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	asking.Wait()
}
