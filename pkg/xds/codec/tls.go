package codec

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// tlsName is Envoy's name of the extension. Only the types count when reading.
const tlsName = "envoy.transport_sockets.tls"

const (
	maxPath         = 4096 // of a file's name: PATH_MAX of Linux
	maxCertificates = 8
	maxSANs         = 64
	maxALPN         = 8
	maxALPNBytes    = 255 // RFC 7301 §3.1: ProtocolName<1..2^8-1>
)

func downstreamProto(f *faults, t *mesh.DownstreamTLS) *corev3.TransportSocket {
	if t == nil {
		return nil
	}
	m := &tlsv3.DownstreamTlsContext{CommonTlsContext: commonProto(f, &t.TLS)}
	if t.RequireClientCertificate {
		m.RequireClientCertificate = wrapperspb.Bool(true)
	}
	return &corev3.TransportSocket{Name: tlsName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(m)}}
}

func upstreamProto(f *faults, t *mesh.UpstreamTLS) *corev3.TransportSocket {
	if t == nil {
		return nil
	}
	m := &tlsv3.UpstreamTlsContext{CommonTlsContext: commonProto(f, &t.TLS), Sni: t.SNI}
	return &corev3.TransportSocket{Name: tlsName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(m)}}
}

// commonProto notes what the message could not express.
func commonProto(f *faults, t *mesh.TLS) *tlsv3.CommonTlsContext {
	m := &tlsv3.CommonTlsContext{AlpnProtocols: t.ALPN}
	for _, pair := range t.Certificates {
		m.TlsCertificates = append(m.TlsCertificates, &tlsv3.TlsCertificate{
			CertificateChain: fileProto(pair.Chain), PrivateKey: fileProto(pair.Key),
		})
	}
	if t.MinVersion != mesh.TLSAuto || t.MaxVersion != mesh.TLSAuto {
		m.TlsParams = &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: versionProto(f, t.MinVersion),
			TlsMaximumProtocolVersion: versionProto(f, t.MaxVersion),
		}
	}
	if t.CA == "" && len(t.SANs) == 0 {
		return m
	}
	validation := &tlsv3.CertificateValidationContext{}
	if t.CA != "" {
		validation.TrustedCa = fileProto(t.CA)
	}
	for _, s := range t.SANs {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, sanProto(f, s))
	}
	m.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation}
	return m
}

func fileProto(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func versionProto(f *faults, v mesh.TLSVersion) tlsv3.TlsParameters_TlsProtocol {
	switch v {
	case mesh.TLSAuto:
		return tlsv3.TlsParameters_TLS_AUTO
	case mesh.TLS12:
		return tlsv3.TlsParameters_TLSv1_2
	case mesh.TLS13:
		return tlsv3.TlsParameters_TLSv1_3
	}
	f.add("transport_socket", "TLS version %d is %s", v, notSupported)
	return tlsv3.TlsParameters_TLS_AUTO
}

func sanProto(f *faults, s mesh.SANMatch) *tlsv3.SubjectAltNameMatcher {
	m := &tlsv3.SubjectAltNameMatcher{}
	switch s.Type {
	case mesh.SANDNS:
		m.SanType = tlsv3.SubjectAltNameMatcher_DNS
	case mesh.SANURI:
		m.SanType = tlsv3.SubjectAltNameMatcher_URI
	case mesh.SANIP:
		m.SanType = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	default:
		f.add("transport_socket", "type %d of a name is %s", s.Type, notSupported)
	}
	switch s.Kind {
	case mesh.MatchExact:
		m.Matcher = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s.Value}}
	case mesh.MatchPrefix:
		m.Matcher = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s.Value}}
	case mesh.MatchSuffix:
		m.Matcher = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: s.Value}}
	default:
		f.add("transport_socket", "comparison %d of names is %s", s.Kind, notSupported)
	}
	return m
}

