package tcp_test

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/tcp"
)

// erratic reads and writes pieces of all sizes, and then ends in one of the ways that there
// are.
func erratic(nc *net.TCPConn, rnd *rand.Rand) {
	_ = nc.SetDeadline(time.Now().Add(patience))
	piece := make([]byte, 100_000)
	var reading sync.WaitGroup
	if rnd.IntN(3) > 0 {
		reading.Go(func() { _, _ = io.Copy(io.Discard, nc) })
	}
	for range rnd.IntN(4) {
		if _, err := nc.Write(piece[:1+rnd.IntN(len(piece))]); err != nil {
			break
		}
	}
	switch rnd.IntN(4) {
	case 0:
		_ = nc.SetLinger(0)
	case 1:
		_ = nc.CloseWrite()
		_ = nc.SetDeadline(time.Now().Add(time.Duration(rnd.IntN(50)) * time.Millisecond))
		reading.Wait()
	case 2:
		time.Sleep(time.Duration(rnd.IntN(20)) * time.Millisecond)
	}
	_ = nc.Close()
	reading.Wait()
}

func TestNothingIsLeftOfConnectionsHoweverTheyEnd(t *testing.T) {
	for name, with := range map[string]setup{
		"from the start":   {},
		"with a preface":   {config: tcp.Config{ProxyProtocol: true, TLS: true, PrefaceTimeout: 100 * time.Millisecond}},
		"with few pipes":   {config: tcp.Config{MaxPipes: 1}},
		"with a breaker":   {cluster: mesh.Cluster{Breaker: mesh.Breaker{OpenTime: 10 * time.Millisecond, MaxOpenTime: 10 * time.Millisecond}}},
		"with few allowed": {cluster: mesh.Cluster{MaxConnections: 10}, route: tcp.Route{Attempts: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "with a breaker" {
				with.cluster.Breaker.Disabled = true
			}
			seeds := make(chan uint64, 1000)
			for i := range uint64(cap(seeds)) {
				seeds <- i
			}
			erraticServer := func(nc *net.TCPConn) { erratic(nc, rand.New(rand.NewPCG(<-seeds, 1))) }
			r := start(t, with, backend(t, erraticServer), backend(t, erraticServer), refusing(t))
			before := openFiles(t)
			const clients, rounds = 20, 12
			var all sync.WaitGroup
			var connected atomic.Int64
			for i := range clients {
				all.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(i), 2))
					for range rounds {
						nc, err := net.Dial("tcp", r.address)
						if err != nil {
							continue // it was reset at once
						}
						connected.Add(1)
						if with.config.ProxyProtocol && rnd.IntN(8) > 0 {
							_, _ = io.WriteString(nc, header[:len(header)-rnd.IntN(2)*rnd.IntN(len(header))])
						}
						erratic(nc.(*net.TCPConn), rnd)
					}
				})
			}
			all.Wait()
			opened := func() float64 { return r.value("fairlead_tcp_connections_opened_total") }
			eventually(t, func() bool { // the last may not be accepted yet
				return opened() >= float64(connected.Load()) && opened() == r.value("fairlead_tcp_connections_closed_total") && r.server.Connections() == 0
			})
			r.relay.Close()
			if n := r.value("fairlead_tcp_connections_active"); n != 0 {
				t.Errorf("%v are counted as active", n)
			}
			if n := r.cluster.Active(); n != 0 {
				t.Errorf("%d attempts are under way", n)
			}
			for _, h := range r.cluster.Hosts() {
				if s := h.Status(r.now()); s.Active != 0 {
					t.Errorf("%+v", s)
				}
			}
			eventually(t, func() bool { return openFiles(t) <= before })
		})
	}
}

// openFiles is how many files the process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc")
	}
	return len(files)
}
