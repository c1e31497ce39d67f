package main

import (
	"net"
	"testing"
)

func TestAChainCallsTheNextAndAtItsEndTheBackends(t *testing.T) {
	m := measurement{dir: "/dir"}
	for n := 1; n <= 3; n++ {
		chain, err := m.settings(n, []int{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[int]bool{}
		for i, s := range chain {
			if last := i == n-1; last && (len(s.Backends) != 2 || s.Backends[0] != 1) || !last && (len(s.Backends) != 1 || s.Backends[0] != chain[i+1].Listen) {
				t.Errorf("%d of %d: %+v", i+1, n, s)
			}
			if s.Dir != "/dir" || seen[s.Listen] || seen[s.Admin] || s.Listen == s.Admin {
				t.Errorf("%d of %d: %+v", i+1, n, s)
			}
			seen[s.Listen], seen[s.Admin] = true, true
		}
	}
}

func TestListensTellsAPortThatTakesConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := listens(t.Context(), port); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := listens(t.Context(), port); err == nil {
		t.Error("a closed port listens")
	}
}
