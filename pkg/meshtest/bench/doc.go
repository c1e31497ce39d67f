// Command bench measures what the proxy costs, in CPU time, memory and latency, beside NGINX, HAProxy
// and Envoy in the same run.
//
// One core runs the proxy that is measured, the other the load and the backend. Each
// round measures every workload with every proxy, each in a process started for it,
// in an order that turns by one from round to round, so that what changes on the
// machine meanwhile meets all of them. The cost is the CPU time that the kernel
// accounts to the proxy's processes, divided by the requests answered; it depends
// less on what else the machine does than throughput and latency do, which are
// closed loops mostly and limited by the core of the load. Latency is measured by an open loop at a low
// rate, memory by idle connections, each on one process for all their figures. Figures that count are ratios within the run.
//
// A sample is refused, and the run with it, if a response was not 200, if a socket failed,
// or if the bytes received are not those of as many right responses.
//
// It is not a load test of a mesh: there is no control plane, and nothing changes
// while it runs.
//
// A [bar] is what a figure of Fairlead, or its ratio to a peer's, is held to.
//
// A [suite] is a kind of work: its proxies with their configurations, its backend, what makes
// its load and its workloads. Adding a row to the table is adding a workload, adding a protocol is
// adding a suite; what measures, aggregates and renders knows neither. Where no tool does the work, bench starts
// itself for it (role).
//
// Processes are owned by the function that started them, which ends them before it
// returns, and run owns all of those: SIGINT and SIGTERM make it return.
package main