// downstreamValue reads the transport_socket of a filter chain, nil if it has no TLS.
func downstreamValue(f *faults, path string, m *corev3.TransportSocket) *mesh.DownstreamTLS {
	if m == nil {
		return nil
	}
	checkName(f, field(path, "name"), m.GetName())
	if unpack(m.GetTypedConfig(), &rawv3.RawBuffer{}) {
		return nil
	}
	at := field(path, "typed_config")
	tls := &tlsv3.DownstreamTlsContext{}
	if !unpack(m.GetTypedConfig(), tls) {
		f.add(at, "must be a DownstreamTlsContext or a RawBuffer")
		return nil
	}
	common := field(at, "common_tls_context")
	t := &mesh.DownstreamTLS{
		TLS:                      commonValue(f, common, tls.GetCommonTlsContext()),
		RequireClientCertificate: tls.GetRequireClientCertificate().GetValue(),
	}
	if len(t.Certificates) == 0 {
		f.add(field(common, "tls_certificates"), "must not be empty: clients are shown one")
	}
	if t.RequireClientCertificate && t.CA == "" {
		f.add(field(at, "require_client_certificate"), "needs validation_context.trusted_ca: without it any certificate would do")
	}
	return t
}

// upstreamValue reads the transport_socket of a cluster, nil if it has no TLS.
func upstreamValue(f *faults, path string, m *corev3.TransportSocket) *mesh.UpstreamTLS {
	if m == nil {
		return nil
	}
	checkName(f, field(path, "name"), m.GetName())
	if unpack(m.GetTypedConfig(), &rawv3.RawBuffer{}) {
		return nil
	}
	at := field(path, "typed_config")
	tls := &tlsv3.UpstreamTlsContext{}
	if !unpack(m.GetTypedConfig(), tls) {
		f.add(at, "must be an UpstreamTlsContext, a ProxyProtocolUpstreamTransport or a RawBuffer")
		return nil
	}
	common := field(at, "common_tls_context")
	t := &mesh.UpstreamTLS{TLS: commonValue(f, common, tls.GetCommonTlsContext()), SNI: tls.GetSni()}
	if len(t.Certificates) > 1 {
		f.add(item(field(common, "tls_certificates"), 1), "more than one is %s for a cluster", notSupported)
	}
	if t.SNI != "" && !isHost(t.SNI) {
		f.add(field(at, "sni"), "is %q, not the name of a host", clip(t.SNI))
	}
	return t
}

func commonValue(f *faults, path string, m *tlsv3.CommonTlsContext) mesh.TLS {
	t := mesh.TLS{}
	certificates := field(path, "tls_certificates")
	if n := len(m.GetTlsCertificates()); n > maxCertificates {
		f.add(certificates, "are %d, more than %d", n, maxCertificates)
		return t
	}
	for i, c := range m.GetTlsCertificates() {
		t.Certificates = append(t.Certificates, mesh.KeyPair{
			Chain: readFile(f, field(item(certificates, i), "certificate_chain"), c.GetCertificateChain()),
			Key:   readFile(f, field(item(certificates, i), "private_key"), c.GetPrivateKey()),
		})
	}
	if v := m.GetValidationContext(); v != nil {
		readValidation(f, field(path, "validation_context"), v, &t)
	}
	protocols := field(path, "alpn_protocols")
	if n := len(m.GetAlpnProtocols()); n > maxALPN {
		f.add(protocols, "are %d, more than %d", n, maxALPN)
		return t
	}
	for i, p := range m.GetAlpnProtocols() {
		if p == "" || len(p) > maxALPNBytes {
			f.add(item(protocols, i), "is %d bytes long, not 1 to %d", len(p), maxALPNBytes)
		}
		checkText(f, item(protocols, i), p)
		t.ALPN = append(t.ALPN, p)
	}
	params := field(path, "tls_params")
	low, high := field(params, "tls_minimum_protocol_version"), field(params, "tls_maximum_protocol_version")
	t.MinVersion = versionValue(f, low, m.GetTlsParams().GetTlsMinimumProtocolVersion())
	t.MaxVersion = versionValue(f, high, m.GetTlsParams().GetTlsMaximumProtocolVersion())
	if t.MaxVersion != mesh.TLSAuto && t.MinVersion > t.MaxVersion {
		f.add(high, "is lower than tls_minimum_protocol_version")
	}
	return t
}

