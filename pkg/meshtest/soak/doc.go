// Command soak lets a mesh of real processes work, change and break for minutes, and asserts
// that no client saw a failure that the rules do not explain, and that nothing grew.
//
// Two clients' sidecars lead to services whose instances have sidecars, HTTP over multiplexed
// connections, and TCP; two more serve bootstrap files, with TLS to clients and mutual TLS between
// them, for HTTP and for TCP. Every 100 ms a policy or a registration changes. Instances are killed,
// frozen and told to stop, and come back; so does the control plane, which is killed at the beginning and in the
// middle. Meanwhile short requests of all protocols go on, WebSocket over both versions of HTTP among them, and a
// thousand long streams and 10,000 idle connections are held.
//
//	soak -seconds 180 -bin bin -report bin/soak
//
// # What explains a failure
//
//   - An idempotent request whose response has not begun never fails: there is always another
//     instance.
//   - One that is not idempotent may fail with upstream_reset, if an instance of the service was
//     killed while it was under way, or its application closed an HTTP/1 connection as it left;
//     and with not_delivered, while an application is down, if its body is longer than the 16 kB
//     that are kept for a second attempt.
//   - What has begun may break off (a response, a stream, a tunnel, a relayed connection), if the
//     instance at its other end was killed, or was told to stop and its time for that was over. A
//     call of gRPC ends as UNAVAILABLE then. So may a connection of TCP that is opened while the application is
//     down: its sidecar takes it, and learns that it cannot pass it on.
//   - A change may be refused while the control plane is down or frozen.
//   - Everything else is unexplained, and so is any end of what is held by instances that
//     nobody touched, whatever the configuration did meanwhile.
//
// # What is flat
//
// Of every sidecar that is not killed, and of the control plane, from a sixth of the time after its last start on: resident
// memory, goroutines and descriptors, every two seconds. After the first third of the time a line
// is fitted, which must not rise by more than growthOf says; nor may what collections leave of the
// sidecars' heaps, measured at both ends of it. When all load has ended, nothing is under way, and
// goroutines and descriptors are as many as before it, but for connections that lie idle in pools.
//
// Before all that, bodies of a gigabyte go down and up through two sidecars, whose resident memory
// stays below bulkResident.
package main
