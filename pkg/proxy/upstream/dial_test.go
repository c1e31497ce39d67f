package upstream_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
)

// queuedDial dials while as many as may do so already, and returns when it waits.
func queuedDial(t *testing.T, h *upstream.Host) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		s, err := h.Dial(t.Context())
		if err == nil {
			s.Release(false, 0)
		}
		ended <- err
	}()
	for end := time.Now().Add(10 * time.Second); h.Queued() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not wait")
		}
	}
	return ended
}

func TestOneTooManyWaitsForItsTurnToDial(t *testing.T) {
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	done := r.host("i").Dialling(upstream.MaxDials)
	ended := queuedDial(t, r.host("i"))
	done()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := r.host("i").Queued(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

func TestWhoWaitsToDialTakesWhatCameBackMeanwhile(t *testing.T) {
	s := listen(t)
	r := start(t, mesh.Cluster{}, s.endpoint("i"))
	h := r.host("i")
	stale, _ := r.dial(s, h)
	used, _ := r.dial(s, h)
	stale.Release(true, r.now())
	time.Sleep(time.Millisecond) // the clock goes on
	done := h.Dialling(upstream.MaxDials)
	ended := queuedDial(t, h)
	used.Release(true, r.now())
	done()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(s.accepted) > 0 {
		t.Error("another connection was opened")
	}
	if h.Take(r.now()) != stale || h.Take(r.now()) != nil {
		t.Error("it was not the one that came back that was taken")
	}
	if n := h.DialsUnderWay(); n != 0 {
		t.Errorf("it holds %d of the turns to dial", n)
	}
	stale.Release(false, r.now())
}

func TestWaitingToDialEnds(t *testing.T) {
	isNetTimeout := func(err error) bool {
		var ne net.Error
		return errors.As(err, &ne) && ne.Timeout()
	}
	for name, test := range map[string]struct {
		connect, cancel time.Duration
		queued          int
		want            func(error) bool
	}{
		"with the connect timeout": {50 * time.Millisecond, time.Hour, 0, isNetTimeout},
		"with the request":         {time.Hour, 50 * time.Millisecond, 0, func(err error) bool { return errors.Is(err, context.Canceled) }},
		"at once if too many wait": {time.Hour, time.Hour, upstream.MaxQueued, func(err error) bool { return errors.Is(err, upstream.ErrBusy) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, mesh.Cluster{ConnectTimeout: test.connect}, endpoint(1))
			h := r.host("i1")
			defer h.Dialling(upstream.MaxDials)()
			h.Queueing(test.queued)
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(test.cancel, cancel).Stop()
			defer cancel()
			if _, err := h.Dial(ctx); !test.want(err) {
				t.Errorf("it got %v", err)
			}
			if n := h.Queued(); n != test.queued {
				t.Errorf("%d wait", n)
			}
		})
	}
}

// noDescriptors lets the process open no more files until put is called.
func noDescriptors(t *testing.T) (put func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	var taken []*os.File
	put = sync.OnceFunc(func() {
		for _, f := range taken {
			_ = f.Close()
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(put)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = uint64(f.Fd()) + 1
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	for ; err == nil; f, err = os.Open(os.DevNull) { // what came free below
		taken = append(taken, f)
	}
	return put
}

func TestWithoutDescriptorsAnIdleConnectionMakesRoom(t *testing.T) {
	a, b := listen(t), listen(t)
	r := start(t, mesh.Cluster{}, a.endpoint("a"))
	idle, peer := r.dial(a, r.host("a"))
	if _, err := r.set.Apply(mesh.Cluster{Name: "other", Static: &mesh.LoadAssignment{Cluster: "other", Endpoints: []mesh.Endpoint{b.endpoint("b")}}}); err != nil {
		t.Fatal(err)
	}
	other := r.set.Clusters()[1].Hosts()[0]
	defer noDescriptors(t)()
	if _, err := other.Dial(t.Context()); !errors.Is(err, upstream.ErrNoSocket) || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("with none that is idle: %v", err)
	}
	idle.Release(true, r.now())
	s, err := other.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantEnd(t, peer)
	s.Release(false, r.now())
}

func TestWhatThisSideLacksIsToldFromWhatIsWrongWithTheHost(t *testing.T) {
	for errno, own := range map[syscall.Errno]bool{
		syscall.EMFILE: true, syscall.ENFILE: true, syscall.EADDRNOTAVAIL: true, syscall.ENOBUFS: true, syscall.ENOMEM: true,
		syscall.ECONNREFUSED: false, syscall.EHOSTUNREACH: false, syscall.ENETUNREACH: false, syscall.ECONNRESET: false, syscall.ETIMEDOUT: false,
	} {
		err := upstream.DialError(&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", errno)})
		if errors.Is(err, upstream.ErrNoSocket) != own || !errors.Is(err, errno) {
			t.Errorf("%s: %v", errno, err)
		}
	}
}
