package main

// gomaxprocsSuite compares the sidecar with itself: with two threads for Go and with one, where proxy, load and backend share
// both cores, as on a machine that is not the benchmark's alone.
func gomaxprocsSuite() suite {
	s := http1Suite()
	two := fairlead(traceBy(getHTTP1), "http1/fairlead.yaml")
	two.title = "Fairlead, GOMAXPROCS 2"
	two.chain[0].env = []string{"GOMAXPROCS=2"}
	one := fairlead(traceBy(getHTTP1), "http1/fairlead.yaml")
	one.name, one.title = "fairlead-1", "Fairlead, GOMAXPROCS 1"
	s.name, s.title, s.shared = "gomaxprocs", "GOMAXPROCS 2 instead of 1", true
	s.proxies, s.reference = []proxy{two, one}, one.name
	bars := []bar{{than: one.name, aim: 1.1}}
	s.workloads = []workload{
		{name: "shared-32c-100B", connections: 32, streams: 1, body: 100, bars: bars},
		{name: "shared-256c-100B", connections: 256, streams: 1, body: 100, bars: bars},
	}
	return s
}
