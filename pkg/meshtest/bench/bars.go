package main

import (
	"fmt"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
)

// bar is what a figure of the subject is held to: the figure itself, or its ratio to a peer's.
type bar struct {
	than      string  // name of the peer; "" is the figure itself
	must, aim float64 // 0 is none
	least     bool    // the figure is to be at least that; else at most
}

// verdict says whether a figure clears its bar.
type verdict struct {
	Suite    string         `json:"suite"`
	Title    string         `json:"title"` // of the suite
	Workload string         `json:"workload"`
	Than     string         `json:"than,omitempty"` // title of the peer
	Unit     string         `json:"unit,omitempty"` // of the figure, if there is no peer
	Value    measure.Spread `json:"value"`
	// Must and Aim are empty where there is none: "≤ 1.15: met".
	Must string `json:"must,omitempty"`
	Aim  string `json:"aim,omitempty"`
}

// verdicts are those of all bars whose figures were measured.
func verdicts(all []suite, sums []summary) []verdict {
	var list []verdict
	for i, s := range all {
		for _, w := range s.workloads {
			for _, b := range w.bars {
				if v, ok := b.verdict(s, sums[i], w); ok {
					list = append(list, v)
				}
			}
		}
	}
	return list
}

// verdict is by the median. It is false if subject or peer was not measured.
func (b bar) verdict(s suite, sum summary, w workload) (verdict, bool) {
	v := verdict{Suite: s.name, Title: s.title, Workload: w.name}
	found := false
	for _, f := range sum.Figures {
		switch {
		case f.Workload != w.name:
		case f.Proxy == s.subject && b.than == "":
			v.Value, v.Unit, found = f.Value, s.unit, true
		case f.Proxy == s.subject:
			v.Value, found = f.Ratios[b.than]
		case f.Proxy == b.than:
			v.Than = f.Title
		}
	}
	v.Must, v.Aim = b.held(v.Value.Median, b.must), b.held(v.Value.Median, b.aim)
	return v, found
}

// held says whether the value is as the limit wants it.
func (b bar) held(value, limit float64) string {
	if limit == 0 {
		return ""
	}
	sign, met := "≤", value <= limit
	if b.least {
		sign, met = "≥", value >= limit
	}
	if met {
		return fmt.Sprintf("%s %g: met", sign, limit)
	}
	return fmt.Sprintf("%s %g: **missed**", sign, limit)
}

// writeVerdicts is a table of all bars.
func writeVerdicts(b *strings.Builder, list []verdict) {
	if len(list) == 0 {
		return
	}
	b.WriteString("\n### Bars\n\nWhat Fairlead is held to, by the median: *must* is the bar, *aim* where to push.\n\n")
	b.WriteString("| suite | workload | figure | | must | aim |\n|---|---|---|---:|---|---|\n")
	for _, v := range list {
		what := v.Unit
		if v.Than != "" {
			what = "÷ " + v.Than
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s |\n", v.Title, v.Workload, what, v.Value.Render(2), v.Must, v.Aim)
	}
}
