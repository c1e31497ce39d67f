package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

func TestOnlyChoosesByKind(t *testing.T) {
	allProxies, allWorkloads := proxyNames(suites()), workloadNames(suites())
	for _, c := range []struct {
		only               string
		proxies, workloads []string
	}{
		{"", allProxies, allWorkloads},
		{"nginx,fairlead", []string{"fairlead", "nginx"}, allWorkloads},
		{"32c-10kB", allProxies, []string{"32c-10kB"}},
		{"envoy,32c-10kB,256c-100B", []string{"envoy"}, []string{"32c-10kB", "256c-100B"}},
	} {
		chosen, err := choose(suites(), c.only)
		if err != nil {
			t.Fatal(err)
		}
		if p, w := proxyNames(chosen), workloadNames(chosen); !slices.Equal(p, c.proxies) || !slices.Equal(w, c.workloads) {
			t.Errorf("-only %q: %v and %v", c.only, p, w)
		}
	}
}

func TestEveryConfigurationRendersWithItsPorts(t *testing.T) {
	with := setting{Dir: "/dir", Listen: 4001, Admin: 4002, Backends: []int{4003, 4004}}
	for _, s := range suites() {
		for _, p := range s.proxies {
			var b strings.Builder
			if err := s.render(&b, p.program.config, with); err != nil {
				t.Error(err)
			}
			for _, want := range []string{"4001", "4003", "4004"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%s: no %s in\n%s", p.name, want, b.String())
				}
			}
			if strings.Contains(b.String(), "{{") || strings.Contains(b.String(), "<no value>") {
				t.Errorf("%s is not filled in:\n%s", p.name, b.String())
			}
		}
	}
}

func TestTheSidecarTakesItsConfiguration(t *testing.T) {
	for _, s := range suites() {
		var b strings.Builder
		if err := s.render(&b, "fairlead.yaml", setting{Listen: 4001, Admin: 4002, Backends: []int{4003, 4004}}); err != nil {
			t.Fatal(err)
		}
		if _, err := codec.DecodeBootstrap([]byte(b.String())); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func TestOrderTurnsWithTheRounds(t *testing.T) {
	all := []string{"a", "b", "c"}
	for round, want := range []string{"abc", "bca", "cab", "abc"} {
		if got := strings.Join(rotated(all, round), ""); got != want {
			t.Errorf("round %d: %s, want %s", round, got, want)
		}
	}
}
