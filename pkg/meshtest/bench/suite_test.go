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
		{"nginx,fairlead", []string{"fairlead", "nginx", "direct"}, allWorkloads},
		{"32c-10kB", proxyNames([]suite{http1Suite()}), []string{"32c-10kB"}},
		{"envoy,32c-10kB,256c-100B", []string{"envoy"}, []string{"32c-10kB", "256c-100B"}},
		{"http2,envoy", []string{"envoy"}, workloadNames([]suite{http2Suite()})},
		{"latency,envoy,p99", []string{"direct", "envoy"}, []string{"p99"}},
		{"latency,fairlead-1", nil, nil},
		{"http2,32c-10kB", nil, nil},
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

// programs are all that a suite starts, each once.
func programs(s suite) []program {
	all := []program{s.backend}
	for _, p := range s.proxies {
		all = append(all, p.chain...)
	}
	return all
}

func TestEveryConfigurationRendersWithItsPorts(t *testing.T) {
	with := setting{Dir: "/dir", Listen: 4001, Admin: 4002, Backends: []int{4003, 4004}}
	for _, s := range suites() {
		for i, p := range programs(s) {
			var b strings.Builder
			if err := render(&b, p.config, with); err != nil {
				t.Error(err)
			}
			want := []string{"4001", "4003", "4004"}
			if i == 0 { // the backend, which has no port but those
				want = want[1:]
			}
			for _, want := range want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%s: no %s in\n%s", p.config, want, b.String())
				}
			}
			if strings.Contains(b.String(), "{{") || strings.Contains(b.String(), "<no value>") {
				t.Errorf("%s is not filled in:\n%s", p.config, b.String())
			}
		}
	}
}

func TestTheSidecarTakesItsConfiguration(t *testing.T) {
	for _, s := range suites() {
		for _, p := range programs(s) {
			if p.binary != "sidecar" {
				continue
			}
			var b strings.Builder
			if err := render(&b, p.config, setting{Listen: 4001, Admin: 4002, Backends: []int{4003, 4004}}); err != nil {
				t.Fatal(err)
			}
			if _, err := codec.DecodeBootstrap([]byte(b.String())); err != nil {
				t.Errorf("%s: %v", p.config, err)
			}
		}
	}
}

// A configuration is written into one folder under its own name.
func TestNoTwoProgramsOfAProxyHaveOneFile(t *testing.T) {
	for _, s := range suites() {
		for _, p := range s.proxies {
			files := []string{s.backend.file()}
			for _, one := range p.chain {
				if slices.Contains(files, one.file()) {
					t.Errorf("%s, %s: %s twice", s.name, p.name, one.file())
				}
				files = append(files, one.file())
			}
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
