// Package mesh is the vocabulary that both planes share: names, identities,
// endpoints, clusters, routes and listeners as plain validated values.
//
// It is not a place for behaviour: nothing here does I/O, starts a goroutine,
// knows protobuf or keeps state. Package xds/codec turns these values into
// Envoy's v3 resources and back; pkg/control produces them from the registry
// and the policies; pkg/proxy compiles them into what requests are served from.
//
// Values are immutable once handed over: whoever receives one reads it and
// never writes through its slices.
package mesh
