package main

import (
	"os"
	"testing"
	"time"
)

func TestWhatGrowsIsToldFromWhatMoves(t *testing.T) {
	seconds := func(n int) (at []float64) {
		for i := range n {
			at = append(at, float64(i))
		}
		return at
	}
	of := func(n int, f func(i int) float64) (values []float64) {
		for i := range n {
			values = append(values, f(i))
		}
		return values
	}
	g := growth{share: 0.1, floor: 8}
	for name, c := range map[string]struct {
		values []float64
		rising bool
	}{
		"nothing":                     {nil, false},
		"one sample":                  {[]float64{5}, false},
		"the same":                    {of(100, func(int) float64 { return 100 }), false},
		"up and down":                 {of(100, func(i int) float64 { return 100 + float64(i%10) }), false},
		"a little":                    {of(100, func(i int) float64 { return 100 + float64(i)/20 }), false},
		"a leak":                      {of(100, func(i int) float64 { return 100 + float64(i)/5 }), true},
		"a leak that moves":           {of(100, func(i int) float64 { return 100 + float64(i)/5 + float64(i%10) }), true},
		"falling":                     {of(100, func(i int) float64 { return 100 - float64(i) }), false},
		"a share of much":             {of(100, func(i int) float64 { return 1000 + float64(i)/2 }), false},
		"more than the share of much": {of(100, func(i int) float64 { return 1000 + 2*float64(i) }), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fit(seconds(len(c.values)), c.values, g); got.Rising != c.rising {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestTrendsLeaveOutWhatWasBefore(t *testing.T) {
	warm := time.Now()
	var samples []sample
	for n := -10; n < 10; n++ {
		s := sample{At: warm.Add(time.Duration(n) * time.Second), Goroutines: 1000}
		if n < 0 {
			s.Goroutines = 1
		}
		samples = append(samples, s)
	}
	if got := trends(samples, warm, 0)["goroutines"]; got.First != 1000 || got.Last != 1000 || got.Rising {
		t.Errorf("%+v", got)
	}
}

func TestWhatLiesInPoolsIsNoLeak(t *testing.T) {
	before := sample{Goroutines: 30, Descriptors: 15, Connections: 2}
	for name, c := range map[string]struct {
		after sample
		want  int
	}{
		"as before":               {before, 0},
		"pools":                   {sample{Goroutines: 230, Descriptors: 115, Connections: 102}, 0},
		"descriptors leak":        {sample{Goroutines: 30, Descriptors: 115, Connections: 2}, 1},
		"goroutines leak":         {sample{Goroutines: 230, Descriptors: 15, Connections: 2}, 1},
		"both leak":               {sample{Goroutines: 230, Descriptors: 115, Connections: 2}, 2},
		"goroutines for HTTP/2":   {sample{Goroutines: 94, Descriptors: 15, Connections: 2}, 0},
		"requests that never end": {sample{Goroutines: 30, Descriptors: 15, Connections: 2, Under: 1}, 1},
		"fewer connections":       {sample{Goroutines: 20, Descriptors: 10}, 0},
	} {
		if got := left(before, c.after); len(got) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestMemoryOfAProcessIsRead(t *testing.T) {
	now, err := memory(os.Getpid(), "VmRSS")
	if err != nil || now < 1<<20 {
		t.Errorf("%d, %v", now, err)
	}
	if _, err := memory(os.Getpid(), "VmNone"); err == nil {
		t.Error("what there is not was read")
	}
}

func TestWhatIsUnderWayIsAddedUp(t *testing.T) {
	const text = "# TYPE fairlead_requests_in_flight gauge\n" +
		"fairlead_requests_in_flight{source=\"a\",destination=\"b c\"} 2\nfairlead_requests_in_flight{source=\"a\",destination=\"d\"} 1\n" +
		"fairlead_upstream_active{cluster=\"c\"} 4\nfairlead_upstream_requests_total{cluster=\"c\"} 9\n"
	if n := underWay(text); n != 7 {
		t.Errorf("%d", n)
	}
}

func TestMetricIsReadByItsWholeName(t *testing.T) {
	const text = "# TYPE go_goroutines gauge\ngo_goroutines_max 9\ngo_goroutines 42\n"
	if n, err := metric(text, "go_goroutines"); n != 42 || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := metric(text, "go_goroutine"); err == nil {
		t.Error("a prefix was taken for the name")
	}
}
