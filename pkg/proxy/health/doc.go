// Package health checks whether one target, as a rule the app beside the
// sidecar, can do its work, and reports when that changes.
//
// A [Checker] asks a [Probe] at an interval, and turns single answers into a
// state by thresholds, so that one lost packet moves no traffic. [HTTP] and
// [TCP] are probes; others, such as gRPC's health protocol, are made by whoever
// assembles the process, which keeps their libraries out of the engine.
//
// The names and the rules are those of Envoy's core.v3.HealthCheck, with three
// deviations, each stated where it is: there are defaults, an HTTP status of
// 200 to 399 is a success (Kubernetes' rule), and until the first success a
// single success is enough.
//
// The target is not trusted: it may hang, answer without end or with garbage.
// A check takes no longer than its timeout, reads a bounded number of bytes,
// and what it quotes of the target is escaped and short.
//
// The package does not decide what a state means for traffic, does not check
// the hosts of other services, and knows nothing of draining. A Checker has no
// goroutine of its own: it lives in the caller's [Checker.Run].
package health
