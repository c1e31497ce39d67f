// Package proxyproto reads and writes the header of the PROXY protocol, versions 1 and
// 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, "the specification"
// below): what a proxy sends in front of a connection's bytes so that the next one knows
// whose connection it is.
//
// Who believes such a header believes whoever can connect. It is asked for on ports that
// only trusted proxies reach, and is then never optional (the specification, §2).
package proxyproto
