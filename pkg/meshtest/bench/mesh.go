package main

import (
	"context"
	"fmt"
)

// meshSuite is the path between two services that speak HTTP/1.1, each beside a proxy of its
// own. Fairlead and Envoy multiplex between the proxies; HAProxy speaks HTTP/1.1
// there, too.
func meshSuite() suite {
	sidecars := fairlead(traceBy(getHTTP1), "mesh/fairlead-calling.yaml", "mesh/fairlead-called.yaml")
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
	return suite{
		name: "mesh", title: "Mesh: HTTP/1.1 through two proxies",
		backend:   nginxProgram("http1/backend.conf"),
		generator: "wrk",
		proxies: []proxy{
			sidecars,
			haproxy("mesh/haproxy-calling.cfg", "mesh/haproxy-called.cfg"),
			envoy("mesh/envoy-calling.yaml", "mesh/envoy-called.yaml"),
		},
		subject: "fairlead", reference: "haproxy", right: "200",
		workloads: []workload{{name: "mesh-32c-100B", connections: 32, streams: 1, body: 100}},
		probe:     probeBy(getHTTP1),
		load:      runWrk,
	}
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
