package main

import "testing"

func TestABarIsMetOrMissedByTheMedian(t *testing.T) {
	for _, c := range []struct {
		bar   bar
		value float64
		want  string
	}{
		{bar{}, 1.15, "≤ 1.15: met"},
		{bar{}, 1.16, "≤ 1.15: **missed**"},
		{bar{least: true}, 1.15, "≥ 1.15: met"},
		{bar{least: true}, 1.14, "≥ 1.15: **missed**"},
	} {
		if got := c.bar.held(c.value, 1.15); got != c.want {
			t.Errorf("%+v, %g: %q", c.bar, c.value, got)
		}
	}
	if got := (bar{}).held(1, 0); got != "" {
		t.Errorf("without a limit: %q", got)
	}
}

func TestEveryBarIsOfAProxyOfItsSuite(t *testing.T) {
	for _, s := range suites() {
		names := map[string]bool{"": true}
		for _, p := range s.proxies {
			names[p.name] = true
		}
		if !names[s.subject] || !names[s.reference] || !names[s.baseline] {
			t.Errorf("%s: subject %q, reference %q, baseline %q", s.name, s.subject, s.reference, s.baseline)
		}
		for _, w := range s.workloads {
			for _, b := range w.bars {
				if !names[b.than] || b.must == 0 && b.aim == 0 {
					t.Errorf("%s, %s: %+v", s.name, w.name, b)
				}
			}
		}
	}
}
