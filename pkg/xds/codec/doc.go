// Package codec is the one place where mesh values become Envoy v3 resources
// and Envoy v3 resources become mesh values: on the xDS stream, in bootstrap
// files and in configuration dumps alike.
//
// # The law
//
// Decode(Encode(x)) equals Canonical(x), and whatever decodes is canonical. The
// canonical form fills in defaults and sorts endpoints; see [CanonicalListener],
// [CanonicalCluster] and [CanonicalEndpoints]. Routes have no other form than
// their own. Encoding is deterministic: the same value gives the same bytes, and
// so the same version, in every process and after every restart.
//
// # Strictness
//
// What is not in the subset of Envoy's API that Fairlead implements is refused
// with its path, never ignored: a field, a field number that is not known, the
// type of an Any, a value out of range. All faults of a resource are told at
// once, up to [MaxFaults]. The allow-list is in subset.go, field by field, and
// docs/xds-subset.md says for each of them what it does.
//
// What is encoded satisfies Envoy's own validation rules and grpc-go's xDS client
// (gRFC A27, A28, A47, A48, A50, A52): both must accept everything, but for a cluster's
// TLS, which grpc-go takes from providers in its own bootstrap file only (gRFC A29).
//
// # Bounds
//
// Input is hostile. Resources and files are bounded in bytes, nesting and number.
// Nothing here does I/O, keeps state or starts a goroutine; every function may be
// called from any goroutine.
package codec
