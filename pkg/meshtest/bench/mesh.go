package main

import (
	"context"
	"fmt"
	"strings"
)

// meshSuite is the path between two services that speak HTTP/1.1, each beside a proxy of its
// own. Fairlead and Envoy multiplex between the proxies; HAProxy speaks HTTP/1.1
// there, too.
func meshSuite() suite {
	return suite{
		name: "mesh", title: "Mesh: HTTP/1.1 through two proxies",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "wrk",
		proxies: []proxy{
			meshSidecars("mesh/fairlead-calling.yaml", "mesh/fairlead-called.yaml"),
			haproxy("mesh/haproxy-calling.cfg", "mesh/haproxy-called.cfg"),
			envoy("mesh/envoy-calling.yaml", "mesh/envoy-called.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "200",
		unit: perRequest,
		workloads: []workload{{name: "mesh-32c-100B", connections: 32, streams: 1, body: 100, bars: []bar{
			{than: "haproxy", must: 0.9, aim: 0.6}, {than: "envoy", must: 0.45, aim: 0.25}}}},
		probe: probeBy(getHTTP1),
		load:  runWrk,
	}
}

// meshSidecars is a chain of two that multiplexes between them.
func meshSidecars(configs ...string) proxy {
	sidecars := fairlead(traceBy(getHTTP1), configs...)
	verify := sidecars.verify
	sidecars.verify = func(ctx context.Context, chain []setting) error {
		if err := verify(ctx, chain); err != nil {
			return err
		}
		clusters, _, err := getHTTP1(ctx, chain[0].Admin, "/clusters?format=json")
		if err != nil {
			return err
		}
		return verifyMultiplexed(clusters)
	}
	return sidecars
}

// verifyMultiplexed reads the admin port's answer for clusters after a load on more connections
// than 8: there are no more to a host when its requests share them.
func verifyMultiplexed(data []byte) error {
	hosts, err := hostsOf(data)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if h.Idle < 1 || h.Idle > 8 {
			return fmt.Errorf("it does not multiplex: %d connections to the other sidecar", h.Idle)
		}
	}
	return nil
}

// mtlsSuite is the same path with mutual TLS between the proxies.
func mtlsSuite() suite {
	s := meshSuite()
	s.name, s.title = "mtls", "Mesh: mutual TLS between two proxies"
	sidecars := meshSidecars("mtls/fairlead-calling.yaml", "mtls/fairlead-called.yaml")
	verify := sidecars.verify
	sidecars.verify = func(ctx context.Context, chain []setting) error {
		if err := verify(ctx, chain); err != nil {
			return err
		}
		for _, one := range chain {
			metrics, _, err := getHTTP1(ctx, one.Admin, "/stats/prometheus")
			if err != nil {
				return err
			}
			if err := verifyCounted(metrics, "fairlead_tls_handshakes_total"); err != nil {
				return err
			}
		}
		return nil
	}
	s.proxies = []proxy{
		sidecars,
		haproxy("mtls/haproxy-calling.cfg", "mtls/haproxy-called.cfg"),
		envoy("mtls/envoy-calling.yaml", "mtls/envoy-called.yaml"),
	}
	for i := range s.workloads {
		s.workloads[i].name = strings.Replace(s.workloads[i].name, "mesh", "mtls", 1)
	}
	return s
}
