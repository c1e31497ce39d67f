package codec

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// inlineName begins the names of what a file has inline.
const inlineName = "inline:"

// takeInline takes the certificates and keys that a file has inline out of it, and leaves names in their places, as of
// files. So nothing that is made of the configuration, and shown, can have a key.
func takeInline(m *bootstrapv3.Bootstrap_StaticResources) map[string][]byte {
	taken := map[string][]byte{}
	for i, l := range m.GetListeners() {
		at := item("static_resources.listeners", i)
		for j, chain := range l.GetFilterChains() {
			takeSocket(taken, chainPath(at, j, false), chain.GetTransportSocket(), &tlsv3.DownstreamTlsContext{})
		}
		takeSocket(taken, chainPath(at, 0, true), defaultSocket(l), &tlsv3.DownstreamTlsContext{})
	}
	for i, c := range m.GetClusters() {
		takeSocket(taken, item("static_resources.clusters", i), c.GetTransportSocket(), &tlsv3.UpstreamTlsContext{})
	}
	if len(taken) == 0 {
		return nil
	}
	return taken
}

func defaultSocket(l *listenerv3.Listener) *corev3.TransportSocket {
	return l.GetDefaultFilterChain().GetTransportSocket()
}

// takeSocket takes what the TLS of a socket has inline, which is of the type of context.
func takeSocket(taken map[string][]byte, path string, socket *corev3.TransportSocket, context interface {
	proto.Message
	GetCommonTlsContext() *tlsv3.CommonTlsContext
},
) {
	if !unpack(socket.GetTypedConfig(), context) {
		return
	}
	before := len(taken)
	at := field(path, "transport_socket.typed_config.common_tls_context")
	common := context.GetCommonTlsContext()
	for i, pair := range common.GetTlsCertificates() {
		one := item(field(at, "tls_certificates"), i)
		takeData(taken, field(one, "certificate_chain"), pair.GetCertificateChain())
		takeData(taken, field(one, "private_key"), pair.GetPrivateKey())
	}
	takeData(taken, field(at, "validation_context.trusted_ca"), common.GetValidationContext().GetTrustedCa())
	if len(taken) > before {
		socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: pack(context)}
	}
}

func takeData(taken map[string][]byte, path string, from *corev3.DataSource) {
	data := from.GetInlineBytes()
	if text := from.GetInlineString(); text != "" {
		data = []byte(text)
	}
	if len(data) == 0 {
		return
	}
	taken[inlineName+path] = data
	from.Specifier = &corev3.DataSource_Filename{Filename: inlineName + path}
}
