package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestWithoutDescriptorsTheAnswerSaysSoAndTheHostIsNotBlamed(t *testing.T) {
	app := backend(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
	r := start(t, []string{app}, func(c *mesh.Cluster, _ *mesh.Route) {
		c.Breaker = mesh.Breaker{ConsecutiveFailures: 1, MaxEjectionPercent: 100}
	})
	nc, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(patience))
	answers := bufio.NewReader(nc)
	get := func() (int, string) {
		if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: orders\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("fairlead-reason")
	}
	if status, why := get(); status != 200 {
		t.Fatal(status, why)
	}
	put := noDescriptors(t)
	for range 3 {
		if status, why := get(); status != 503 || why != "no_socket" {
			t.Errorf("without descriptors: %d, %q", status, why)
		}
	}
	put()
	if status, why := get(); status != 200 {
		t.Errorf("with descriptors again: %d, %q", status, why)
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
