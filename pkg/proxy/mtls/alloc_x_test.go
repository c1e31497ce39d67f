package mtls_test

import (
	"crypto/tls"
	"io"
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
	tries = 0
	const rounds = 1000
	n := testing.AllocsPerRun(rounds, round)
	// The peer reads once for each round.
	if most := float64(tries)/(rounds+1) + 1; n > most {
		t.Errorf("%v allocations for a round trip, more than the %v attempts to read", n, most)
	}
	if n := testing.AllocsPerRun(rounds, func() {
		if !e.conn.Alive() {
			t.Error("it is not alive")
		}
	}); n > 1 {
		t.Errorf("%v allocations for a look at the peer", n)
	}
}
