package mesh

// TLSVersion is a version of the TLS protocol. The zero value leaves the choice to
// whoever builds the connection.
type TLSVersion uint8

// The versions. Older ones are not spoken (RFC 8996).
const (
	TLSAuto TLSVersion = iota // as lower bound TLS 1.2, as upper bound TLS 1.3
	TLS12
	TLS13
)

// KeyPair is a certificate that is shown to peers, and its key.
type KeyPair struct {
	Chain string // path of a PEM file: the certificate, then those that lead to its authority
	Key   string // path of a PEM file
}

// SANType is a kind of name that a certificate may have (RFC 5280 §4.2.1.6).
type SANType uint8

// The kinds of names.
const (
	SANDNS SANType = iota
	SANURI
	SANIP
)

// MatchKind says how a name is compared.
type MatchKind uint8

// The kinds of comparison.
const (
	MatchExact MatchKind = iota
	MatchPrefix
	MatchSuffix
)

// SANMatch is a condition on the names of a certificate; one name that fulfils it is
// enough.
type SANMatch struct {
	Type SANType
	Kind MatchKind // of SANIP only MatchExact
	// Value is not empty. That of a DNS name is compared without regard to case; if it is
	// exact, a certificate's *.example.com is any one label more than example.com
	// (RFC 9525 §6.3).
	Value string
}

// TLS is what the two sides of a TLS connection are told alike.
type TLS struct {
	// Certificates are shown to the peer: by a listener the first that suits what the client
	// asks for, else the first of all; by a cluster its one.
	Certificates []KeyPair
	// CA is the path of a PEM file with the authorities that peers are verified by.
	// "": they are not verified.
	CA string
	// SANs has conditions of which the certificate of a peer must fulfil one. Empty: any
	// certificate of the authorities is good. They need a CA.
	SANs []SANMatch
	// ALPN has the protocols that are spoken above TLS (RFC 7301), the preferred first.
	ALPN                   []string
	MinVersion, MaxVersion TLSVersion
}

// DownstreamTLS is the TLS of a listener. It has a certificate at least.
type DownstreamTLS struct {
	TLS
	// RequireClientCertificate turns clients away that show none. Without it, one that is
	// shown must be good all the same if there is a CA. It needs a CA.
	RequireClientCertificate bool
}

// UpstreamTLS is the TLS of the connections to a cluster's hosts. It has a certificate at most.
type UpstreamTLS struct {
	TLS
	// SNI is the name that hosts are asked for (RFC 6066 §3), and that their certificates
	// must have where there is a CA and no SANs. "": none is asked for, and any
	// certificate of the CA is good.
	SNI string
}