func readValidation(f *faults, path string, m *tlsv3.CertificateValidationContext, t *mesh.TLS) {
	if m.GetTrustedCa() != nil {
		t.CA = readFile(f, field(path, "trusted_ca"), m.GetTrustedCa())
	}
	names := field(path, "match_typed_subject_alt_names")
	if n := len(m.GetMatchTypedSubjectAltNames()); n > maxSANs {
		f.add(names, "are %d, more than %d", n, maxSANs)
		return
	}
	for i, s := range m.GetMatchTypedSubjectAltNames() {
		t.SANs = append(t.SANs, sanValue(f, item(names, i), s))
	}
	if len(t.SANs) > 0 && t.CA == "" {
		f.add(names, "need trusted_ca: anybody can make a certificate with any name")
	}
}

// readFile reads a DataSource that names a file. Those that hold the data are not in the
// subset: configuration is shown and logged, and keys must not be.
func readFile(f *faults, path string, m *corev3.DataSource) string {
	at := field(path, "filename")
	name := m.GetFilename()
	_, isFile := m.GetSpecifier().(*corev3.DataSource_Filename)
	switch {
	case m.GetSpecifier() != nil && !isFile: // which the walk has told
	case name == "":
		f.add(at, "must name a file")
	case len(name) > maxPath:
		f.add(at, "is %d bytes long, more than %d", len(name), maxPath)
	default:
		checkText(f, at, name)
	}
	return name
}

func versionValue(f *faults, path string, v tlsv3.TlsParameters_TlsProtocol) mesh.TLSVersion {
	switch v {
	case tlsv3.TlsParameters_TLS_AUTO:
		return mesh.TLSAuto
	case tlsv3.TlsParameters_TLSv1_2:
		return mesh.TLS12
	case tlsv3.TlsParameters_TLSv1_3:
		return mesh.TLS13
	}
	f.add(path, "%s is %s", v, notSupported)
	return mesh.TLSAuto
}

func sanValue(f *faults, path string, m *tlsv3.SubjectAltNameMatcher) mesh.SANMatch {
	s := mesh.SANMatch{}
	switch m.GetSanType() {
	case tlsv3.SubjectAltNameMatcher_DNS:
		s.Type = mesh.SANDNS
	case tlsv3.SubjectAltNameMatcher_URI:
		s.Type = mesh.SANURI
	case tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
		s.Type = mesh.SANIP
	default:
		f.add(field(path, "san_type"), "%s is %s", m.GetSanType(), notSupported)
	}
	at := field(path, "matcher")
	switch by := m.GetMatcher().GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		at, s.Kind, s.Value = field(at, "exact"), mesh.MatchExact, by.Exact
	case *matcherv3.StringMatcher_Prefix:
		at, s.Kind, s.Value = field(at, "prefix"), mesh.MatchPrefix, by.Prefix
	case *matcherv3.StringMatcher_Suffix:
		at, s.Kind, s.Value = field(at, "suffix"), mesh.MatchSuffix, by.Suffix
	default:
		f.add(at, "must have exact, prefix or suffix")
		return s
	}
	switch {
	case s.Value == "":
		f.add(at, "must not be empty")
	case len(s.Value) > maxName:
		f.add(at, "is %d bytes long, more than %d", len(s.Value), maxName)
	default:
		checkText(f, at, s.Value)
	}
	if s.Type == mesh.SANIP {
		if _, err := netip.ParseAddr(s.Value); err != nil || s.Kind != mesh.MatchExact {
			f.add(at, "is %q, and an IP address must be exact", clip(s.Value))
		}
	}
	return s
}
