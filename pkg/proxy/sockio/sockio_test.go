package sockio_test

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/sockio"
)

func TestBuffersAreAsLargeAsAskedFor(t *testing.T) {
	for _, n := range []int{0, 1, sockio.Small, sockio.Small + 1, sockio.Large, sockio.Huge, sockio.Huge + 1, 2*sockio.Huge + 1, 4*sockio.Huge + 1} {
		b := sockio.Get(n)
		if len(b) < n {
			t.Errorf("%d bytes: %d", n, len(b))
		}
		sockio.Put(b)
	}
	sockio.Put(nil)
}

func TestBuffersUpToTheLargestWindowAreUsedAgain(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector lets pools forget")
	}
	for _, n := range []int{sockio.Small, sockio.Large, sockio.Huge, 2 * sockio.Huge, 4 * sockio.Huge} {
		if allocs := testing.AllocsPerRun(100, func() { sockio.Put(sockio.Get(n)) }); allocs != 0 {
			t.Errorf("%d bytes: %v allocations", n, allocs)
		}
	}
}

func TestReserveKeepsWhatIsThere(t *testing.T) {
	var b, want []byte
	for i := range 100_000 {
		b = append(sockio.Reserve(b, 1), byte(i))
		want = append(want, byte(i))
	}
	if !bytes.Equal(b, want) {
		t.Error("the bytes are others")
	}
	if n := testing.AllocsPerRun(100, func() { b = sockio.Reserve(b[:10], 100) }); n != 0 {
		t.Errorf("%v allocations where there is room", n)
	}
}

func TestWhatIsSentArrivesAndNothingWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	from, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	control := func(c net.Conn, f func(fd uintptr)) {
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err == nil {
			err = raw.Control(f)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	control(to, func(fd uintptr) {
		if _, err := sockio.Peek(fd, make([]byte, 1)); err != syscall.EAGAIN {
			t.Errorf("nothing is there: %v", err)
		}
		if _, err := sockio.Recv(fd, make([]byte, 1)); err != syscall.EAGAIN {
			t.Errorf("nothing was sent: %v", err)
		}
	})
	rest := [2][]byte{[]byte("one, "), []byte("two")}
	control(from, func(fd uintptr) {
		for len(rest[0])+len(rest[1]) > 0 { // it may take less than all
			n, err := sockio.Send(fd, rest[0], rest[1])
			if err != 0 {
				t.Fatalf("sending: %v", err)
			}
			first := min(n, len(rest[0]))
			rest = [2][]byte{rest[0][first:], rest[1][n-first:]}
			if len(rest[0]) == 0 {
				rest = [2][]byte{rest[1], nil}
			}
		}
	})
	control(to, func(fd uintptr) {
		one := make([]byte, 1)
		if n, err := sockio.Peek(fd, one); err != 0 || n != 1 || one[0] != 'o' {
			t.Errorf("%d, %v, %q", n, err, one)
		}
	})
	got := make([]byte, len("one, two"))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != "one, two" {
		t.Errorf("%q, %v", got, err)
	}
}
