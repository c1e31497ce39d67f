// Package mtls is the TLS of the proxy's connections: configurations of crypto/tls,
// made of files of certificates and kept as these change, and connections above sockets.
//
// A [Keeper] makes a [Server] for a listener and a [Client] for a cluster, and looks at
// their files every few seconds. Files that changed take effect for the handshakes that
// begin afterwards; those under way, and connections, end as they began. Files that
// cannot be used change nothing: what was loaded last goes on, the log says so once, and
// [Keeper.Status] as long as it is so.
//
// What is verified, and when:
//
//   - a client's certificate against the authorities, if the listener has any, and its
//     names against the conditions, if there are any;
//   - a host's certificate likewise. A cluster with an SNI and without conditions wants
//     the certificate to be of that name; with neither, any certificate of the
//     authorities is good; without authorities, any certificate at all.
//
// Resumed sessions are held to the same: the authorities, conditions and the time are those
// of the resumption. Of a listener, tickets outlive changes of files, and crypto/tls
// changes the keys that they are sealed with every day; of a cluster, sessions are kept
// per host, and forgotten when files change, so that hosts see the new certificate.
//
// A [Conn] is read and written as the sockets of package http1 are, past the scheduler,
// and can be asked without blocking whether its peer has gone.
//
// Goroutines: a Keeper has one, which ends with Close. Servers and Clients may be used
// from any goroutine.
package mtls
