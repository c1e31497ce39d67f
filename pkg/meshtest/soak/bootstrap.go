package main

import (
	"fmt"
	"net"
	"strings"
)

// bootstrap is an Envoy v3 bootstrap file.
type bootstrap struct {
	node                string
	listeners, clusters []string // in YAML's flow style
}

func (b bootstrap) yaml() string {
	return fmt.Sprintf("node: {id: %s, cluster: soak}\nstatic_resources:\n  listeners:\n  - %s\n  clusters:\n  - %s\n",
		b.node, strings.Join(b.listeners, "\n  - "), strings.Join(b.clusters, "\n  - "))
}

// extension is the prefix of a type's URL in a typed_config.
const extension = `"@type": type.googleapis.com/envoy.extensions.`

func socketAddress(hostport string) string {
	host, port, _ := net.SplitHostPort(hostport) // FreeAddress has made it
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port)
}

// httpListener leads to a cluster. With TLS if there is a folder of certificates; from clients
// with a certificate only, if mutual.
func httpListener(name, address, cluster, certs string, mutual bool) string {
	return fmt.Sprintf(`{name: %[1]s, address: %[2]s, filter_chains: [{%[3]sfilters: [{name: http, typed_config: {`+
		extension+`filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: %[1]s, `+
		`route_config: {name: r, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: %[4]s}}]}]}, `+
		`http_filters: [{name: envoy.filters.http.router, typed_config: {`+extension+`filters.http.router.v3.Router}}]}}]}]}`,
		name, socketAddress(address), listenerTLS(certs, "[h2, http/1.1]", mutual), cluster)
}

// listenerTLS is nothing if there is no folder of certificates.
func listenerTLS(certs, protocols string, mutual bool) string {
	if certs == "" {
		return ""
	}
	return fmt.Sprintf(`transport_socket: {name: tls, typed_config: {%stransport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: %t, `+
		`common_tls_context: {alpn_protocols: %s, %s}}}, `, extension, mutual, protocols, material(certs))
}

// material is the certificate in a folder, and the authority that verifies peers.
func material(certs string) string {
	return fmt.Sprintf(`tls_certificates: [{certificate_chain: {filename: %[1]s/tls.crt}, private_key: {filename: %[1]s/tls.key}}], `+
		`validation_context: {trusted_ca: {filename: %[1]s/ca.crt}}`, certs)
}

// tcpListener relays to a cluster. The rest is as for httpListener.
func tcpListener(name, address, cluster, certs string, mutual bool) string {
	return fmt.Sprintf(`{name: %[1]s, address: %[2]s, filter_chains: [{%[4]sfilters: [{name: tcp, typed_config: {`+
		extension+`filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: %[1]s, cluster: %[3]s}}]}]}`, name, socketAddress(address), cluster, listenerTLS(certs, "[]", mutual))
}

// clusterOf has hosts, and mutual TLS to them, if there is a folder of certificates.
func clusterOf(name, certs string, hosts ...string) string {
	security := ""
	if certs != "" {
		security = fmt.Sprintf(`transport_socket: {name: tls, typed_config: {%stransport_sockets.tls.v3.UpstreamTlsContext, sni: %s, common_tls_context: {%s}}}, `,
			extension, serverName, material(certs))
	}
	var endpoints []string
	for _, h := range hosts {
		endpoints = append(endpoints, "{endpoint: {address: "+socketAddress(h)+"}}")
	}
	return fmt.Sprintf(`{name: %[1]s, type: STATIC, connect_timeout: 5s, %[2]sload_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [%[3]s]}]}}`,
		name, security, strings.Join(endpoints, ", "))
}
