package mesh

import "time"

// DNS is hosts by name, whose addresses are looked up again and again.
type DNS struct {
	Hosts []NamedHost // at least one; of a Logical cluster, one
	// Logical says that of the addresses one is used at a time (Envoy's LOGICAL_DNS), else all
	// are hosts of the cluster (STRICT_DNS).
	Logical bool
	Family  DNSFamily
	Refresh time.Duration // from one look to the next; > 0
}

// NamedHost is a host by its name or address. All its addresses have its weight.
type NamedHost struct {
	Host   string // not empty
	Port   uint16 // never 0
	Weight uint32 // 1 to 10,000
	Zone   string
}

// DNSFamily says which of a host's addresses are used.
type DNSFamily uint8

// The families, by Envoy's names. The zero value is the default of both.
const (
	DNSAuto        DNSFamily = iota // those of IPv6 if there are any, else those of IPv4
	DNSV4Only                       // those of IPv4
	DNSV6Only                       // those of IPv6
	DNSV4Preferred                  // those of IPv4 if there are any, else those of IPv6
	DNSAll                          // all
)

// DefaultDNSRefresh is from one look to the next where a cluster does not say (Envoy's default).
const DefaultDNSRefresh = 5 * time.Second
