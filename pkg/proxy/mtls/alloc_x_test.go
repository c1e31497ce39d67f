package mtls_test

import (
	"crypto/tls"
	"io"
	"runtime"
	"testing"
)

// What crypto/tls allocates is the one reader of readFromUntil for each attempt to read from
// the socket; the attempt that finds nothing, before it waits, is one too.
func TestARoundTripAllocatesWhatCryptoTLSDoes(t *testing.T) {
	if underRace {
		t.Skip("the race detector empties pools")
	}
	e := connect(t, true, tls.VersionTLS13)
	go func() { _, _ = io.Copy(e.peer, e.peer) }()
	buf, got := make([]byte, 100), 0
	tries := 0
	read := func() bool {
		tries++
		n, wait, _ := e.conn.TryRead(buf)
		got += n
		return !wait
	}
	round := func() {
		_, _ = e.conn.Write(buf)
		for got = 0; got < len(buf); {
			_ = e.conn.Poll(read)
		}
	}
	for range 100 {
		round()
	}
	const rounds = 1000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tries = 0
	for range rounds {
		round()
	}
	runtime.ReadMemStats(&after)
	// The peer reads once for each round. Now and then a collection empties pools.
	if n, most := after.Mallocs-before.Mallocs, tries+rounds; n > uint64(most+rounds/5) { //nolint:gosec // a count
		t.Errorf("%d allocations for %d round trips, with %d attempts to read", n, rounds, most)
	}
	if n := testing.AllocsPerRun(rounds, func() {
		if !e.conn.Alive() {
			t.Error("it is not alive")
		}
	}); n > 1 {
		t.Errorf("%v allocations for a look at the peer", n)
	}
}
