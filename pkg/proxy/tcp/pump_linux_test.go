package tcp

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

// pair is both ends of a connection of the kernel's.
func pair(t testing.TB) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near.(*net.TCPConn), far.(*net.TCPConn)
}

// pumped pumps from one connection to another until the test ends, and returns the outer
// ends.
func pumped(t testing.TB, ps *pipes) (in, out *net.TCPConn, p *pump) {
	t.Helper()
	in, from := pair(t)
	to, out := pair(t)
	p = &pump{}
	p.init(newEnd(from), newEnd(to), ps)
	var running sync.WaitGroup
	running.Go(func() {
		if failed := p.run(); failed != neither {
			t.Errorf("it failed: %d", failed)
		}
	})
	t.Cleanup(func() {
		_ = in.CloseWrite()
		running.Wait()
		ps.close()
	})
	return in, out, p
}

func TestCarryingBytesDoesNotAllocate(t *testing.T) {
	for name, test := range map[string]struct {
		pipes, size int
	}{
		"small messages":             {8, 100},
		"many bytes through pipes":   {8, 200_000},
		"many bytes through buffers": {0, 200_000},
	} {
		t.Run(name, func(t *testing.T) {
			in, out, _ := pumped(t, &pipes{limit: test.pipes})
			sent, got := make([]byte, test.size), make([]byte, test.size)
			if n := testing.AllocsPerRun(200, func() {
				if _, err := in.Write(sent); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(out, got); err != nil {
					t.Fatal(err)
				}
			}); n > 0 && !underRace {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestAPipeIsHeldOnlyWhileThereIsSomethingInIt(t *testing.T) {
	ps := &pipes{limit: 4}
	in, out, _ := pumped(t, ps)
	got := make([]byte, 1<<20)
	for range 5 {
		if _, err := in.Write(got); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, got); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Write(got[:1]); err != nil { // it has been woken once more when this has come
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, got[:1]); err != nil {
		t.Fatal(err)
	}
	for {
		ps.mu.Lock()
		made, free := ps.made, len(ps.free)
		ps.mu.Unlock()
		if made == 0 {
			t.Fatal("there never was one")
		}
		if made == free {
			return
		}
	}
}

func TestPipesAreBounded(t *testing.T) {
	ps := &pipes{limit: 2}
	a, b := ps.get(), ps.get()
	if a == nil || b == nil || ps.get() != nil {
		t.Fatal("not two")
	}
	ps.put(a)
	if ps.get() != a {
		t.Error("one that is free is not used again")
	}
	ps.drop(a)
	c := ps.get()
	if c == nil || ps.get() != nil {
		t.Error("one that was closed has no successor")
	}
	ps.put(c)
	ps.close()
	if ps.get() != nil {
		t.Error("there is one after the end")
	}
	ps.put(b)
	if ps.made != 0 {
		t.Errorf("%d are open", ps.made)
	}
	var stat syscall.Stat_t
	for _, p := range []*pipe{a, b, c} {
		if syscall.Fstat(p.in, &stat) == nil && stat.Mode&syscall.S_IFMT == syscall.S_IFIFO {
			t.Error("a pipe is still open")
		}
	}
}

// What is no socket of the kernel's, as TLS, is carried too, and ends the same.
func TestOtherConnectionsAreCarriedByCopying(t *testing.T) {
	in, from := net.Pipe()
	to, out := net.Pipe()
	p := &pump{}
	p.init(newEnd(from), newEnd(to), &pipes{})
	result := make(chan failed, 1)
	go func() { result <- p.run() }()
	go func() {
		_, _ = in.Write(make([]byte, 100_000))
		_ = in.Close()
	}()
	if n, err := io.ReadFull(out, make([]byte, 100_000)); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if got := <-result; got != neither || p.moved.Load() != 100_000 {
		t.Errorf("%d, %d bytes", got, p.moved.Load())
	}
	p.to.closeWrite()
	if n, err := out.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // a pipe wraps nothing
		t.Errorf("%d bytes, %v", n, err)
	}
	go func() { result <- p.run() }() // the sender is gone
	if got := <-result; got != reading && got != neither {
		t.Errorf("%d", got)
	}
	in, from = net.Pipe()
	p.init(newEnd(from), newEnd(to), &pipes{})
	go func() { result <- p.run() }()
	_, _ = in.Write([]byte("x"))
	if got := <-result; got != writing {
		t.Errorf("a receiver that is gone: %d", got)
	}
	_, _ = in.Close(), from.Close()
}

func TestAnEndIsToldFromAResetThatLooksLikeOne(t *testing.T) {
	const closed, closeWait = 7, 8 // TCP_CLOSE, TCP_CLOSE_WAIT
	// until what the peer did, and then its answer to what it was sent, is here
	settle := func(e end, want int) {
		for state, unsent := -1, 0; state != want || unsent > 0; time.Sleep(time.Millisecond) {
			_ = e.raw.Control(func(fd uintptr) {
				unsent = sockio.Unsent(fd)
				info, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
				state = info & 0xff
			})
		}
	}
	for name, test := range map[string]struct {
		peer            func(*net.TCPConn)
		ended, answered int // the states of the socket
		broken          bool
	}{
		"an end": {func(c *net.TCPConn) { _ = c.CloseWrite() }, closeWait, closeWait, false},
		"an end, and a reset of what is sent behind it": {func(c *net.TCPConn) { _ = c.Close() }, closeWait, closed, false},
		"a reset that a write was told of": {func(c *net.TCPConn) {
			_ = c.SetLinger(0)
			_ = c.Close()
		}, closed, closed, true},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			e := newEnd(near)
			test.peer(far)
			settle(e, test.ended)
			_, _ = near.Write([]byte("x"))
			settle(e, test.answered)
			if n, err := near.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Fatalf("%d bytes, %v: it does not look like an end", n, err)
			}
			if e.isBroken() != test.broken {
				t.Errorf("broken: %v", !test.broken)
			}
		})
	}
}

func BenchmarkCarrying(b *testing.B) {
	for name, size := range map[string]int{"100 bytes": 100, "200 kB": 200_000} {
		b.Run(name, func(b *testing.B) {
			in, out, _ := pumped(b, &pipes{limit: 8})
			sent, got := make([]byte, size), make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := in.Write(sent); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(out, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
