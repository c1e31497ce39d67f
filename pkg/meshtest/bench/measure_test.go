package main

import (
	"errors"
	"net"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
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

func TestTheBaselineIsTakenOffTheOthersByWorkload(t *testing.T) {
	round := []sample{
		{Proxy: "a", Workload: "p50", Value: 30}, {Proxy: "none", Workload: "p50", Value: 10},
		{Proxy: "none", Workload: "p99", Value: 50}, {Proxy: "a", Workload: "p99", Value: 40},
	}
	takeOff("none", round)
	for i, want := range []float64{20, 10, 50, -10} {
		if round[i].Value != want {
			t.Errorf("%+v; want %g", round[i], want)
		}
	}
	takeOff("", round)
	if round[0].Value != 20 {
		t.Errorf("without a baseline: %+v", round[0])
	}
}

func TestNoRatioToWhatIsNotMoreThanZero(t *testing.T) {
	of := func(proxy string, round int, value float64) sample {
		return sample{Workload: "p50", Proxy: proxy, Round: round, Value: value}
	}
	rounds := map[string][]sample{
		"a": {of("a", 1, 6), of("a", 2, 8)},
		"b": {of("b", 1, 0), of("b", 2, 4)},
		"c": {of("c", 1, -1), of("c", 2, 0)},
	}
	f := figureOf("", proxy{name: "a"}, workload{name: "p50"}, rounds)
	if f.Ratios["b"] != (measure.Spread{Median: 2, Min: 2, Max: 2}) {
		t.Errorf("%+v", f.Ratios)
	}
	if _, ok := f.Ratios["c"]; ok {
		t.Errorf("%+v", f.Ratios)
	}
}

func TestASampleWithoutAResponseIsTakenUpToThreeTimes(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct {
		errs  []error
		calls int
	}{
		{[]error{nil}, 1},
		{[]error{errNoResponse, errNoResponse, nil}, 3},
		{[]error{errNoResponse, other}, 2},
		{[]error{errNoResponse, errNoResponse, errNoResponse}, 3},
	} {
		calls := 0
		n, err := again(errNoResponse, func() (int, error) { calls++; return calls, c.errs[calls-1] })
		if calls != c.calls || n != calls || !errors.Is(err, c.errs[calls-1]) {
			t.Errorf("%v: %d calls, %d, %v", c.errs, calls, n, err)
		}
	}
}
